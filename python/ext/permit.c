/*
 * A permit of the gate alone is an object: it returns when its task has ended, when its submission fails, and at the
 * latest when nobody refers to it any more. So an exception that a signal handler raises between any two steps of a
 * submission cannot lose it.
 */
#include "future.h"
#include "gate.h"

typedef struct {
    PyObject_HEAD
    Permit *permit;
    PyObject *fn;
} Starter;

/* ---- Permit ---- */

Permit *permit_new(Gate *gate)
{
    Permit *permit = PyObject_New(Permit, state_of((PyObject *)gate)->permit_type);
    if (permit != NULL) {
        permit->gate = (Gate *)Py_NewRef(gate);
        permit->standing = RETURNED;
    }
    return permit;
}

static void return_permit(Permit *permit)
{
    if (permit->standing != RETURNED) {
        bool started = permit->standing == STARTED;
        permit->standing = RETURNED;
        (void)weirpool_gate_return(permit->gate->gate, started); /* in a forked child it is the parent's */
    }
}

static void permit_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    return_permit((Permit *)self);
    Py_DECREF(((Permit *)self)->gate);
    type->tp_free(self);
    Py_DECREF(type);
}

static void start(Permit *permit)
{
    if (permit->standing == HELD) {
        permit->standing = STARTED;
        (void)weirpool_gate_start(permit->gate->gate);
    }
}

static PyObject *permit_start(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    start((Permit *)self);
    Py_RETURN_NONE;
}

static PyObject *permit_give_back(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return_permit((Permit *)self);
    Py_RETURN_NONE;
}

static PyObject *permit_starting(PyObject *self, PyObject *fn)
{
    Starter *starter = PyObject_GC_New(Starter, state_of(self)->starter_type);
    if (starter != NULL) {
        starter->permit = (Permit *)Py_NewRef(self);
        starter->fn = Py_NewRef(fn);
        PyObject_GC_Track(starter);
    }
    return (PyObject *)starter;
}

/* One of the engine's, without decoding what it brought. */
static uint64_t *outcome_of_ours(Gate *gate, PyObject *future)
{
    if (was_cancelled(future)) {
        return &gate->cancelled;
    }
    struct weirpool_completion end = {.error = -ECANCELED};
    if (is_taken(future)) {
        weirpool_describe(task_of(future), &end);
    }
    return end.error == 0 && end.status == 0 ? &gate->completed : &gate->failed;
}

/* Which of the gate's counters this future belongs to. NULL: exception set. */
static uint64_t *outcome_of(Gate *gate, PyObject *future)
{
    if (Py_IS_TYPE(future, state_of((PyObject *)gate)->future_type)) {
        return outcome_of_ours(gate, future);
    }
    PyObject *cancelled = PyObject_CallMethod(future, "cancelled", NULL);
    int yes = cancelled != NULL ? PyObject_IsTrue(cancelled) : -1;
    Py_XDECREF(cancelled);
    if (yes != 0) {
        return yes > 0 ? &gate->cancelled : NULL;
    }
    PyObject *error = PyObject_CallMethod(future, "exception", NULL);
    uint64_t *outcome = error == NULL ? NULL : error == Py_None ? &gate->completed : &gate->failed;
    Py_XDECREF(error);
    return outcome;
}

/* A done-callback: the task has ended. */
static PyObject *permit_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *future;
    if (!PyArg_ParseTuple(args, "O", &future) || (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0)) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "a permit takes its task's future");
    }
    Permit *permit = (Permit *)self;
    if (permit->standing != RETURNED) {
        return_permit(permit);
        uint64_t *outcome = outcome_of(permit->gate, future);
        if (outcome == NULL) {
            return NULL;
        }
        ++*outcome;
    }
    Py_RETURN_NONE;
}

static PyMethodDef permit_methods[] = {
    {"start", permit_start, METH_NOARGS, "start($self, /)\n--\n\nThe task was started."},
    {"give_back", permit_give_back, METH_NOARGS,
     "give_back($self, /)\n--\n\nThe task was not submitted. Harmless after the permit's return."},
    {"starting", permit_starting, METH_O,
     "starting($self, fn, /)\n--\n\nReturn a callable that says start() and calls fn, without a frame of its own."},
    {NULL},
};

static PyType_Slot permit_slots[] = {
    {Py_tp_dealloc, permit_dealloc},
    {Py_tp_call, permit_call},
    {Py_tp_methods, permit_methods},
    {Py_tp_doc, "The right of one task to be outstanding. Called with the task's future it returns, and counts."},
    {0, NULL},
};

PyType_Spec permit_spec = {
    .name = "weirpool._core.Permit",
    .basicsize = sizeof(Permit),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = permit_slots,
};

/* ---- Starter ---- */

static PyObject *starter_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    Starter *starter = (Starter *)self;
    start(starter->permit);
    return PyObject_Call(starter->fn, args, kwargs);
}

static int starter_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Starter *)self)->fn);
    return 0;
}

static int starter_clear(PyObject *self)
{
    Py_CLEAR(((Starter *)self)->fn);
    return 0;
}

static void starter_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)starter_clear(self);
    Py_DECREF(((Starter *)self)->permit);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot starter_slots[] = {
    {Py_tp_dealloc, starter_dealloc},
    {Py_tp_call, starter_call},
    {Py_tp_traverse, starter_traverse},
    {Py_tp_clear, starter_clear},
    {0, NULL},
};

PyType_Spec starter_spec = {
    .name = "weirpool._core.Starter",
    .basicsize = sizeof(Starter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = starter_slots,
};
