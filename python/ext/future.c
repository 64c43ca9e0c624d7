/*
 * The Future: a subclass of concurrent.futures.Future that follows its task in the core and keeps nothing of its own
 * until somebody asks. `_condition`, `_waiters` and `_done_callbacks` come into being when they are looked at; what it
 * inherits (set_result, __repr__) and what looks inside (the functions wait() and as_completed()) works on them.
 *
 * It has no dealloc or traverse of its own: those of its base would restart at its type. Members do the work, and the
 * task is owned by a Handle.
 */
#include "future.h"

#include <errno.h>
#include <stddef.h>
#include <structmember.h>

Py_ssize_t future_fields_at;

/* ---- handles ---- */

static void handle_dealloc(PyObject *self)
{
    Handle *handle = (Handle *)self;
    PyTypeObject *type = Py_TYPE(self);
    /* A task in flight keeps its future and so its handle: only in a forked child can it be met here. */
    if (handle->task != NULL && weirpool_phase(handle->engine->pool, handle->task) == WEIRPOOL_TAKEN) {
        weirpool_release(handle->engine->pool, handle->task);
    }
    Py_XDECREF(handle->engine);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot handle_slots[] = {
    {Py_tp_dealloc, handle_dealloc},
    {0, NULL},
};

PyType_Spec handle_spec = {
    .name = "weirpool._core.Handle",
    .basicsize = sizeof(Handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = handle_slots,
};

weirpool_task **future_task(PyObject *future)
{
    return &handle_of(future)->task;
}

PyObject *future_new(struct state *state, Engine *engine)
{
    PyObject *self = state->future_type->tp_alloc(state->future_type, 0);
    if (self == NULL) {
        return NULL;
    }
    Handle *handle = PyObject_New(Handle, state->handle_type);
    if (handle == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    handle->engine = (Engine *)Py_NewRef((PyObject *)engine);
    handle->task = NULL;
    fields(self)->handle = (PyObject *)handle;
    fields(self)->state = FOLLOWS;
    PyObject_GC_UnTrack(self); /* see future_track() */
    return self;
}

/* ---- methods ---- */

/* One that somebody made by calling the type has no task: it is what the base class makes of it. */
static int is_taskless(PyObject *self)
{
    return fields(self)->handle == NULL;
}

static PyObject *call_base(PyObject *self, const char *name, PyObject *args, PyObject *kwargs)
{
    PyObject *method = PyObject_GetAttrString(state_of(self)->base_future, name);
    PyObject *first = PyTuple_Pack(1, self);
    PyObject *all = first != NULL && args != NULL ? PySequence_Concat(first, args) : Py_XNewRef(first);
    PyObject *result = method != NULL && all != NULL ? PyObject_Call(method, all, kwargs) : NULL;
    Py_XDECREF(all);
    Py_XDECREF(first);
    Py_XDECREF(method);
    return result;
}

/* -1: exception set. A future that is ended by hand wakes nobody who waits for its task: everybody looks. */
static int wait_in_slices(PyObject *self, int64_t deadline)
{
    while (!has_ended(self)) {
        weirpool_task *task = task_of(self);
        weirpool *pool = pool_of(self);
        int64_t look = weirpool_deadline(LOOK_NS);
        int64_t slice = wait_slice(look < deadline ? look : deadline);
        int rc;
        Py_BEGIN_ALLOW_THREADS
        rc = weirpool_wait(pool, task, slice);
        Py_END_ALLOW_THREADS
        if (is_early(rc, deadline)) {
            if (PyErr_CheckSignals() < 0) {
                return -1;
            }
        } else if (timed_out(rc)) {
            PyErr_SetNone(PyExc_TimeoutError);
            return -1;
        } else if (rc != 0) {
            raise_error(state_of(self), rc);
            return -1;
        }
    }
    return 0;
}

/* Waits until the task is taken. -1: exception set. */
static int wait_for_end(PyObject *self, int64_t deadline)
{
    Engine *engine = handle_of(self)->engine;
    if (has_ended(self)) {
        return 0;
    }
    engine_enter(engine);
    int rc = wait_in_slices(self, deadline);
    if (rc == 0) {
        rc = PyErr_CheckSignals(); /* a Ctrl-C of ours goes before what it made of the task */
    }
    engine_sweep(engine); /* what this thread took for others */
    engine_leave(engine);
    return rc;
}

/* Waits, refuses a cancelled future, decodes. -1: exception set. */
static int await_outcome(PyObject *self, PyObject *args, PyObject *kwargs, const char *format)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = NULL;
    int64_t deadline;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, names, &timeout)) {
        return -1;
    }
    if (parse_timeout(timeout, &deadline) < 0 || wait_for_end(self, deadline) < 0) {
        return -1;
    }
    if (was_cancelled(self)) {
        PyErr_SetNone(state_of(self)->cancelled_error);
        return -1;
    }
    return ensure_decoded(self, deadline);
}

