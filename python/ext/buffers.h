/*
 * Buffers out of band: what pickle's protocol 5 need not copy into a pickle (arrays, mostly) lies behind it.
 *
 *     PLAIN_BUFFERS | sizes: of the pickle, how many buffers, of each | pickle | buffers, each at a multiple of 16
 *
 * On the other side each gets memory of its own, a bytearray or (read-only) a bytes object, as it would in band. Only in
 * a result a buffer that is nearly all of it stays where it is: see memory.h.
 */
#ifndef WEIRPOOL_EXT_BUFFERS_H
#define WEIRPOOL_EXT_BUFFERS_H

#include "ext.h"

#define PLAIN_BUFFERS 0x7f /* below 0x80, where pickles start, and above FUNCTION_NAMES */
#define BUFFERS_LEAST ((Py_ssize_t)64 * 1024) /* smaller ones cost less in the pickle */

static inline int has_buffers(const void *data, size_t size)
{
    return size > 0 && *(const unsigned char *)data == PLAIN_BUFFERS;
}

/*
 * The sizes, as bytes, of a pickle and a list of PickleBuffers. One that is there twice is sent once: the list of those
 * to send goes to `send`. NULL with an exception set.
 */
PyObject *buffers_table(size_t pickled, PyObject *buffers, PyObject **send);

/* How many zeros precede a buffer, which would begin so many bytes behind the tag. */
static inline size_t buffers_padding(size_t at)
{
    return (16 - at % 16) % 16;
}

/* Unpickles; `memory` may own the data (a result's), else NULL. Believes nothing that the data say. */
PyObject *buffers_decode(struct state *state, const unsigned char *data, size_t size, PyObject *memory);

#endif
