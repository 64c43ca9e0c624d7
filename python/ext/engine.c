/*
 * The engine of one executor: a pool of the core, its collecting, its workers, its end. Submitting is submit.c's, what
 * it has measured stats.c's.
 */
#include "ext.h"

#include <errno.h>

#define BATCH 64

/* ---- making ---- */

/* Seconds; None: waits for ever; negative: does not wait. */
static int set_patience(Engine *engine, PyObject *seconds)
{
    double value = seconds == Py_None ? 0 : PyFloat_AsDouble(seconds);
    if (value == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    bool forever = seconds == Py_None || value >= (double)WEIRPOOL_FOREVER / 1e9;
    engine->patience = forever ? WEIRPOOL_FOREVER : value < 0 ? -1 : (int64_t)(value * 1e9);
    return 0;
}

static PyObject *engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"workers", "bound",     "crew",     "pickler", "adaptive",
                            "backlog", "max_bytes", "patience", "replace", NULL};
    unsigned workers;
    unsigned long long bound;
    PyObject *crew, *pickler = Py_None;
    int adaptive = 0;
    unsigned long long backlog = 0, bytes = 0;
    PyObject *patience = Py_None;
    int replace = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "IKO|OpKKOp", names, &workers, &bound, &crew, &pickler, &adaptive,
                                     &backlog, &bytes, &patience, &replace)) {
        return NULL;
    }
    Engine *engine = (Engine *)type->tp_alloc(type, 0);
    if (engine == NULL || set_patience(engine, patience) < 0 || codec_init(&engine->codec, pickler) < 0) {
        Py_XDECREF(engine);
        return NULL;
    }
    struct weirpool_options options = {
        .size = sizeof options,
        .workers = workers,
        .bound = bound,
        .adaptive = (uint32_t)adaptive,
        .max_unstarted = backlog,
        .max_bytes = bytes,
        .replace = (uint32_t)replace,
    };
    int rc = weirpool_open(&engine->pool, &options);
    if (rc != 0) {
        engine->pool = NULL;
        raise_error(state_of((PyObject *)engine), rc);
        Py_DECREF(engine);
        return NULL;
    }
    engine->replaces = replace;
    engine->weighs = bytes != 0;
    engine->starts_late = bytes != 0 || backlog != 0;
    engine->crew = Py_NewRef(crew);
    return (PyObject *)engine;
}

static int engine_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Engine *)self)->crew);
    Py_VISIT(((Engine *)self)->codec.dumps);
    Py_VISIT(((Engine *)self)->codec.loads);
    return 0;
}

static int engine_clear(PyObject *self)
{
    Py_CLEAR(((Engine *)self)->crew);
    codec_clear(&((Engine *)self)->codec);
    return 0;
}

static void close_pool(Engine *engine)
{
    if (engine->pool == NULL || weirpool_stats(engine->pool, &engine->last) != 0) {
        return; /* closed; or in a forked child: it is the parent's */
    }
    engine->last_fault = weirpool_fault(engine->pool);
    (void)weirpool_close(engine->pool);
    engine->pool = NULL;
}

static void engine_dealloc(PyObject *self)
{
    Engine *engine = (Engine *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    close_pool(engine);
    (void)engine_clear(self);
    Py_CLEAR(engine->cause);
    Py_CLEAR(engine->reason);
    type->tp_free(self);
    Py_DECREF(type);
}

void engine_enter(Engine *engine)
{
    Py_INCREF((PyObject *)engine);
    engine->inside++;
}

void engine_leave(Engine *engine)
{
    engine->inside--;
    if (engine->closing && engine->inside == 0) {
        close_pool(engine);
    }
    Py_DECREF((PyObject *)engine);
}

/* Also if futures still refer to this engine. */
static PyObject *engine_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Engine *engine = (Engine *)self;
    engine->closing = 1;
    engine_enter(engine);
    engine_leave(engine);
    Py_RETURN_NONE;
}

weirpool *engine_pool(PyObject *self)
{
    Engine *engine = (Engine *)self;
    if (engine->pool == NULL || engine->closing) {
        raise_pool_error(engine, engine->broke ? -EPIPE : -ESHUTDOWN);
        return NULL;
    }
    return engine->pool;
}

