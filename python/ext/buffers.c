#include "buffers.h"
#include "memory.h"
#include "warm.h"

#include <string.h>

/* A size, or (REPEATED) which of the buffers before it is meant. */
enum { READ_ONLY = 1, REPEATED = 2, FLAG_BITS = 2 };

/* ---- writing ---- */

static Py_ssize_t index_of(PyObject *list, Py_ssize_t end, const PyObject *item)
{
    for (Py_ssize_t i = 0; i < end; i++) {
        if (PyList_GET_ITEM(list, i) == item) {
            return i;
        }
    }
    return end;
}

/* Returns the entry of buffer `i`, and lists it to be sent if it is the first time. -1: exception set. */
static int write_entry(PyObject *buffers, Py_ssize_t i, PyObject *send, uint64_t *entry)
{
    PyObject *buffer = PyList_GET_ITEM(buffers, i);
    Py_ssize_t first = index_of(buffers, i, buffer);
    if (first < i) {
        *entry = (uint64_t)first << FLAG_BITS | REPEATED;
        return 0;
    }
    const Py_buffer *view = PyPickleBuffer_GetBuffer(buffer);
    if (view == NULL) {
        return -1;
    }
    *entry = (uint64_t)view->len << FLAG_BITS | (view->readonly ? READ_ONLY : 0);
    return PyList_Append(send, buffer);
}

PyObject *buffers_table(size_t pickled, PyObject *buffers, PyObject **send)
{
    Py_ssize_t count = PyList_GET_SIZE(buffers);
    PyObject *table = PyBytes_FromStringAndSize(NULL, (2 + count) * (Py_ssize_t)sizeof(uint64_t));
    *send = PyList_New(0);
    int rc = table != NULL && *send != NULL ? 0 : -1;
    uint64_t head[2] = {pickled, (uint64_t)count};
    char *at = rc == 0 ? PyBytes_AS_STRING(table) : NULL;
    for (Py_ssize_t i = -2; rc == 0 && i < count; i++, at += sizeof(uint64_t)) {
        uint64_t entry = i < 0 ? head[i + 2] : 0;
        rc = i < 0 ? 0 : write_entry(buffers, i, *send, &entry);
        memcpy(at, &entry, sizeof entry);
    }
    if (rc < 0) {
        Py_CLEAR(*send);
        Py_CLEAR(table);
    }
    return table;
}

/* ---- reading ---- */

struct reader {
    struct state *state;
    const unsigned char *data;
    size_t size, at;
    PyObject *memory;
};

/* The next `size` bytes, or NULL with an exception set. */
static const unsigned char *next(struct reader *reader, uint64_t size)
{
    if (reader->at > reader->size || size > reader->size - reader->at) {
        PyErr_SetString(PyExc_EOFError, "a message of the pool's was cut short");
        return NULL;
    }
    const unsigned char *data = reader->data + reader->at;
    reader->at += (size_t)size;
    return data;
}

static int next_number(struct reader *reader, uint64_t *number)
{
    const unsigned char *data = next(reader, sizeof *number);
    if (data != NULL) {
        memcpy(number, data, sizeof *number);
    }
    return data != NULL ? 0 : -1;
}

static PyObject *copy_of(struct state *state, const unsigned char *data, size_t size, int read_only)
{
    PyObject *copy = read_only ? warm_bytes(state, size) : warm_bytearray(state, size);
    if (copy != NULL) {
        warm_fill(read_only ? PyBytes_AS_STRING(copy) : PyByteArray_AS_STRING(copy), data, size);
    }
    return copy;
}

/* Kept where it is, a buffer keeps all of its message: that must be little more than itself. */
static int may_stay(const struct reader *reader, size_t size)
{
    return reader->memory != NULL && size >= MEMORY_LEAST && size >= reader->size - reader->size / 8;
}

static PyObject *read_buffer(struct reader *reader, uint64_t entry)
{
    size_t size = (size_t)(entry >> FLAG_BITS);
    int read_only = (entry & READ_ONLY) != 0;
    reader->at += buffers_padding(reader->at);
    const unsigned char *data = next(reader, size);
    if (data == NULL) {
        return NULL;
    }
    if (may_stay(reader, size)) {
        return memory_view(reader->memory, data, size, read_only);
    }
    return copy_of(reader->state, data, size, read_only);
}

static PyObject *read_entry(struct reader *reader, uint64_t entry, PyObject *before)
{
    if ((entry & REPEATED) == 0) {
        return read_buffer(reader, entry);
    }
    if (entry >> FLAG_BITS >= (uint64_t)PyList_GET_SIZE(before)) {
        PyErr_SetString(PyExc_ValueError, "a message of the pool's refers to a buffer that it does not have");
        return NULL;
    }
    return Py_NewRef(PyList_GET_ITEM(before, (Py_ssize_t)(entry >> FLAG_BITS)));
}

/* `table` holds the entries, which are known to be there. */
static PyObject *read_buffers(struct reader *reader, const unsigned char *table, uint64_t count)
{
    PyObject *buffers = PyList_New(0);
    for (uint64_t i = 0; buffers != NULL && i < count; i++) {
        uint64_t entry;
        memcpy(&entry, table + i * sizeof entry, sizeof entry);
        PyObject *buffer = read_entry(reader, entry, buffers);
        if (buffer == NULL || PyList_Append(buffers, buffer) < 0) {
            Py_CLEAR(buffers);
        }
        Py_XDECREF(buffer);
    }
    return buffers;
}

static PyObject *load(struct state *state, const unsigned char *pickle, size_t size, PyObject *buffers)
{
    PyObject *view = PyMemoryView_FromMemory((char *)pickle, (Py_ssize_t)size, PyBUF_READ);
    PyObject *args = view != NULL ? PyTuple_Pack(1, view) : NULL;
    PyObject *kwargs = args != NULL ? Py_BuildValue("{sO}", "buffers", buffers) : NULL;
    PyObject *object = kwargs != NULL ? PyObject_Call(state->loads, args, kwargs) : NULL;
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(view);
    return object;
}

PyObject *buffers_decode(struct state *state, const unsigned char *data, size_t size, PyObject *memory)
{
    struct reader reader = {.state = state, .data = data, .size = size, .at = 1, .memory = memory};
    uint64_t pickled, count;
    if (next_number(&reader, &pickled) < 0 || next_number(&reader, &count) < 0) {
        return NULL;
    }
    const unsigned char *table = next(&reader, count < size ? count * sizeof(uint64_t) : UINT64_MAX);
    const unsigned char *pickle = table != NULL ? next(&reader, pickled) : NULL;
    PyObject *buffers = pickle != NULL ? read_buffers(&reader, table, count) : NULL;
    PyObject *object = buffers != NULL ? load(state, pickle, (size_t)pickled, buffers) : NULL;
    Py_XDECREF(buffers);
    return object;
}
