/*
 * Objects to bytes and back, by the pickler that the user chose, else with ForkingPickler's semantics: its extra
 * reducers (which libraries add to at any time), else copyreg's.
 *
 * The latter's picklers are kept, because making one costs more than a small dump. One in use is in nobody's reach: an
 * object whose __reduce__ submits a task takes another. One that failed, or whose memo has grown, is not kept.
 */
#include "buffers.h"

#define PROTOCOL 5 /* both ends are this Python: what the default lacks before 3.14, buffers for one, may be used */
#define KEEP_PICKLERS 16
#define KEEP_BYTES ((size_t)64 * 1024) /* a larger dump may have grown the memo, which never shrinks */

/* What a pickler writes to. `limit` makes a dump that would be dropped anyway stop early. */
typedef struct {
    PyObject_HEAD
    PyObject *chunks;
    PyObject *buffers; /* out of band; NULL: none */
    size_t pickled; /* bytes of the chunks */
    size_t size; /* with the buffers */
    size_t limit;
    int too_large;
} Sink;

static int sink_count(Sink *sink, Py_ssize_t size)
{
    sink->size += (size_t)size;
    if (sink->size > sink->limit) {
        sink->too_large = 1;
        PyErr_SetString(PyExc_BufferError, "larger than the limit");
        return -1;
    }
    return 0;
}

static PyObject *sink_write(PyObject *self, PyObject *chunk)
{
    Sink *sink = (Sink *)self;
    Py_buffer view;
    if (PyObject_GetBuffer(chunk, &view, PyBUF_ANY_CONTIGUOUS) < 0) { /* a PickleBuffer has no length */
        return NULL;
    }
    Py_ssize_t size = view.len;
    PyBuffer_Release(&view);
    if (sink_count(sink, size) < 0 || PyList_Append(sink->chunks, chunk) < 0) {
        return NULL;
    }
    sink->pickled += (size_t)size;
    return PyLong_FromSsize_t(size);
}

/* Pickle's question whether a buffer goes into the pickle. */
static PyObject *sink_take_buffer(PyObject *self, PyObject *buffer)
{
    Sink *sink = (Sink *)self;
    const Py_buffer *view = PyPickleBuffer_GetBuffer(buffer);
    if (view == NULL) {
        return NULL;
    }
    if (view->len < BUFFERS_LEAST) {
        Py_RETURN_TRUE;
    }
    if (sink->buffers == NULL) {
        sink->buffers = PyList_New(0);
    }
    if (sink->buffers == NULL || sink_count(sink, view->len) < 0 || PyList_Append(sink->buffers, buffer) < 0) {
        return NULL;
    }
    Py_RETURN_FALSE;
}

static void sink_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((Sink *)self)->chunks);
    Py_XDECREF(((Sink *)self)->buffers);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef sink_methods[] = {
    {"write", sink_write, METH_O, "write($self, chunk, /)\n--\n\nKeep a chunk of a pickle."},
    {"take_buffer", sink_take_buffer, METH_O,
     "take_buffer($self, buffer, /)\n--\n\nKeep a buffer out of band, or say that it goes into the pickle."},
    {NULL},
};

static PyType_Slot sink_slots[] = {
    {Py_tp_dealloc, sink_dealloc},
    {Py_tp_methods, sink_methods},
    {0, NULL},
};

PyType_Spec sink_spec = {
    .name = "weirpool._core.Sink",
    .basicsize = sizeof(Sink),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = sink_slots,
};

static void sink_begin(Sink *sink, size_t limit)
{
    sink->chunks = PyList_New(0);
    sink->buffers = NULL;
    sink->pickled = 0;
    sink->size = 0;
    sink->limit = limit;
    sink->too_large = 0;
}

/* ---- picklers: pairs of a pickler and its sink ---- */

static PyObject *call_pickler_type(struct state *state, PyObject *sink)
{
    PyObject *callback = PyObject_GetAttrString(sink, "take_buffer");
    PyObject *args = callback != NULL ? Py_BuildValue("(OiOO)", sink, PROTOCOL, Py_False, callback) : NULL;
    PyObject *pickler = args != NULL ? PyObject_CallObject((PyObject *)state->pickler_type, args) : NULL;
    Py_XDECREF(args);
    Py_XDECREF(callback);
    return pickler;
}

static PyObject *make_pickler(struct state *state)
{
    Sink *sink = PyObject_New(Sink, state->sink_type);
    if (sink == NULL) {
        return NULL;
    }
    sink->chunks = NULL;
    sink->buffers = NULL;
    PyObject *pickler = call_pickler_type(state, (PyObject *)sink);
    PyObject *pair = NULL;
    if (pickler != NULL && PyObject_SetAttrString(pickler, "dispatch_table", state->dispatch_table) == 0) {
        pair = PyTuple_Pack(2, pickler, (PyObject *)sink);
    }
    Py_XDECREF(pickler);
    Py_DECREF(sink);
    return pair;
}