/* ---- telling ---- */

static void tell_all(Engine *engine, weirpool_task **tasks, int count)
{
    for (int i = 0; i < count; i++) {
        future_tell(engine, tasks[i]);
    }
}

void engine_sweep(Engine *engine)
{
    weirpool_task *tasks[BATCH];
    int n = engine->pool != NULL ? weirpool_sweep(engine->pool, tasks, BATCH) : 0;
    if (n > 0) {
        PyObject *pending = PyErr_Occurred() ? take_exception() : NULL;
        engine_enter(engine);
        tell_all(engine, tasks, n);
        engine_leave(engine);
        if (pending != NULL) {
            restore_exception(pending);
        }
    }
}

/* Tells futures until there is an event. 0, or -errno: -ETIMEDOUT past the deadline. */
static int collect(Engine *engine, struct weirpool_event *event, int64_t deadline)
{
    int n = 0;
    while (event->kind == WEIRPOOL_NOTHING && (n >= 0 || n == -EINTR)) {
        weirpool_task *tasks[BATCH];
        Py_BEGIN_ALLOW_THREADS
        n = weirpool_collect(engine->pool, tasks, BATCH, event, deadline);
        Py_END_ALLOW_THREADS
        tell_all(engine, tasks, n);
    }
    return n < 0 && n != -EINTR ? n : 0;
}

static PyObject *engine_collect(PyObject *self, PyObject *timeout)
{
    Engine *engine = (Engine *)self;
    struct weirpool_event event = {.kind = WEIRPOOL_NOTHING};
    int64_t deadline;
    if (parse_timeout(timeout, &deadline) < 0 || engine_pool(self) == NULL) {
        return NULL;
    }
    engine_enter(engine);
    enter_delivery();
    int rc = collect(engine, &event, deadline);
    leave_delivery();
    engine_leave(engine);
    if (rc != 0 && !timed_out(rc)) {
        return raise_error(state_of(self), rc);
    }
    engine->broke |= event.kind == WEIRPOOL_BROKE;
    return Py_BuildValue("iI", (int)event.kind, event.worker);
}

/* ---- workers ---- */

static PyObject *engine_reserve(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint32_t worker;
    Engine *engine = (Engine *)self;
    int rc = engine->pool != NULL ? weirpool_worker_reserve(engine->pool, &worker) : -ESHUTDOWN;
    if (rc == -EAGAIN || rc == -ESHUTDOWN || rc == -EPIPE) {
        Py_RETURN_NONE;
    }
    return rc == 0 ? PyLong_FromUnsignedLong(worker) : raise_error(state_of(self), rc);
}

