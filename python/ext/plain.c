#include "plain.h"

#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum tag { TAG_NONE, TAG_FALSE, TAG_TRUE, TAG_INT, TAG_FLOAT, TAG_STRING, TAG_BYTES, TAG_TUPLE };

#define LONGEST UCHAR_MAX /* items, or bytes: a length is one byte */

/* ---- writing ---- */

static unsigned char *write_raw(enum tag tag, const void *data, size_t size, unsigned char *out,
                                const unsigned char *end)
{
    if ((size_t)(end - out) < 1 + size) {
        return NULL;
    }
    *out++ = (unsigned char)tag;
    memcpy(out, data, size);
    return out + size;
}

static unsigned char *write_sized(enum tag tag, const void *data, Py_ssize_t size, unsigned char *out,
                                  const unsigned char *end)
{
    if (size > LONGEST || end - out < 2 + size) {
        return NULL;
    }
    *out++ = (unsigned char)tag;
    *out++ = (unsigned char)size;
    memcpy(out, data, (size_t)size);
    return out + size;
}

static unsigned char *write_int(PyObject *object, unsigned char *out, const unsigned char *end)
{
    int overflow;
    int64_t value = PyLong_AsLongLongAndOverflow(object, &overflow);
    return overflow == 0 ? write_raw(TAG_INT, &value, sizeof value, out, end) : NULL;
}

/* A tuple that has one equals itself and no other: pickle keeps it one where it is sent twice. */
static int is_not_a_number(PyObject *object)
{
    return PyFloat_CheckExact(object) && isnan(PyFloat_AS_DOUBLE(object));
}

static unsigned char *write_tuple(PyObject *tuple, unsigned char *out, const unsigned char *end)
{
    Py_ssize_t n = PyTuple_GET_SIZE(tuple);
    if (n > LONGEST || end - out < 2) {
        return NULL;
    }
    *out++ = TAG_TUPLE;
    *out++ = (unsigned char)n;
    for (Py_ssize_t i = 0; out != NULL && i < n; i++) {
        PyObject *item = PyTuple_GET_ITEM(tuple, i);
        out = is_not_a_number(item) ? NULL : plain_write(item, out, end);
    }
    return out;
}

/* Exact types only: a subclass may have a reducer. Deep nesting ends with the room, which is small. */
unsigned char *plain_write(PyObject *object, unsigned char *out, const unsigned char *end)
{
    if (object == Py_None || PyBool_Check(object)) {
        enum tag tag = object == Py_None ? TAG_NONE : object == Py_True ? TAG_TRUE : TAG_FALSE;
        return write_raw(tag, "", 0, out, end);
    }
    if (PyLong_CheckExact(object)) {
        return write_int(object, out, end);
    }
    if (PyFloat_CheckExact(object)) {
        double value = PyFloat_AS_DOUBLE(object);
        return write_raw(TAG_FLOAT, &value, sizeof value, out, end);
    }
    if (PyUnicode_CheckExact(object) && PyUnicode_IS_COMPACT_ASCII(object)) {
        return write_sized(TAG_STRING, PyUnicode_DATA(object), PyUnicode_GET_LENGTH(object), out, end);
    }
    if (PyBytes_CheckExact(object)) {
        return write_sized(TAG_BYTES, PyBytes_AS_STRING(object), PyBytes_GET_SIZE(object), out, end);
    }
    return PyTuple_CheckExact(object) ? write_tuple(object, out, end) : NULL;
}

/* ---- reading ---- */

static PyObject *cut_short(void)
{
    PyErr_SetString(PyExc_EOFError, "a value of the pool's was cut short");
    return NULL;
}

static PyObject *read_number(enum tag tag, const unsigned char **at, const unsigned char *end)
{
    int64_t integer;
    double real;
    if (end - *at < 8) {
        return cut_short();
    }
    const unsigned char *data = *at;
    *at += 8;
    if (tag == TAG_INT) {
        memcpy(&integer, data, sizeof integer);
        return PyLong_FromLongLong(integer);
    }
    memcpy(&real, data, sizeof real);
    return PyFloat_FromDouble(real);
}

static PyObject *read_tuple(Py_ssize_t n, const unsigned char **at, const unsigned char *end)
{
    PyObject *tuple = PyTuple_New(n);
    for (Py_ssize_t i = 0; tuple != NULL && i < n; i++) {
        PyObject *item = plain_read(at, end);
        if (item == NULL) {
            Py_CLEAR(tuple);
        } else {
            PyTuple_SET_ITEM(tuple, i, item);
        }
    }
    return tuple;
}

static PyObject *read_sized(enum tag tag, const unsigned char **at, const unsigned char *end)
{
    if (*at == end) {
        return cut_short();
    }
    Py_ssize_t size = *(*at)++;
    if (tag == TAG_TUPLE) {
        return read_tuple(size, at, end);
    }
    if (end - *at < size) {
        return cut_short();
    }
    const char *data = (const char *)*at;
    *at += size;
    return tag == TAG_BYTES ? PyBytes_FromStringAndSize(data, size) : PyUnicode_DecodeASCII(data, size, NULL);
}

PyObject *plain_read(const unsigned char **at, const unsigned char *end)
{
    if (*at == end) {
        return cut_short();
    }
    enum tag tag = (enum tag) * (*at)++;
    switch (tag) {
    case TAG_NONE:
        return Py_NewRef(Py_None);
    case TAG_FALSE:
    case TAG_TRUE:
        return PyBool_FromLong(tag == TAG_TRUE);
    case TAG_INT:
    case TAG_FLOAT:
        return read_number(tag, at, end);
    case TAG_STRING:
    case TAG_BYTES:
    case TAG_TUPLE:
        return read_sized(tag, at, end);
    }
    PyErr_Format(PyExc_ValueError, "a value of the pool's has an unknown tag, %d", (int)tag);
    return NULL;
}
