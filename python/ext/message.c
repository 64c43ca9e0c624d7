/*
 * What travels between the parent and a worker.
 *
 * A task: the pickle of (fn, args, kwargs); or, where the names of the function are enough, these, and a plain tuple of
 * arguments, or one bytes argument, or the pickle of (args, kwargs). A result: a plain value, or bytes, or a pickle. Each
 * pickle may have buffers behind it. With a pickler of the user's own it is what that wrote, and nothing else.
 */
#include "buffers.h"
#include "functions.h"
#include "plain.h"
#include "warm.h"

#include <string.h>

/* ---- tasks, in the parent ---- */

static PyObject *pack(PyObject *first, PyObject *second, PyObject *third)
{
    return first != NULL ? PyTuple_Pack(3, first, second, third) : PyTuple_Pack(2, second, third);
}

/* With `fn` NULL what follows the function, which `encoded` holds already. */
static int pickle_call(Engine *engine, PyObject *fn, const struct call *call, size_t limit, struct encoded *encoded)
{
    struct holding holding;
    PyObject *tuple = pack(fn, call->args, call->kwargs);
    begin_holding(&holding, engine);
    int rc = tuple != NULL ? encode(state_of((PyObject *)engine), &engine->codec, tuple, limit, encoded) : -1;
    end_holding(&holding);
    Py_XDECREF(tuple);
    return rc;
}

/* A call with nothing but one large bytes object. */
static PyObject *only_bytes(const struct call *call)
{
    PyObject *only = PyTuple_GET_SIZE(call->args) == 1 ? PyTuple_GET_ITEM(call->args, 0) : NULL;
    return only != NULL && PyBytes_CheckExact(only) && PyDict_GET_SIZE(call->kwargs) == 0 ? only : NULL;
}

/* What follows the function, which ends at `at`. */
static int encode_arguments(Engine *engine, const struct call *call, unsigned char *at, size_t limit,
                            struct encoded *encoded)
{
    PyObject *raw = only_bytes(call);
    if (raw != NULL) {
        *at++ = PLAIN_RAW;
    }
    encoded->prefix = (size_t)(at - encoded->bytes);
    limit -= encoded->prefix;
    return raw != NULL ? encode_raw(raw, limit, encoded) : pickle_call(engine, NULL, call, limit, encoded);
}

/* The function's names end at `at`. */
static int encode_named(Engine *engine, const struct call *call, unsigned char *at, size_t limit,
                        struct encoded *encoded)
{
    unsigned char *end = NULL;
    if (PyDict_GET_SIZE(call->kwargs) == 0) {
        end = plain_write(call->args, at, encoded->bytes + WEIRPOOL_INLINE_PAYLOAD);
    }
    if (end == NULL) {
        return encode_arguments(engine, call, at, limit, encoded);
    }
    encoded_end(encoded, end);
    return 0;
}

int encode_call(Engine *engine, const struct call *call, size_t limit, struct encoded *encoded)
{
    unsigned char *at = encoded_begin(encoded);
    at = engine->codec.dumps == NULL ? function_write(call->fn, at, at + sizeof encoded->bytes) : NULL;
    if (at != NULL) {
        return encode_named(engine, call, at, limit, encoded);
    }
    return pickle_call(engine, call->fn, call, limit, encoded);
}

/* ---- tasks, in a worker ---- */

static int is_tuple(PyObject *object)
{
    if (!PyTuple_Check(object)) {
        PyErr_Format(PyExc_TypeError, "the pickler's loads() must return what dumps() was given, a tuple, not %.200s",
                     Py_TYPE(object)->tp_name);
        return 0;
    }
    return 1;
}

/* Steals `tuple`: (fn, args, kwargs), or (args, kwargs) where the function is there; or NULL with an exception set. */
static int unpack(PyObject *tuple, struct call *call)
{
    PyObject *fn = call->fn, *args, *kwargs;
    if (tuple == NULL || !is_tuple(tuple)) {
        Py_XDECREF(tuple);
        return -1;
    }
    int parsed = fn != NULL ? PyArg_ParseTuple(tuple, "O!O!", &PyTuple_Type, &args, &PyDict_Type, &kwargs)
                            : PyArg_ParseTuple(tuple, "OO!O!", &fn, &PyTuple_Type, &args, &PyDict_Type, &kwargs);
    if (parsed) {
        call->fn = call->fn != NULL ? fn : Py_NewRef(fn);
        call->args = Py_NewRef(args);
        call->kwargs = Py_NewRef(kwargs);
    }
    Py_DECREF(tuple);
    return parsed ? 0 : -1;
}