static PyObject *engine_badge(PyObject *self, PyObject *number)
{
    unsigned long worker = PyLong_AsUnsignedLong(number);
    if (worker == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    weirpool *pool = engine_pool(self);
    return pool != NULL ? PyLong_FromUnsignedLong(weirpool_worker_badge(pool, (uint32_t)worker)) : NULL;
}

static PyObject *engine_watch(PyObject *self, PyObject *args)
{
    unsigned worker;
    int fd, pid;
    if (!PyArg_ParseTuple(args, "Iii", &worker, &fd, &pid)) {
        return NULL;
    }
    weirpool *pool = engine_pool(self);
    if (pool == NULL) {
        return NULL;
    }
    int rc = weirpool_worker_watch(pool, worker, fd, pid);
    if (rc != 0) {
        return raise_error(state_of(self), rc);
    }
    Py_RETURN_NONE;
}

static PyObject *give_number_up(PyObject *self, PyObject *number, void (*how)(weirpool *, uint32_t))
{
    unsigned long worker = PyLong_AsUnsignedLong(number);
    if (worker == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    if (((Engine *)self)->pool != NULL) {
        how(((Engine *)self)->pool, (uint32_t)worker);
    }
    Py_RETURN_NONE;
}

static PyObject *engine_abandon(PyObject *self, PyObject *number)
{
    return give_number_up(self, number, weirpool_worker_abandon);
}

static PyObject *engine_vacate(PyObject *self, PyObject *number)
{
    return give_number_up(self, number, weirpool_worker_vacate);
}

static PyObject *engine_revoke(PyObject *self, PyObject *number)
{
    unsigned long worker = PyLong_AsUnsignedLong(number);
    if (worker == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    weirpool *pool = ((Engine *)self)->pool;
    int rc = pool != NULL ? weirpool_worker_revoke(pool, (uint32_t)worker) : 0;
    return rc == 0 || rc == -EALREADY ? PyBool_FromLong(rc == 0) : raise_error(state_of(self), rc);
}

static PyObject *engine_wants_worker(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    weirpool *pool = ((Engine *)self)->pool;
    return PyBool_FromLong(pool != NULL && weirpool_worker_wanted(pool) == 1);
}

static PyObject *engine_channel(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct weirpool_channel channel;
    weirpool *pool = engine_pool(self);
    if (pool == NULL) {
        return NULL;
    }
    weirpool_channel(pool, &channel);
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
    weirpool *pool = ((Engine *)self)->pool;
    int rc = pool != NULL ? weirpool_shutdown(pool) : 0;
    if (rc == 0) {
        tickets_retire((Engine *)self);
    }
    return none_or_error(self, rc);
}

static PyObject *engine_cancel_waiting(PyObject *self, PyObject *spare)
{
    unsigned long long n = PyLong_AsUnsignedLongLong(spare);
    if (PyErr_Occurred()) {
        return NULL;
    }
    weirpool *pool = ((Engine *)self)->pool;
    return none_or_error(self, pool != NULL ? weirpool_cancel_waiting(pool, n) : 0);
}

void engine_break(Engine *engine, PyObject *cause, PyObject *reason)
{
    /* The interpreter lock is held throughout: whoever finds its task ended finds the reason, too. */
    if (engine->pool != NULL && weirpool_break(engine->pool) == 0) {
        Py_XSETREF(engine->cause, Py_XNewRef(cause));
        Py_XSETREF(engine->reason, Py_XNewRef(reason));
    }
}

static PyObject *engine_break_method(PyObject *self, PyObject *args)
{
    PyObject *cause, *reason = Py_None;
    if (!PyArg_ParseTuple(args, "O|O", &cause, &reason)) {
        return NULL;
    }
    engine_break((Engine *)self, cause == Py_None ? NULL : cause, reason == Py_None ? NULL : reason);
    Py_RETURN_NONE;
}

static enum weirpool_fault fault_of(const Engine *engine)
{
    return engine->pool != NULL ? weirpool_fault(engine->pool) : engine->last_fault;
}

static PyObject *engine_explained(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Engine *engine = (Engine *)self;
    return PyBool_FromLong(engine->cause != NULL || engine->reason != NULL ||
                           fault_of(engine) == WEIRPOOL_FAULT_CORRUPT);
}

static PyObject *or_none(PyObject *object)
{
    return object != NULL ? object : Py_None;
}

PyObject *engine_broken(Engine *engine, const char *text, int pid)
{
    return call_support(state_of((PyObject *)engine), "broken", "(OOiOiz)", or_none(engine->cause),
                        or_none(engine->reason), (int)fault_of(engine), engine->crew, pid, text);
}

static PyObject *engine_why_broken(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return engine_broken((Engine *)self, unusable_text, 0);
}

static PyObject *engine_check(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    char why[200];
    weirpool *pool = engine_pool(self);
    if (pool == NULL) {
        return NULL;
    }
    int rc = weirpool_check(pool, why, sizeof why);
    if (rc == -EUCLEAN) {
        PyErr_SetString(PyExc_AssertionError, why);
        return NULL;
    }
    return none_or_error(self, rc);
}

static PyMethodDef engine_methods[] = {
    {"submit", (PyCFunction)(void (*)(void))engine_submit, METH_FASTCALL,
     "submit($self, fn, args, kwargs, limit=0, retries=0, /)\n--\n\n"
     "Submit a call, waiting for room; return its Future. limit: nanoseconds that it may run; 0: no limit."},
    {"submit_soon", (PyCFunction)(void (*)(void))engine_submit_soon, METH_FASTCALL,
     "submit_soon($self, fn, args, kwargs, bell, limit=0, retries=0, /)\n--\n\n"
     "Submit a call without waiting; return its Future, or the Ticket of a place in the line for room.\n\n"
     "bell is an eventfd, which is rung when the ticket should be polled."},
    {"collect", engine_collect, METH_O,
     "collect($self, timeout, /)\n--\n\nTell futures of their ends until something else happens; return (kind, "
     "worker). "
     "The kind is NOTHING after so many seconds (None: never)."},
    {"reserve", engine_reserve, METH_NOARGS,
     "reserve($self, /)\n--\n\nReturn the number for a new worker, or None: there are enough, or none is needed any "
     "more."},
    {"badge", engine_badge, METH_O, "badge($self, worker, /)\n--\n\nReturn what the worker shows when it attaches."},
    {"watch", engine_watch, METH_VARARGS,
     "watch($self, worker, fd, pid, /)\n--\n\nThe worker runs; fd becomes readable when it ends."},
    {"abandon", engine_abandon, METH_O,
     "abandon($self, worker, /)\n--\n\nThe worker could not be started or watched; no process is left."},
    {"revoke", engine_revoke, METH_O,
     "revoke($self, worker, /)\n--\n\nTurn the worker away; return False if it has attached, or was turned away "
     "before."},
    {"vacate", engine_vacate, METH_O, "vacate($self, worker, /)\n--\n\nThe worker has left, and was reaped."},
    {"wants_worker", engine_wants_worker, METH_NOARGS,
     "wants_worker($self, /)\n--\n\nDo outstanding tasks exceed workers?"},
    {"channel", engine_channel, METH_NOARGS,
     "channel($self, /)\n--\n\nReturn the three descriptors that a worker needs."},
    {"close", engine_close, METH_NOARGS,
     "close($self, /)\n--\n\nLet descriptors and shared memory go: every task has ended."},
    {"shutdown", engine_shutdown, METH_NOARGS,
     "shutdown($self, /)\n--\n\nAccept nothing more. Does nothing once the engine is closed."},
    {"cancel_waiting", engine_cancel_waiting, METH_O,
     "cancel_waiting($self, spare, /)\n--\n\nCancel what no worker has started; spare so many if nothing was started "
     "yet."},
    {"break_", engine_break_method, METH_VARARGS,
     "break_($self, cause, reason=None, /)\n--\n\nEnd every task with BrokenProcessPool(reason); both are texts or "
     "None."},
    {"is_holding", engine_is_holding, METH_NOARGS,
     "is_holding($self, /)\n--\n\nIs this thread submitting, with a permit that a shutdown would wait for?"},
    {"explained", engine_explained, METH_NOARGS,
     "explained($self, /)\n--\n\nIs it known why the pool broke? If not, a worker died."},
    {"why_broken", engine_why_broken, METH_NOARGS,
     "why_broken($self, /)\n--\n\nReturn the BrokenProcessPool that submit() raises by now."},
    {"stats", engine_stats, METH_NOARGS, "stats($self, /)\n--\n\nReturn fields of Stats."},
    {"workers", engine_workers, METH_NOARGS,
     "workers($self, /)\n--\n\nReturn (pid, tasks, busy seconds) of each worker."},
    {"check", engine_check, METH_NOARGS,
     "check($self, /)\n--\n\nRaise AssertionError if an invariant of the pool is broken."},
    {NULL},
};

static PyType_Slot engine_slots[] = {
    {Py_tp_new, engine_new},
    {Py_tp_dealloc, engine_dealloc},
    {Py_tp_traverse, engine_traverse},
    {Py_tp_clear, engine_clear},
    {Py_tp_methods, engine_methods},
    {Py_tp_doc, "Engine(workers, bound, crew, pickler=None, adaptive=False, backlog=0, max_bytes=0, "
                "patience=None, replace=False)\n--\n\n"
                "A pool of the core; crew.start_one() brings a worker."},
    {0, NULL},
};

PyType_Spec engine_spec = {
    .name = "weirpool._core.Engine",
    .basicsize = sizeof(Engine),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = engine_slots,
};
