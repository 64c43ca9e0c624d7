#include "memory.h"

#include <stdlib.h>

typedef struct {
    PyObject_HEAD
    unsigned char *data;
    size_t size;
    size_t part_at, part_size;
    int read_only;
} Memory;

PyObject *memory_new(struct state *state, weirpool_task *task)
{
    Memory *self = PyObject_New(Memory, state->memory_type);
    if (self != NULL) {
        self->data = weirpool_keep_result(task, &self->size);
        self->part_at = self->part_size = 0;
        self->read_only = 1;
    }
    return (PyObject *)self;
}

const void *memory_data(PyObject *memory, size_t *size)
{
    *size = ((Memory *)memory)->size;
    return ((Memory *)memory)->data;
}

PyObject *memory_view(PyObject *memory, const unsigned char *data, size_t size, int read_only)
{
    Memory *self = (Memory *)memory;
    self->part_at = (size_t)(data - self->data);
    self->part_size = size;
    self->read_only = read_only;
    return PyMemoryView_FromObject(memory);
}

static int memory_get_buffer(PyObject *memory, Py_buffer *view, int flags)
{
    Memory *self = (Memory *)memory;
    return PyBuffer_FillInfo(view, memory, self->data + self->part_at, (Py_ssize_t)self->part_size, self->read_only,
                             flags);
}

static void memory_dealloc(PyObject *memory)
{
    PyTypeObject *type = Py_TYPE(memory);
    free(((Memory *)memory)->data);
    type->tp_free(memory);
    Py_DECREF(type);
}

static PyType_Slot memory_slots[] = {
    {Py_tp_dealloc, memory_dealloc},
    {Py_bf_getbuffer, memory_get_buffer},
    {0, NULL},
};

PyType_Spec memory_spec = {
    .name = "weirpool._core.Memory",
    .basicsize = sizeof(Memory),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = memory_slots,
};
