/* Decoding: what a future's task left behind becomes its result or its exception. */
#include "future.h"
#include "memory.h"

#include <errno.h>
#include <unistd.h>

static int must_leave_the_bytes(void)
{
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_MemoryError) ||
           PyErr_ExceptionMatches(PyExc_RecursionError);
}

/* The exception of a task whose worker died. */
static PyObject *death_exception(PyObject *self, const struct weirpool_completion *end)
{
    Engine *engine = handle_of(self)->engine;
    return call_support(state_of(self), "died", "(OiI)", engine->crew, end->worker_pid, end->attempts);
}

static PyObject *timeout_exception(PyObject *self, const struct weirpool_completion *end)
{
    return call_support(state_of(self), "ran_over", "(dI)", (double)end->limit_ns / 1e9, end->attempts);
}

/* The result cannot be decoded: as in the standard library, that breaks the pool. */
static PyObject *break_by_decoding(PyObject *self)
{
    struct state *state = state_of(self);
    PyObject *error = take_exception();
    PyObject *cause = call_support(state, "format_cause", "(O)", error);
    PyObject *exception = NULL;
    if (cause != NULL) {
        exception = call_support(state, "undecodable", "(O)", cause);
        engine_break(handle_of(self)->engine, cause, NULL);
    }
    Py_XDECREF(cause);
    Py_DECREF(error);
    return exception;
}

static PyObject *no_memory_exception(size_t size)
{
    PyObject *text = size > 0 ? PyUnicode_FromFormat("no memory for a result of %zu bytes", size)
                              : PyUnicode_FromString("no memory for the arguments of the task");
    PyObject *exception = text != NULL ? PyObject_CallOneArg(PyExc_MemoryError, text) : NULL;
    Py_XDECREF(text);
    return exception;
}

/* What a task that failed has sent. Steals the reference; NULL with an exception set. */
static PyObject *must_be_exception(PyObject *value)
{
    if (value != NULL && !PyExceptionInstance_Check(value)) {
        PyErr_Format(PyExc_TypeError, "a worker sent an object of type %.200s in the place of an exception",
                     Py_TYPE(value)->tp_name);
        Py_CLEAR(value);
    }
    return value;
}

/* A large result is taken over from the task first: what is decoded may refer to it. */
static PyObject *decode_once(PyObject *self, const struct weirpool_completion *end)
{
    struct state *state = state_of(self);
    struct future *f = fields(self);
    const struct codec *codec = &handle_of(self)->engine->codec;
    const void *data = end->result != NULL ? end->result : ""; /* an empty one has no memory */
    size_t size = end->result_size;
    if (f->memory == NULL && size >= MEMORY_LEAST) {
        f->memory = memory_new(state, task_of(self));
        if (f->memory == NULL) {
            return NULL;
        }
    }
    PyObject *memory = Py_XNewRef(f->memory);
    data = memory != NULL ? memory_data(memory, &size) : data;
    PyObject *value = decode_result(state, codec, data, size, memory);
    Py_XDECREF(memory);
    return end->status != 0 ? must_be_exception(value) : value;
}

/*
 * Decodes the bytes; -1 with an exception set if that failed. A signal handler may have raised in the midst of it: what
 * can be decoded at the second try is kept in `value`, and the exception is the asker's.
 */
static int decode_value(PyObject *self, const struct weirpool_completion *end, PyObject **value)
{
    *value = decode_once(self, end);
    if (*value != NULL) {
        return 0;
    }
    if (!must_leave_the_bytes()) {
        PyObject *first = take_exception();
        *value = decode_once(self, end);
        if (*value != NULL) {
            restore_exception(first);
        } else {
            Py_DECREF(first);
        }
    }
    return -1;
}

/* What the end of a task that did not come to its end means for its user. */
static PyObject *exception_of(PyObject *self, const struct weirpool_completion *end)
{
    Engine *engine = handle_of(self)->engine;
    if (end->error == -ENOMEM) {
        return no_memory_exception(end->result_size);
    }
    if (end->error == -ETIME) {
        return timeout_exception(self, end);
    }
    if (end->error == -EOWNERDEAD && engine->replaces) {
        return death_exception(self, end);
    }
    return engine_broken(engine, NULL, end->worker_pid); /* the pool broke while it was outstanding */
}

/* Sets at most one of the two. -1: an exception of the asker's is set; if neither is set the bytes are left. */
static int decode_end(PyObject *self, PyObject **result, PyObject **exception)
{
    struct weirpool_completion end;
    weirpool_describe(task_of(self), &end);
    if (end.error != 0) {
        *exception = exception_of(self, &end);
    } else {
        PyObject *value;
        int rc = decode_value(self, &end, &value);
        if (value != NULL) {
            *(end.status != 0 ? exception : result) = value;
            return rc;
        }
        if (must_leave_the_bytes()) {
            return -1;
        }
        *exception = break_by_decoding(self);
    }
    return *exception != NULL ? 0 : -1;
}

static void pause_a_moment(void)
{
    Py_BEGIN_ALLOW_THREADS
    usleep(1000);
    Py_END_ALLOW_THREADS
}

static int another_decodes(const struct future *f)
{
    return f->decoding > 0 && f->decoder != PyThread_get_thread_ident() && f->decoder_process == getpid();
}

/* Another thread decodes: let it finish. A thread that asks for a result from within its own decoding goes on. */
static int wait_for_decoder(const struct future *f, int64_t deadline)
{
    while (another_decodes(f)) {
        if (weirpool_deadline(0) >= deadline) {
            PyErr_SetNone(PyExc_TimeoutError);
            return -1;
        }
        pause_a_moment();
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return 0;
}

/* Whoever is first sets the outcome; the bytes stay until the outermost decoding is over. Steals the references. */
static void keep_outcome(PyObject *self, PyObject *result, PyObject *exception)
{
    struct future *f = fields(self);
    if (f->decoded) {
        Py_XDECREF(result);
        Py_XDECREF(exception);
    } else if (result != NULL || exception != NULL) {
        f->decoded = 1;
        f->result = result;
        f->exception = exception;
        if (exception != NULL || PyObject_IS_GC(result)) {
            future_track(self);
        }
    }
    if (f->decoded && f->decoding == 0) {
        weirpool_drop_result(task_of(self));
        Py_CLEAR(f->memory);
    }
}

int ensure_decoded(PyObject *self, int64_t deadline)
{
    struct future *f = fields(self);
    if (f->state != FOLLOWS && f->state != FINISHED) {
        return 0;
    }
    if (!f->decoded && wait_for_decoder(f, deadline) < 0) {
        return -1;
    }
    if (f->decoded || task_of(self) == NULL || !is_taken(self)) {
        return 0;
    }
    PyObject *result = NULL, *exception = NULL;
    f->decoder = PyThread_get_thread_ident();
    f->decoder_process = getpid();
    f->decoding++;
    int rc = decode_end(self, &result, &exception);
    f->decoding--;
    keep_outcome(self, result, exception);
    return rc;
}
