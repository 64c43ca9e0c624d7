/* The worker's side: claims, calls, and sends back what came of it. */
#include "functions.h"
#include "growth.h"
#include "warm.h"

#include <errno.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD
    weirpool_worker *worker;
    struct codec codec;
    struct known_names names;
    struct growth growth;
    int stays; /* whatever comes of a task is sent back, and Ctrl-C is not for who is idle */
} Worker;

static PyObject *worker_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"segment", "doorbell", "parent", "badge", "pickler", "stays", "max_memory", NULL};
    struct weirpool_channel channel;
    unsigned badge;
    PyObject *pickler = Py_None;
    int stays = 0;
    unsigned long long max_memory = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iiiI|OpK", names, &channel.segment, &channel.doorbell,
                                     &channel.parent, &badge, &pickler, &stays, &max_memory)) {
        return NULL;
    }
    Worker *self = (Worker *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->stays = stays;
    if (growth_init(&self->growth, max_memory) < 0 || codec_init(&self->codec, pickler) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    int rc = weirpool_attach(&self->worker, &channel, badge);
    if (rc != 0) {
        self->worker = NULL;
        raise_error(state_of((PyObject *)self), rc);
        Py_DECREF(self);
        return NULL;
    }
    warm_keep(state_of((PyObject *)self));
    return (PyObject *)self;
}

static void worker_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (((Worker *)self)->worker != NULL) {
        weirpool_detach(((Worker *)self)->worker);
    }
    growth_clear(&((Worker *)self)->growth);
    codec_clear(&((Worker *)self)->codec);
    known_names_clear(&((Worker *)self)->names);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *worker_announce(PyObject *self, PyObject *standing)
{
    long value = PyLong_AsLong(standing);
    if (value != WEIRPOOL_UP && value != WEIRPOOL_LEAVES && value != WEIRPOOL_INIT_FAILED) {
        PyErr_SetString(PyExc_ValueError, "standing must be UP, LEAVES or INIT_FAILED");
        return NULL;
    }
    weirpool_announce(((Worker *)self)->worker, (enum weirpool_standing)value);
    Py_RETURN_NONE;
}

/* ---- one task ---- */

/*
 * Signal handlers run, for what came before the next task. -1: exception set. Ctrl-C reaches the whole process group, and
 * is for who runs a task.
 */
static int check_signals(const Worker *self)
{
    if (PyErr_CheckSignals() == 0) {
        return 0;
    }
    if (!self->stays || !PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

/* Decodes and calls. The result, or NULL with the call's exception set; *undecodable if it did not come to a call. */
static PyObject *call(PyObject *self, const struct weirpool_claimed *claimed, int *undecodable)
{
    Worker *worker = (Worker *)self;
    struct call call;
    *undecodable =
        (worker->stays && check_signals(worker) < 0) ||
        decode_call(state_of(self), &worker->codec, &worker->names, claimed->payload, claimed->size, &call) < 0;
    if (*undecodable) {
        return NULL;
    }
    PyObject *result = PyObject_Call(call.fn, call.args, call.kwargs);
    call_clear(&call);
    return result;
}

/* Encodes the exception that is set. If it cannot be pickled, what pickling raised goes instead. */
static int encode_exception(PyObject *self, struct encoded *encoded)
{
    struct state *state = state_of(self);
    int rc = -1;
    for (int tries = 0; rc < 0 && tries < 2; tries++) {
        PyObject *error = take_exception();
        PyObject *portable = call_support(state, "portable", "(O)", error);
        rc = portable != NULL ? encode_result(state, &((Worker *)self)->codec, portable, encoded) : -1;
        Py_XDECREF(portable);
        Py_DECREF(error);
    }
    return rc;
}

static int finish(weirpool_worker *worker, int status, struct encoded *encoded)
{
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = weirpool_finish(worker, status, encoded->parts, encoded->count);
    Py_END_ALLOW_THREADS
    encoded_clear(encoded);
    if (rc == -ECHILD) {
        _exit(0); /* the task forked, and this is the child coming back from it */
    }
    return rc;
}

/* How long who was interrupted leaves waiting tasks alone: whoever pressed Ctrl-C may be about to cancel them. */
#define INTERRUPTED_NS (LOOK_NS / 2)

static void hold_back(weirpool_worker *worker)
{
    Py_BEGIN_ALLOW_THREADS
    weirpool_hold_back(worker, weirpool_deadline(INTERRUPTED_NS));
    Py_END_ALLOW_THREADS
}

/*
 * 0, -errno, or 1 with an exception set: nothing could be sent back; or the task could not be decoded, which ends the
 * process as in the standard library, unless it stays.
 */
static int handle(PyObject *self, const struct weirpool_claimed *claimed)
{
    Worker *worker = (Worker *)self;
    struct encoded encoded;
    int undecodable;
    PyObject *result = call(self, claimed, &undecodable);
    /* A lack of memory is that task's trouble. */
    if (undecodable && !worker->stays && !PyErr_ExceptionMatches(PyExc_MemoryError)) {
        return 1;
    }
    int failed = result == NULL || encode_result(state_of(self), &worker->codec, result, &encoded) < 0;
    int interrupted = failed && PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);
    Py_XDECREF(result);
    if (failed && encode_exception(self, &encoded) < 0) {
        return 1;
    }
    int rc = finish(worker->worker, failed, &encoded);
    if (interrupted) {
        hold_back(worker->worker);
    }
    return rc;
}

/* ---- the loop ---- */

/*
 * A signal may have come just before the wait: none goes unnoticed for longer than a look. Who is idle for so long gives
 * its warm memory back. 1: exception set.
 */
static int claim(Worker *self, struct weirpool_claimed *claimed)
{
    int rc = -EINTR;
    while (rc == -EINTR || rc == -ETIMEDOUT) {
        if (check_signals(self) < 0) {
            return 1;
        }
        Py_BEGIN_ALLOW_THREADS
        rc = weirpool_claim(self->worker, claimed, weirpool_deadline(LOOK_NS));
        Py_END_ALLOW_THREADS
        if (rc == -ETIMEDOUT) {
            warm_release(state_of((PyObject *)self));
        }
    }
    return rc;
}

static PyObject *leave(PyObject *self, int rc)
{
    switch (rc) {
    case 0: /* it has executed its share */
    case -ESHUTDOWN:
        weirpool_announce(((Worker *)self)->worker, WEIRPOOL_LEAVES);
        Py_RETURN_NONE;
    case -EOWNERDEAD: /* nobody is there to be told */
    case -ECANCELED: /* the task was stopped: this process is about to be killed */
        Py_RETURN_NONE;
    case 1:
        return NULL;
    default:
        return raise_error(state_of(self), rc);
    }
}

static PyObject *worker_run(PyObject *self, PyObject *most)
{
    unsigned long long left = PyLong_AsUnsignedLongLong(most);
    if (PyErr_Occurred()) {
        return NULL;
    }
    Worker *worker = (Worker *)self;
    int rc;
    do {
        struct weirpool_claimed claimed;
        rc = claim(worker, &claimed);
        if (rc == 0) {
            rc = handle(self, &claimed);
        }
    } while (rc == 0 && (left == 0 || --left > 0) && !has_outgrown(&worker->growth));
    return leave(self, rc);
}

static PyMethodDef worker_methods[] = {
    {"announce", worker_announce, METH_O, "announce($self, standing, /)\n--\n\nSay UP, LEAVES or INIT_FAILED."},
    {"run", worker_run, METH_O,
     "run($self, most, /)\n--\n\nExecute tasks until told to leave, or until so many were executed (0: no limit), or "
     "until this process has outgrown its max_memory."},
    {NULL},
};

static PyType_Slot worker_slots[] = {
    {Py_tp_new, worker_new},
    {Py_tp_dealloc, worker_dealloc},
    {Py_tp_methods, worker_methods},
    {Py_tp_doc, "Worker(segment, doorbell, parent, badge, pickler=None, stays=False, max_memory=0)\n--\n\n"
                "This process as a worker of a pool."},
    {0, NULL},
};

PyType_Spec worker_spec = {
    .name = "weirpool._core.Worker",
    .basicsize = sizeof(Worker),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = worker_slots,
};