static PyObject *future_result(PyObject *self, PyObject *args, PyObject *kwargs)
{
    if (is_taskless(self)) {
        return call_base(self, "result", args, kwargs);
    }
    if (await_outcome(self, args, kwargs, "|O:result") < 0) {
        return NULL;
    }
    PyObject *exception = fields(self)->exception;
    if (exception == NULL) {
        PyObject *result = fields(self)->result;
        return Py_NewRef(result != NULL ? result : Py_None);
    }
    if (PyExceptionInstance_Check(exception)) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    } else if (PyExceptionClass_Check(exception)) {
        PyErr_SetNone(exception);
    } else {
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
    }
    return NULL;
}

/*
 * What result() raises this time for want of memory or depth is what exception() returns: an event loop asks it in a
 * callback, and whoever awaits the result would wait for ever if that raised.
 */
static PyObject *exception_of_asking(void)
{
    bool is_exception = PyErr_ExceptionMatches(PyExc_MemoryError) || PyErr_ExceptionMatches(PyExc_RecursionError);
    return is_exception ? take_exception() : NULL;
}

static PyObject *future_exception(PyObject *self, PyObject *args, PyObject *kwargs)
{
    if (is_taskless(self)) {
        return call_base(self, "exception", args, kwargs);
    }
    if (await_outcome(self, args, kwargs, "|O:exception") < 0) {
        return exception_of_asking();
    }
    PyObject *exception = fields(self)->exception;
    return Py_NewRef(exception != NULL ? exception : Py_None);
}

static PyObject *future_done(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(has_ended(self));
}

static PyObject *future_cancelled(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(was_cancelled(self));
}

static PyObject *future_running(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!has_ended(self) && current_state(self) == RUNNING);
}

static PyObject *cancel_task(PyObject *self, int force)
{
    Engine *engine = handle_of(self)->engine;
    PyObject *answer;
    engine_enter(engine);
    int rc = force ? stop(self) : withdraw(self);
    if (rc == 0) {
        answer = tell_cancelled(self) == 0 ? Py_NewRef(Py_True) : NULL;
    } else if (rc == -EBUSY || rc == -EALREADY) {
        answer = PyBool_FromLong(was_cancelled(self));
    } else {
        answer = rc < 0 ? raise_error(state_of(self), rc) : NULL;
    }
    engine_leave(engine);
    return answer;
}

/* Only where a worker may be killed and another takes its place. -1: exception set. */
static int check_force(PyObject *self)
{
    if (!is_taskless(self) && handle_of(self)->engine->replaces) {
        return 0;
    }
    PyErr_SetString(PyExc_ValueError, "cancel(force=True) needs an executor with on_worker_death=\"replace\"");
    return -1;
}

static PyObject *future_cancel(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"force", NULL};
    int force = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$p:cancel", names, &force)) {
        return NULL;
    }
    if (force && check_force(self) < 0) {
        return NULL;
    }
    if (is_taskless(self)) {
        return call_base(self, "cancel", NULL, NULL);
    }
    if (has_ended(self) || task_of(self) == NULL) {
        return PyBool_FromLong(was_cancelled(self));
    }
    return cancel_task(self, force);
}

/* 0 or -1. A callback that comes after the end is called at once. */
static int add_done_callback(PyObject *self, PyObject *callback)
{
    struct future *f = fields(self);
    int waits_for_telling = f->callbacks != NULL && !f->told;
    if (!waits_for_telling && !has_ended(self)) {
        PyObject *list = future_callbacks(self, NULL);
        Py_XDECREF(list);
        if (list == NULL) {
            return -1;
        }
        waits_for_telling = f->state == FOLLOWS; /* else it has ended just now */
    }
    return waits_for_telling ? PyList_Append(f->callbacks, callback) : run_callback(self, callback);
}

static PyObject *future_add_done_callback(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fn", NULL};
    PyObject *callback;
    if (is_taskless(self)) {
        return call_base(self, "add_done_callback", args, kwargs);
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:add_done_callback", names, &callback)) {
        return NULL;
    }
    return add_done_callback(self, callback) == 0 ? Py_NewRef(Py_None) : NULL;
}

/* The base class calls this when a future is ended by hand; the end of its task must not call them again. */
static PyObject *future_invoke_callbacks(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return run_callbacks(self, 1) == 0 ? Py_NewRef(Py_None) : NULL;
}

static PyObject *future_reduce(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    PyErr_SetString(PyExc_TypeError, "cannot pickle 'Future' object");
    return NULL;
}

/* ---- the type ---- */

/* In place of the base class's, which would fill in what comes into being when it is looked at. */
static int future_init(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    return PyArg_ParseTupleAndKeywords(args, kwargs, ":Future", names) ? 0 : -1;
}

#define SIGNATURE_TIMEOUT "($self, /, timeout=None)\n--\n\n"

