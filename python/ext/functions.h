/*
 * Functions that pickle sends by their names travel as these names alone, without pickle. Both sides look where pickle
 * looks, each time: in sys.modules.
 *
 *     size of the rest (1 byte) | module | 0 | name
 */
#ifndef WEIRPOOL_EXT_FUNCTIONS_H
#define WEIRPOOL_EXT_FUNCTIONS_H

#include "ext.h"

/*
 * Writes the names of `function`, if it is a plain function and its module has it under its name. Returns their end, or
 * NULL (without an exception) if pickle has to see to it.
 */
unsigned char *function_write(PyObject *function, unsigned char *out, const unsigned char *end);

/* Reads `size` bytes behind the size. What the names stand for now, a new reference, or NULL with an exception set. */
PyObject *function_read(struct state *state, struct known_names *known, const void *data, size_t size);

void known_names_clear(struct known_names *known);

#endif
