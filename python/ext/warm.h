/*
 * Memory for what is decoded. Where a large object is made, large pages are used if there are any. A worker keeps its
 * last large ones: where nobody else refers to one any more, the next takes its place, in pages that are there already,
 * which is several times faster than new ones. What is kept has a limit, and an idle worker gives it back.
 */
#ifndef WEIRPOOL_EXT_WARM_H
#define WEIRPOOL_EXT_WARM_H

#include "ext.h"

/* An object of `size` bytes that are yet to be written. NULL with an exception set. */
PyObject *warm_bytes(struct state *state, size_t size);
PyObject *warm_bytearray(struct state *state, size_t size);

/* Where such bytes are written; without the interpreter lock, if there are many. */
void warm_fill(char *to, const void *from, size_t size);

/* From now on this process keeps some: it is a worker. */
void warm_keep(struct state *state);

/* Gives back what is kept. */
void warm_release(struct state *state);

#endif