static PyMethodDef future_methods[] = {
    {"result", (PyCFunction)(void (*)(void))future_result, METH_VARARGS | METH_KEYWORDS,
     "result" SIGNATURE_TIMEOUT
     "Return what the call returned, waiting up to timeout seconds for it (None: without limit).\n\n"
     "Raises what the call raised; TimeoutError; CancelledError if the future was cancelled;\n"
     "BrokenProcessPool if a worker died. Any thread may call it. As concurrent.futures.Future.result."},
    {"exception", (PyCFunction)(void (*)(void))future_exception, METH_VARARGS | METH_KEYWORDS,
     "exception" SIGNATURE_TIMEOUT
     "Return the exception that the call raised, or None, waiting up to timeout seconds.\n"
     "So it does for MemoryError and RecursionError that rebuilding the result raises at this moment.\n\n"
     "Raises TimeoutError, or CancelledError if the future was cancelled."},
    {"done", future_done, METH_NOARGS, "done($self, /)\n--\n\nTrue if the call has finished or was cancelled."},
    {"cancelled", future_cancelled, METH_NOARGS, "cancelled($self, /)\n--\n\nTrue if the call was cancelled."},
    {"running", future_running, METH_NOARGS,
     "running($self, /)\n--\n\nTrue while a worker executes the call, and only then."},
    {"cancel", (PyCFunction)(void (*)(void))future_cancel, METH_VARARGS | METH_KEYWORDS,
     "cancel($self, /, *, force=False)\n--\n\n"
     "Cancel the call if no worker has started it, and run the done-callbacks.\n\n"
     "force: Stop a call that runs, too, by killing its worker, and wait for the end of that process. Another worker\n"
     "takes its place; no other call is disturbed. The call is not run again, whatever its retries.\n\n"
     "Returns True if it is cancelled, False if it runs or has finished. Any thread may call it, also a "
     "done-callback.\n"
     "Raises ValueError: force, and the executor is none with on_worker_death=\"replace\"."},
    {"add_done_callback", (PyCFunction)(void (*)(void))future_add_done_callback, METH_VARARGS | METH_KEYWORDS,
     "add_done_callback($self, /, fn)\n--\n\n"
     "Call fn(future) when the call has finished or was cancelled; at once if it has.\n\n"
     "Callbacks run in the order in which they were added, in a thread of this process. An exception that one raises\n"
     "is logged. The task counts as outstanding until they have run; a callback may submit, also to a full pool."},
    {"__reduce__", future_reduce, METH_NOARGS, "__reduce__($self, /)\n--\n\nRaises TypeError: a future stays at home."},
    {"_invoke_callbacks", future_invoke_callbacks, METH_NOARGS,
     "_invoke_callbacks($self, /)\n--\n\nRun the done-callbacks, once."},
    {NULL},
};

/* Writable and of type T_OBJECT_EX: only such members are cleared and visited by the base's dealloc and traverse. */
static PyMemberDef future_members[] = {
    {"_own_handle", T_OBJECT_EX, offsetof(struct future, handle), 0, NULL},
    {"_own_memory", T_OBJECT_EX, offsetof(struct future, memory), 0, NULL},
    {"_own_result", T_OBJECT_EX, offsetof(struct future, result), 0, NULL},
    {"_own_exception", T_OBJECT_EX, offsetof(struct future, exception), 0, NULL},
    {"_own_condition", T_OBJECT_EX, offsetof(struct future, condition), 0, NULL},
    {"_own_waiters", T_OBJECT_EX, offsetof(struct future, waiters), 0, NULL},
    {"_own_callbacks", T_OBJECT_EX, offsetof(struct future, callbacks), 0, NULL},
    {NULL},
};

static PyType_Slot future_slots[] = {
    {Py_tp_methods, future_methods},
    {Py_tp_getset, future_getset},
    {Py_tp_members, future_members},
    {Py_tp_init, future_init},
    {Py_tp_setattro, future_setattr},
    {Py_tp_doc, "Future()\n--\n\nThe result of a call that a worker process executes: a concurrent.futures.Future.\n\n"
                "One that is made by hand has no call, and is ended by hand: see concurrent.futures.Future."},
    {0, NULL},
};

PyType_Spec future_spec = {
    .name = "weirpool._core.Future",
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = future_slots,
};

PyObject *make_future_type(PyObject *module, PyObject *base)
{
    Py_ssize_t size = ((PyTypeObject *)base)->tp_basicsize;
    if (future_fields_at == 0) {
        future_fields_at = size;
        for (PyMemberDef *member = future_members; member->name != NULL; member++) {
            member->offset += future_fields_at;
        }
    }
    future_spec.basicsize = (int)(future_fields_at + (Py_ssize_t)sizeof(struct future));
    return PyType_FromModuleAndSpec(module, &future_spec, base);
}
