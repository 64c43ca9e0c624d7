/* The memory of a large result, taken over from its task: arrays of the result may refer to it, and keep it. */
#ifndef WEIRPOOL_EXT_MEMORY_H
#define WEIRPOOL_EXT_MEMORY_H

#include "ext.h"

#define MEMORY_LEAST ((size_t)1024 * 1024)

extern PyType_Spec memory_spec;

/* Takes the result of a taken task over. NULL with an exception set: the task still has it. */
PyObject *memory_new(struct state *state, weirpool_task *task);

const void *memory_data(PyObject *memory, size_t *size);

/* A memoryview of a part of it. There is one such part. NULL with an exception set. */
PyObject *memory_view(PyObject *memory, const unsigned char *data, size_t size, int read_only);

#endif
