/* Telling: a future learns of its task's end, and with it its waiters and its callbacks. */
#include "future.h"

#include <errno.h>
#include <unistd.h>

static const char *news_for_waiters(PyObject *self)
{
    struct weirpool_completion end;
    if (fields(self)->state == CANCELLED) {
        return "add_cancelled";
    }
    weirpool_describe(task_of(self), &end);
    return end.error != 0 || end.status != 0 ? "add_exception" : "add_result";
}

/* The condition is held. */
static void notify(PyObject *self)
{
    struct future *f = fields(self);
    for (Py_ssize_t i = 0; f->waiters != NULL && i < PyList_GET_SIZE(f->waiters); i++) {
        PyObject *waiter = Py_NewRef(PyList_GET_ITEM(f->waiters, i));
        PyObject *done = PyObject_CallMethod(waiter, news_for_waiters(self), "(O)", self);
        if (done == NULL) {
            PyErr_WriteUnraisable(waiter);
        }
        Py_XDECREF(done);
        Py_DECREF(waiter);
    }
    PyObject *condition = condition_of(self);
    if (condition != NULL && condition_notify_all(condition) < 0) {
        PyErr_WriteUnraisable(self);
    }
    Py_XDECREF(condition);
}

void resolve_and_notify(PyObject *self)
{
    if (fields(self)->state == FOLLOWS) {
        resolve(self);
        notify(self);
    }
}

void future_catch_up(PyObject *self)
{
    if (is_taken(self)) {
        resolve_and_notify(self);
    }
}

static int log_callback_error(PyObject *self)
{
    PyObject *error = take_exception();
    PyObject *logged = call_support(state_of(self), "log_callback_error", "(OO)", self, error);
    if (logged == NULL) {
        PyErr_WriteUnraisable(self);
    }
    Py_XDECREF(logged);
    Py_DECREF(error);
    return 0;
}

int run_callback(PyObject *self, PyObject *callback)
{
    enter_delivery();
    PyObject *done = PyObject_CallOneArg(callback, self);
    leave_delivery();
    Py_XDECREF(done);
    if (done == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        return log_callback_error(self);
    }
    return done != NULL ? 0 : -1;
}

/* A callback forked, and this is the child coming back to the collector: the other callbacks are the parent's. */
static void end_forked_collector(PyObject *self)
{
    if (weirpool_fd(pool_of(self)) == -ECHILD) {
        _exit(0);
    }
}

int run_callbacks(PyObject *self, int pass_on)
{
    struct future *f = fields(self);
    PyObject *callbacks = f->callbacks;
    int rc = 0;
    f->told = 1;
    f->callbacks = NULL;
    for (Py_ssize_t i = 0; rc == 0 && callbacks != NULL && i < PyList_GET_SIZE(callbacks); i++) {
        PyObject *callback = Py_NewRef(PyList_GET_ITEM(callbacks, i));
        rc = run_callback(self, callback);
        if (!pass_on) {
            end_forked_collector(self);
            rc = rc < 0 ? log_callback_error(self) : 0;
        }
        Py_DECREF(callback);
    }
    Py_XDECREF(callbacks);
    return rc;
}

/* Nobody is here to whom an exception could be passed on. Ctrl-C is not lost: it comes again. */
static void raise_again_later(void)
{
    if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        PyErr_SetInterrupt();
    }
    PyErr_Clear();
}

/* Makes the end of the task the future's, seen by whoever waits on its condition. */
static void announce(PyObject *self)
{
    if (fields(self)->state != FOLLOWS) {
        return; /* it was looked at after the task was taken: nobody was waiting */
    }
    PyObject *condition = condition_of(self);
    if (condition != NULL && condition_acquire(condition) == 0) { /* which announces it */
        condition_release(condition);
    } else {
        raise_again_later();
        resolve(self);
    }
    Py_XDECREF(condition);
}

void future_tell(Engine *engine, weirpool_task *task)
{
    struct weirpool_completion end;
    weirpool_describe(task, &end);
    PyObject *self = end.user;
    announce(self);
    (void)run_callbacks(self, 0);
    weirpool_told(engine->pool, task);
    Py_DECREF(self); /* the flight's reference */
}

void future_fail(PyObject *self, PyObject *exception)
{
    struct future *f = fields(self);
    f->exception = Py_NewRef(exception);
    future_track(self);
    f->decoded = 1;
    f->told = 1;
    f->state = FINISHED;
}

/* ---- cancelling: told by the thread that cancels ---- */

int withdraw(PyObject *self)
{
    struct future *f = fields(self);
    PyObject *condition = condition_of(self);
    if (condition != NULL && condition_acquire(condition) < 0) {
        Py_DECREF(condition);
        return 1;
    }
    int rc = weirpool_withdraw(pool_of(self), task_of(self));
    if (rc == 0) {
        f->state = CANCELLED;
        if (condition != NULL) {
            notify(self);
        }
    }
    if (condition != NULL) {
        condition_release(condition);
    }
    Py_XDECREF(condition);
    return rc;
}

/* -EBUSY: it has finished, and its end is looked for. -EALREADY: another thread has stopped it, and tells it. */
static int try_to_stop(PyObject *self)
{
    weirpool *pool = pool_of(self);
    weirpool_task *task = task_of(self);
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = weirpool_stop(pool, task);
    if (rc == -EBUSY || rc == -EALREADY) {
        (void)weirpool_wait(pool, task, short_slice(WEIRPOOL_FOREVER));
    }
    Py_END_ALLOW_THREADS
    return rc;
}

int stop(PyObject *self)
{
    int rc;
    while (((rc = try_to_stop(self)) == -EBUSY || rc == -EALREADY) && !has_ended(self)) {
        if (PyErr_CheckSignals() < 0) {
            return 1;
        }
    }
    if (rc == 0) {
        announce(self);
    }
    return rc;
}

int tell_cancelled(PyObject *self)
{
    weirpool_told(pool_of(self), task_of(self)); /* first: a callback may wait for the pool to end */
    int rc = run_callbacks(self, 1);
    Py_DECREF(self); /* the flight's reference; the caller has its own */
    return rc;
}