/* A bytes object that travelled as it is. */
static PyObject *read_raw(struct state *state, const unsigned char *data, size_t size)
{
    PyObject *bytes = warm_bytes(state, size);
    if (bytes != NULL) {
        warm_fill(PyBytes_AS_STRING(bytes), data, size);
    }
    return bytes;
}

static PyObject *read_only_bytes(struct state *state, const unsigned char *at, const unsigned char *end)
{
    PyObject *raw = read_raw(state, at, (size_t)(end - at));
    PyObject *args = raw != NULL ? PyTuple_Pack(1, raw) : NULL;
    Py_XDECREF(raw);
    return args;
}

static int decode_named(struct state *state, const struct codec *codec, struct known_names *known,
                        const unsigned char *data, size_t size, struct call *call)
{
    size_t names = data[0];
    if (names > FUNCTION_NAMES || 1 + names >= size) {
        PyErr_SetString(PyExc_EOFError, "a task of the pool's was cut short");
        return -1;
    }
    call->fn = function_read(state, known, data + 1, names);
    const unsigned char *at = data + 1 + names, *end = data + size;
    if (call->fn == NULL) {
        return -1;
    }
    if (!is_plain(at, (size_t)(end - at)) || has_buffers(at, (size_t)(end - at))) {
        return unpack(decode(state, codec, at, (size_t)(end - at), NULL), call);
    }
    if (*at != PLAIN_RAW && size > WEIRPOOL_INLINE_PAYLOAD) { /* so that tuples cannot be nested without end */
        PyErr_SetString(PyExc_ValueError, "a task of the pool's is larger than it can be");
        return -1;
    }
    call->args = *at == PLAIN_RAW ? read_only_bytes(state, at + 1, end) : plain_read(&at, end);
    return call->args != NULL && is_tuple(call->args) ? 0 : -1;
}

int decode_call(struct state *state, const struct codec *codec, struct known_names *known, const void *data,
                size_t size, struct call *call)
{
    int rc;
    *call = (struct call){NULL, NULL, NULL};
    if (codec->loads == NULL && is_plain(data, size) && !has_buffers(data, size)) {
        rc = decode_named(state, codec, known, data, size, call);
    } else {
        rc = unpack(decode(state, codec, data, size, NULL), call);
    }
    if (rc < 0) {
        call_clear(call);
    }
    return rc;
}

void call_clear(struct call *call)
{
    Py_CLEAR(call->fn);
    Py_CLEAR(call->args);
    Py_CLEAR(call->kwargs);
}

/* ---- results ---- */

int encode_result(struct state *state, const struct codec *codec, PyObject *result, struct encoded *encoded)
{
    unsigned char *begin = encoded_begin(encoded);
    unsigned char *end = NULL;
    if (codec->dumps == NULL) {
        end = plain_write(result, begin, begin + WEIRPOOL_INLINE_RESULT);
    }
    if (end != NULL) {
        encoded_end(encoded, end);
        return 0;
    }
    if (codec->dumps == NULL && PyBytes_CheckExact(result)) {
        *begin = PLAIN_RAW;
        encoded->prefix = 1;
        return encode_raw(result, SIZE_MAX, encoded);
    }
    return encode(state, codec, result, SIZE_MAX, encoded);
}

PyObject *decode_result(struct state *state, const struct codec *codec, const void *data, size_t size, PyObject *memory)
{
    const unsigned char *at = data;
    if (codec->loads == NULL && size > 0 && *at == PLAIN_RAW) {
        return read_raw(state, at + 1, size - 1);
    }
    if (codec->loads == NULL && size <= WEIRPOOL_INLINE_RESULT && is_plain(data, size)) {
        return plain_read(&at, at + size);
    }
    return decode(state, codec, data, size, memory);
}
