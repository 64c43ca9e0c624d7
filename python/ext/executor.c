/* The engine of one executor: submits, and collects for the collector thread. */
#include "ext.h"

#include <errno.h>

#define BATCH 64

/* ---- threads that must not wait at the gate ---- */

static _Thread_local int deliveries;

void enter_delivery(void)
{
    deliveries++;
}

void leave_delivery(void)
{
    deliveries--;
}

/* ---- making ---- */

static PyObject *engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"workers", "bound", "start_worker", NULL};
    unsigned workers;
    unsigned long long bound;
    PyObject *start_worker;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "IKO", names, &workers, &bound, &start_worker)) {
        return NULL;
    }
    Engine *engine = (Engine *)type->tp_alloc(type, 0);
    if (engine == NULL) {
        return NULL;
    }
    struct weirpool_options options = {.size = sizeof options, .workers = workers, .bound = bound};
    int rc = weirpool_open(&engine->pool, &options);
    if (rc != 0) {
        engine->pool = NULL;
        raise_error(state_of((PyObject *)engine), rc);
        Py_DECREF(engine);
        return NULL;
    }
    engine->start_worker = Py_NewRef(start_worker);
    return (PyObject *)engine;
}

static int engine_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Engine *)self)->start_worker);
    return 0;
}

static int engine_clear(PyObject *self)
{
    Py_CLEAR(((Engine *)self)->start_worker);
    return 0;
}