static PyObject *borrow_pickler(struct state *state)
{
    Py_ssize_t n = PyList_GET_SIZE(state->idle_picklers);
    if (n == 0) {
        return make_pickler(state);
    }
    PyObject *pair = Py_NewRef(PyList_GET_ITEM(state->idle_picklers, n - 1));
    if (PyList_SetSlice(state->idle_picklers, n - 1, n, NULL) < 0) {
        Py_DECREF(pair);
        return NULL;
    }
    return pair;
}

/* Steals the reference. */
static void give_pickler_back(struct state *state, PyObject *pair, size_t size)
{
    if (size <= KEEP_BYTES && PyList_GET_SIZE(state->idle_picklers) < KEEP_PICKLERS) {
        PyObject *cleared = PyObject_CallMethodNoArgs(PyTuple_GET_ITEM(pair, 0), state->clear_memo_name);
        if (cleared == NULL || PyList_Append(state->idle_picklers, pair) < 0) {
            PyErr_Clear();
        }
        Py_XDECREF(cleared);
    }
    Py_DECREF(pair);
}

/* ---- encoding ---- */

unsigned char *encoded_begin(struct encoded *encoded)
{
    encoded->chunks = NULL;
    encoded->buffers = NULL;
    encoded->views = NULL;
    encoded->viewed = 0;
    encoded->parts = NULL;
    encoded->count = 0;
    encoded->size = 0;
    encoded->prefix = 0;
    return encoded->bytes;
}

void encoded_end(struct encoded *encoded, const unsigned char *end)
{
    encoded->size = (size_t)(end - encoded->bytes);
    encoded->part = (struct iovec){.iov_base = encoded->bytes, .iov_len = encoded->size};
    encoded->parts = &encoded->part;
    encoded->count = 1;
}

void encoded_clear(struct encoded *encoded)
{
    for (int i = 0; i < encoded->viewed; i++) {
        PyBuffer_Release(&encoded->views[i]);
    }
    PyMem_Free(encoded->views);
    if (encoded->parts != &encoded->part) {
        PyMem_Free(encoded->parts);
    }
    Py_CLEAR(encoded->chunks);
    Py_CLEAR(encoded->buffers);
    (void)encoded_begin(encoded);
}

static void add_part(struct encoded *encoded, void *data, size_t size)
{
    encoded->parts[encoded->count++] = (struct iovec){.iov_base = data, .iov_len = size};
    encoded->size += size;
}

/* Makes an object's bytes readable without the interpreter lock. */
static int view(struct encoded *encoded, PyObject *object)
{
    Py_buffer *view = &encoded->views[encoded->viewed];
    if (PyObject_GetBuffer(object, view, PyBUF_ANY_CONTIGUOUS) < 0) {
        return -1;
    }
    encoded->viewed++;
    add_part(encoded, view->buf, (size_t)view->len);
    return 0;
}

