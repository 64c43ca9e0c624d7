/* Submitting: a permit, a worker if one is wanted, the pickle, the queue. */
#include "ext.h"

#include <errno.h>

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

/* While a task is in flight its future is kept alive; future_tell() or tell_cancelled() ends the flight. */
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

static int start_wanted_worker(Engine *engine)
{
    PyObject *done = PyObject_CallMethod(engine->crew, "start_one", NULL);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

/* A start failed, and tasks of others may have counted on that worker: try for them, else the pool breaks. */
static void rescue_others(Engine *engine)
{
    PyObject *failure = take_exception();
    struct weirpool_stats stats;
    if (weirpool_stats(engine->pool, &stats) == 0 && stats.outstanding > 0 && stats.workers == 0 &&
        start_wanted_worker(engine) < 0) {
        PyObject *error = take_exception();
        PyObject *cause = call_support(state_of((PyObject *)engine), "format_cause", "(O)", error);
        engine_break(engine, cause, NULL);
        PyErr_Clear();
        Py_XDECREF(cause);
        Py_DECREF(error);
    }
    restore_exception(failure);
}

/*
 * A task that cannot be pickled wants a worker like any other: the standard pool finds out later, and has started one
 * by then, which programs and tests count on. The permit is the caller's yet, so that `outstanding` is one too high.
 */
static int start_worker_for_unsent(Engine *engine)
{
    struct weirpool_stats stats;
    int rc = weirpool_stats(engine->pool, &stats);
    bool wanted = rc == 0 && stats.outstanding + engine->unsent > stats.workers;
    engine->unsent++;
    return wanted ? start_wanted_worker(engine) : 0;
}

static int submit_with_permit(Engine *engine, const struct call *call, PyObject *future)
{
    struct state *state = state_of((PyObject *)engine);
    struct encoded encoded;
    if (encode_call(engine, call, SIZE_MAX, &encoded) != 0) {
        int rc = fail_with_current(state, future);
        if (rc == 0) {
            rc = start_worker_for_unsent(engine);
        }
        weirpool_forgo(engine->pool);
        return rc;
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

/* The pickle of a large task is made once there is room for it: a hundred producers do not hold a hundred of them. */
static int submit_large_in_line(Engine *engine, const struct call *call, PyObject *future)
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

static int submit_in_line(Engine *engine, const struct call *call, PyObject *future)
{
    struct state *state = state_of((PyObject *)engine);
    struct encoded encoded;
    int rc = encode_call(engine, call, WEIRPOOL_PARK_LIMIT, &encoded);
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

/* permit, worker, pickle, publish: whatever fails on the way, the permit returns. */
static int submit(Engine *engine, const struct call *call, PyObject *future)
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
        rescue_others(engine);
        return -1;
    }
    return submit_with_permit(engine, call, future);
}

PyObject *engine_submit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    Engine *engine = (Engine *)self;
    if (count != 3 || !PyTuple_CheckExact(args[1]) || !PyDict_CheckExact(args[2])) {
        PyErr_SetString(PyExc_TypeError, "submit() takes fn, args and kwargs");
        return NULL;
    }
    if (engine_pool(self) == NULL) {
        return NULL;
    }
    engine_enter(engine);
    struct call call = {.fn = args[0], .args = args[1], .kwargs = args[2]};
    PyObject *future = future_new(state_of(self), engine);
    if (future != NULL && submit(engine, &call, future) < 0) {
        Py_CLEAR(future);
    }
    engine_sweep(engine);
    engine_leave(engine);
    return future;
}