static void engine_dealloc(PyObject *self)
{
    Engine *engine = (Engine *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (engine->pool != NULL) {
        (void)weirpool_close(engine->pool); /* in a forked child: -ECHILD, the parent's pool is not touched */
    }
    Py_CLEAR(engine->start_worker);
    Py_CLEAR(engine->cause);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- telling ---- */

static void tell_all(Engine *engine, weirpool_task **tasks, int count)
{
    for (int i = 0; i < count; i++) {
        future_tell(engine, tasks[i]);
    }
}

/* Tells what others have taken and nobody watches, so that finished futures do not wait for the collector. */
static void sweep(Engine *engine)
{
    weirpool_task *tasks[BATCH];
    tell_all(engine, tasks, weirpool_sweep(engine->pool, tasks, BATCH));
}

/* collect() -> (kind, worker): tells futures until something else happens. For the collector thread. */
static PyObject *engine_collect(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Engine *engine = (Engine *)self;
    struct weirpool_event event = {.kind = WEIRPOOL_NOTHING};
    enter_delivery();
    while (event.kind == WEIRPOOL_NOTHING) {
        weirpool_task *tasks[BATCH];
        int n;
        Py_BEGIN_ALLOW_THREADS
        n = weirpool_collect(engine->pool, tasks, BATCH, &event, WEIRPOOL_FOREVER);
        Py_END_ALLOW_THREADS
        if (n < 0 && n != -EINTR) {
            leave_delivery();
            return raise_error(state_of(self), n);
        }
        tell_all(engine, tasks, n);
    }
    leave_delivery();
    return Py_BuildValue("iI", (int)event.kind, event.worker);
}

/* ---- submitting ---- */

/* Waits for a ticket's turn, and for signals meanwhile: -EINTR means that one raised, and that the place is kept. */
static int await_ticket(Engine *engine, weirpool_ticket *ticket)
{
    for (;;) {
        int64_t slice = wait_slice(WEIRPOOL_FOREVER);
        int rc;
        Py_BEGIN_ALLOW_THREADS
        rc = weirpool_await(engine->pool, ticket, slice);
        Py_END_ALLOW_THREADS
        if (!is_early(rc, WEIRPOOL_FOREVER)) {
            return rc;
        }
        if (PyErr_CheckSignals() < 0) {
            return -EINTR;
        }
    }
}

/*
 * Waits in line, with an encoded task or (NULL) for a bare permit. -1: exception set. `came` says whether the turn has
 * come, which may be so although a signal raised.
 */
static int wait_in_line(Engine *engine, const struct encoded *encoded, PyObject *future, int *came)
{
    weirpool_ticket *ticket;
    const struct iovec *parts = encoded != NULL ? encoded->parts : NULL;
    int count = encoded != NULL ? encoded->count : 0;
    int rc = weirpool_queue(engine->pool, parts, count, future, 0, future_task(future), &ticket);
    if (rc == 0) {
        rc = await_ticket(engine, ticket);
        if (rc == -EINTR) {
            *came = weirpool_leave(engine->pool, ticket) == 1;
            return -1;
        }
    }
    *came = rc == 0;
    if (rc != 0) {
        raise_error(state_of((PyObject *)engine), rc);
        return -1;
    }
    return 0;
}

/* While a task is in flight its future is kept alive; future_tell() or future_cancel() ends the flight. */
static void begin_flight(PyObject *future)
{
    Py_INCREF(future);
}

static void undo_flight(PyObject *future)
{
    *future_task(future) = NULL;
    Py_DECREF(future);
}

static int publish(Engine *engine, const struct encoded *encoded, PyObject *future)
{
    weirpool_task **task = future_task(future);
    if (encoded->size <= WEIRPOOL_PARK_LIMIT) {
        return weirpool_publish(engine->pool, encoded->parts, encoded->count, future, 0, task);
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = weirpool_publish(engine->pool, encoded->parts, encoded->count, future, 0, task);
    Py_END_ALLOW_THREADS
    return rc;
}

/* The exception that is set becomes the future's: a task that cannot be pickled fails, its submission does not. */
static int fail_with_current(struct state *state, PyObject *future)
{
    PyObject *error = take_exception();
    if (!PyErr_GivenExceptionMatches(error, PyExc_Exception)) { /* Ctrl-C while pickling is the submitter's */
        restore_exception(error);
        return -1;
    }
    PyObject *failure = call_support(state, "with_remote_traceback", "(O)", error);
    if (failure != NULL) {
        future_fail(future, failure);
    }
    Py_XDECREF(failure);
    Py_DECREF(error);
    return failure != NULL ? 0 : -1;
}

static int submit_with_permit(Engine *engine, PyObject *call, PyObject *future)
{
    struct state *state = state_of((PyObject *)engine);
    struct encoded encoded;
    if (encode(state, call, SIZE_MAX, &encoded) != 0) {
        weirpool_forgo(engine->pool);
        return fail_with_current(state, future);
    }
    begin_flight(future);
    int rc = publish(engine, &encoded, future);
    encoded_clear(&encoded);
    if (rc != 0) {
        undo_flight(future);
        raise_error(state, rc);
        return -1;
    }
    return 0;
}

/* The pickle of a large task is made only once there is room for it: a hundred producers do not hold a hundred of them. */
static int submit_large_in_line(Engine *engine, PyObject *call, PyObject *future)
{
    int came = 0;
    if (wait_in_line(engine, NULL, future, &came) < 0) {
        if (came) {
            weirpool_forgo(engine->pool);
        }
        return -1;
    }
    return submit_with_permit(engine, call, future);
}

static int submit_in_line(Engine *engine, PyObject *call, PyObject *future)
{
    struct state *state = state_of((PyObject *)engine);
    struct encoded encoded;
    int rc = encode(state, call, WEIRPOOL_PARK_LIMIT, &encoded);
    if (rc < 0) {
        return fail_with_current(state, future);
    }
    if (rc == 1) {
        return submit_large_in_line(engine, call, future);
    }
    int came = 0;
    begin_flight(future);
    rc = wait_in_line(engine, &encoded, future, &came);
    encoded_clear(&encoded);
    if (!came) {
        undo_flight(future);
    }
    return rc;
}

static int start_wanted_worker(Engine *engine)
{
    PyObject *done = PyObject_CallNoArgs(engine->start_worker);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

/* permit, worker, pickle, publish: whatever fails on the way, the permit returns. */
static int submit(Engine *engine, PyObject *call, PyObject *future)
{
    int rc = weirpool_admit(engine->pool, deliveries > 0 ? WEIRPOOL_OVER_BOUND : WEIRPOOL_IN_BOUND, WEIRPOOL_NOW);
    if (rc == -EAGAIN) {
        return submit_in_line(engine, call, future);
    }
    if (rc < 0) {
        raise_error(state_of((PyObject *)engine), rc);
        return -1;
    }
    if (rc == 1 && start_wanted_worker(engine) < 0) {
        weirpool_forgo(engine->pool);
        return -1;
    }
    return submit_with_permit(engine, call, future);
}

/* submit(fn, args, kwargs) -> Future */
static PyObject *engine_submit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    Engine *engine = (Engine *)self;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "submit() takes fn, args and kwargs");
        return NULL;
    }
    PyObject *call = PyTuple_Pack(3, args[0], args[1], args[2]);
    PyObject *future = call != NULL ? future_new(state_of(self), engine) : NULL;
    if (future != NULL && submit(engine, call, future) < 0) {
        Py_CLEAR(future);
    }
    Py_XDECREF(call);
    sweep(engine);
    return future;
}

/* ---- workers ---- */

/* reserve() -> the number for a new worker, or None: there are enough, or none is needed any more. */
static PyObject *engine_reserve(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint32_t worker;
    int rc = weirpool_worker_reserve(((Engine *)self)->pool, &worker);
    if (rc == -EAGAIN || rc == -ESHUTDOWN || rc == -EPIPE) {
        Py_RETURN_NONE;
    }
    return rc == 0 ? PyLong_FromUnsignedLong(worker) : raise_error(state_of(self), rc);
}

/* watch(worker, fd, pid): the worker runs, and `fd` becomes readable when it ends. */
static PyObject *engine_watch(PyObject *self, PyObject *args)
{
    unsigned worker;
    int fd, pid;
    if (!PyArg_ParseTuple(args, "Iii", &worker, &fd, &pid)) {
        return NULL;
    }
    int rc = weirpool_worker_watch(((Engine *)self)->pool, worker, fd, pid);
    if (rc != 0) {
        return raise_error(state_of(self), rc);
    }
    Py_RETURN_NONE;
}

/* abandon(worker): it could not be started. */
static PyObject *engine_abandon(PyObject *self, PyObject *number)
{
    unsigned long worker = PyLong_AsUnsignedLong(number);
    if (worker == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    weirpool_worker_abandon(((Engine *)self)->pool, (uint32_t)worker);
    Py_RETURN_NONE;
}

/* channel() -> the three descriptors that a worker needs. */
static PyObject *engine_channel(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct weirpool_channel channel;
    weirpool_channel(((Engine *)self)->pool, &channel);
    return Py_BuildValue("iii", channel.segment, channel.doorbell, channel.parent);
}

/* ---- ending and asking ---- */

static PyObject *none_or_error(PyObject *self, int rc)
{
    if (rc != 0) {
        return raise_error(state_of(self), rc);
    }
    Py_RETURN_NONE;
}

static PyObject *engine_shutdown(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return none_or_error(self, weirpool_shutdown(((Engine *)self)->pool));
}

static PyObject *engine_cancel_waiting(PyObject *self, PyObject *spare)
{
    unsigned long long n = PyLong_AsUnsignedLongLong(spare);
    if (PyErr_Occurred()) {
        return NULL;
    }
    return none_or_error(self, weirpool_cancel_waiting(((Engine *)self)->pool, n));
}

void engine_break(Engine *engine, PyObject *cause)
{
    Py_XSETREF(engine->cause, Py_XNewRef(cause));
    (void)weirpool_break(engine->pool);
}

/* break_(cause): every task ends with BrokenProcessPool; cause is a text or None. */
static PyObject *engine_break_method(PyObject *self, PyObject *cause)
{
    engine_break((Engine *)self, cause == Py_None ? NULL : cause);
    Py_RETURN_NONE;
}

static PyObject *engine_stats(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct weirpool_stats s;
    int rc = weirpool_stats(((Engine *)self)->pool, &s);
    if (rc != 0) {
        return raise_error(state_of(self), rc);
    }
    return Py_BuildValue("{sKsKsKsKsKsKsdsKsKsIsK}", "outstanding", s.outstanding, "waiting", s.waiting, "running",
                         s.running, "blocked_producers", s.blocked_producers, "admitted_over_bound",
                         s.admitted_over_bound, "peak_outstanding", s.peak_outstanding, "blocked_seconds",
                         (double)s.blocked_ns / 1e9, "submitted", s.submitted, "finished", s.finished, "workers",
                         s.workers, "segment_bytes", s.segment_bytes);
}

/* check(): AssertionError if an invariant of the pool is broken. */
static PyObject *engine_check(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    char why[200];
    int rc = weirpool_check(((Engine *)self)->pool, why, sizeof why);
    if (rc == -EUCLEAN) {
        PyErr_SetString(PyExc_AssertionError, why);
        return NULL;
    }
    return none_or_error(self, rc);
}

static PyMethodDef engine_methods[] = {
    {"submit", (PyCFunction)(void (*)(void))engine_submit, METH_FASTCALL, NULL},
    {"collect", engine_collect, METH_NOARGS, NULL},
    {"reserve", engine_reserve, METH_NOARGS, NULL},
    {"watch", engine_watch, METH_VARARGS, NULL},
    {"abandon", engine_abandon, METH_O, NULL},
    {"channel", engine_channel, METH_NOARGS, NULL},
    {"shutdown", engine_shutdown, METH_NOARGS, NULL},
    {"cancel_waiting", engine_cancel_waiting, METH_O, NULL},
    {"break_", engine_break_method, METH_O, NULL},
    {"stats", engine_stats, METH_NOARGS, NULL},
    {"check", engine_check, METH_NOARGS, NULL},
    {NULL},
};

static PyType_Slot engine_slots[] = {
    {Py_tp_new, engine_new},
    {Py_tp_dealloc, engine_dealloc},
    {Py_tp_traverse, engine_traverse},
    {Py_tp_clear, engine_clear},
    {Py_tp_methods, engine_methods},
    {Py_tp_doc, "Engine(workers, bound, start_worker): a pool of the core without workers; start_worker brings them."},
    {0, NULL},
};

PyType_Spec engine_spec = {
    .name = "weirpool._core.Engine",
    .basicsize = sizeof(Engine),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = engine_slots,
};