static int view_all(struct encoded *encoded, PyObject *list)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        if (view(encoded, PyList_GET_ITEM(list, i)) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Each of the buffers may need padding. */
static int make_room_for_parts(struct encoded *encoded)
{
    Py_ssize_t buffers = encoded->buffers != NULL ? PyList_GET_SIZE(encoded->buffers) : 0;
    Py_ssize_t n = 1 + PyList_GET_SIZE(encoded->chunks) + buffers;
    encoded->views = PyMem_New(Py_buffer, n);
    encoded->parts = PyMem_New(struct iovec, n + buffers);
    if (encoded->views == NULL || encoded->parts == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static int view_chunks(struct encoded *encoded)
{
    if (make_room_for_parts(encoded) < 0) {
        return -1;
    }
    if (encoded->prefix > 0) {
        add_part(encoded, encoded->bytes, encoded->prefix);
    }
    return view_all(encoded, encoded->chunks);
}

static int view_buffers(struct encoded *encoded, size_t tag_at)
{
    static unsigned char zeros[16];
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(encoded->buffers); i++) {
        add_part(encoded, zeros, buffers_padding(encoded->size - tag_at));
        if (view(encoded, PyList_GET_ITEM(encoded->buffers, i)) < 0) {
            return -1;
        }
    }
    return 0;
}

/* The sizes precede the pickle as one more chunk. */
static int view_with_buffers(struct encoded *encoded, size_t pickled)
{
    PyObject *send;
    PyObject *table = buffers_table(pickled, encoded->buffers, &send);
    if (table == NULL) {
        return -1;
    }
    Py_SETREF(encoded->buffers, send);
    int rc = PyList_Insert(encoded->chunks, 0, table);
    Py_DECREF(table);
    size_t tag_at = encoded->prefix;
    encoded->bytes[encoded->prefix++] = PLAIN_BUFFERS;
    rc = rc == 0 ? view_chunks(encoded) : rc;
    return rc == 0 ? view_buffers(encoded, tag_at) : rc;
}

int encode_raw(PyObject *bytes, size_t limit, struct encoded *encoded)
{
    if ((size_t)PyBytes_GET_SIZE(bytes) > limit) {
        encoded_clear(encoded);
        return 1;
    }
    encoded->chunks = PyList_New(1);
    if (encoded->chunks != NULL) {
        PyList_SET_ITEM(encoded->chunks, 0, Py_NewRef(bytes));
    }
    if (encoded->chunks == NULL || view_chunks(encoded) < 0) {
        encoded_clear(encoded);
        return -1;
    }
    return 0;
}

static int dump(struct state *state, PyObject *pair, PyObject *object, size_t limit, struct encoded *encoded)
{
    Sink *sink = (Sink *)PyTuple_GET_ITEM(pair, 1);
    sink_begin(sink, limit);
    PyObject *done = NULL;
    if (sink->chunks != NULL) {
        enter_delivery(); /* an object that submits while it is pickled must not wait for the room it is to fill */
        done = PyObject_CallMethodOneArg(PyTuple_GET_ITEM(pair, 0), state->dump_name, object);
        leave_delivery();
    }
    encoded->chunks = sink->chunks;
    encoded->buffers = sink->buffers;
    sink->chunks = NULL;
    sink->buffers = NULL;
    Py_XDECREF(done);
    if (done == NULL && sink->too_large) {
        PyErr_Clear();
        return 1;
    }
    return done != NULL ? 0 : -1;
}

/* With ForkingPickler's semantics. */
static int encode_as_forking(struct state *state, PyObject *object, size_t limit, struct encoded *encoded)
{
    PyObject *pair = borrow_pickler(state);
    if (pair == NULL) {
        return -1;
    }
    int rc = dump(state, pair, object, limit, encoded);
    if (rc == 0) {
        size_t pickled = ((Sink *)PyTuple_GET_ITEM(pair, 1))->pickled;
        rc = encoded->buffers != NULL ? view_with_buffers(encoded, pickled) : view_chunks(encoded);
    }
    if (rc == 0) {
        give_pickler_back(state, pair, encoded->size);
    } else {
        encoded_clear(encoded);
        Py_DECREF(pair);
    }
    return rc;
}

/* ---- the user's pickler ---- */

int codec_init(struct codec *codec, PyObject *pickler)
{
    *codec = (struct codec){NULL, NULL};
    if (pickler == Py_None) {
        return 0;
    }
    codec->dumps = PyObject_GetAttrString(pickler, "dumps");
    codec->loads = codec->dumps != NULL ? PyObject_GetAttrString(pickler, "loads") : NULL;
    if (codec->loads == NULL) {
        codec_clear(codec);
        return -1;
    }
    return 0;
}

void codec_clear(struct codec *codec)
{
    Py_CLEAR(codec->dumps);
    Py_CLEAR(codec->loads);
}

/* One buffer, in a list of chunks. NULL with an exception set. */
static PyObject *call_dumps(PyObject *dumps, PyObject *object)
{
    enter_delivery();
    PyObject *data = PyObject_CallOneArg(dumps, object);
    leave_delivery();
    PyObject *chunks = NULL;
    if (data != NULL && !PyObject_CheckBuffer(data)) {
        PyErr_Format(PyExc_TypeError, "the pickler's dumps() must return bytes, or another buffer, not %.200s",
                     Py_TYPE(data)->tp_name);
    } else if (data != NULL) {
        chunks = Py_BuildValue("[O]", data);
    }
    Py_XDECREF(data);
    return chunks;
}

/* This pickler cannot be stopped at the limit: what turns out to be larger is dropped. */
static int encode_by_user(PyObject *dumps, PyObject *object, size_t limit, struct encoded *encoded)
{
    encoded->chunks = call_dumps(dumps, object);
    int rc = encoded->chunks != NULL ? view_chunks(encoded) : -1;
    if (rc == 0 && encoded->size > limit) {
        rc = 1;
    }
    if (rc != 0) {
        encoded_clear(encoded);
    }
    return rc;
}

/* It gets bytes of its own, to which its objects may refer. */
static PyObject *decode_by_user(PyObject *loads, const void *data, size_t size)
{
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    PyObject *object = bytes != NULL ? PyObject_CallOneArg(loads, bytes) : NULL;
    Py_XDECREF(bytes);
    return object;
}

/* ---- either of them ---- */

int encode(struct state *state, const struct codec *codec, PyObject *object, size_t limit, struct encoded *encoded)
{
    if (codec->dumps != NULL) {
        return encode_by_user(codec->dumps, object, limit, encoded);
    }
    return encode_as_forking(state, object, limit, encoded);
}

PyObject *decode(struct state *state, const struct codec *codec, const void *data, size_t size, PyObject *memory)
{
    if (codec->loads != NULL) {
        return decode_by_user(codec->loads, data, size);
    }
    if (has_buffers(data, size)) {
        return buffers_decode(state, data, size, memory);
    }
    PyObject *view = PyMemoryView_FromMemory((char *)data, (Py_ssize_t)size, PyBUF_READ);
    if (view == NULL) {
        return NULL;
    }
    PyObject *object = PyObject_CallOneArg(state->loads, view);
    Py_DECREF(view);
    return object;
}
