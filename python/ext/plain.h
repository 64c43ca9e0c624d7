/*
 * Small values without pickle: None, bools, ints, floats, short strings and bytes, and tuples of these. They are equal
 * on the other side, of the same types, and nobody can have registered a reducer that pickle would use for them. That
 * one of them is sent twice in a message, and was the same object, is forgotten.
 *
 * A value starts with a tag below 0x80, which is how every pickle starts.
 */
#ifndef WEIRPOOL_EXT_PLAIN_H
#define WEIRPOOL_EXT_PLAIN_H

#include "ext.h"

/* Writes `object` to `out`. Returns its end, or NULL (without an exception) if it is not plain or does not fit. */
unsigned char *plain_write(PyObject *object, unsigned char *out, const unsigned char *end);

/* Reads one value and moves `*at` behind it. NULL with an exception set. */
PyObject *plain_read(const unsigned char **at, const unsigned char *end);

/* A larger bytes object travels as it is, behind this tag. */
#define PLAIN_RAW 0x40

/* Is this the beginning of a plain value? */
static inline int is_plain(const void *data, size_t size)
{
    return size > 0 && *(const unsigned char *)data < 0x80;
}

#endif
