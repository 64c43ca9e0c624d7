/*
 * The condition of one future: a re-entrant lock that one can wait on, with the methods of threading.Condition.
 *
 * Whoever acquires it finds the future's end announced, if its task has one: the collector, which announces it
 * otherwise, may be in a callback that looks at this very future. While it is held the state does not change, which
 * wait() and as_completed() rely on. They make one for each future, so it is made in C; only who waits on it gets a
 * threading.Condition, over this as its lock.
 */
#include "future.h"

#include <stddef.h>
#include <structmember.h>

typedef struct {
    PyObject_HEAD
    PyObject *future; /* a weak reference */
    PyObject *queue;  /* a threading.Condition over this lock; NULL until somebody waits */
    PyThread_type_lock lock;
    unsigned long owner;
    unsigned depth; /* 0: nobody has it */
    PyObject *weak_references;
} Condition;

PyObject *condition_new(struct state *state, PyObject *future)
{
    Condition *self = PyObject_GC_New(Condition, state->condition_type);
    if (self == NULL) {
        return NULL;
    }
    self->queue = NULL;
    self->owner = 0;
    self->depth = 0;
    self->weak_references = NULL;
    self->lock = PyThread_allocate_lock();
    self->future = PyWeakref_NewRef(future, NULL);
    PyObject_GC_Track((PyObject *)self);
    if (self->future == NULL || self->lock == NULL) {
        if (self->future != NULL) {
            PyErr_NoMemory();
        }
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

PyObject *condition_of(PyObject *future)
{
    PyObject *condition = fields(future)->condition;
    int is_own = condition != NULL && Py_IS_TYPE(condition, state_of(future)->condition_type);
    return is_own ? Py_NewRef(condition) : NULL;
}

static int condition_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Condition *)self)->queue);
    return 0;
}

static int condition_clear(PyObject *self)
{
    Py_CLEAR(((Condition *)self)->queue);
    return 0;
}

static void condition_dealloc(PyObject *self)
{
    Condition *condition = (Condition *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    PyObject_ClearWeakRefs(self);
    Py_CLEAR(condition->queue);
    Py_CLEAR(condition->future);
    if (condition->lock != NULL) {
        PyThread_free_lock(condition->lock);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- the lock ---- */

static int is_owned(const Condition *self)
{
    return self->depth > 0 && self->owner == PyThread_get_thread_ident();
}

/* A new reference, or NULL. */
static PyObject *weak_target(PyObject *reference)
{
#if PY_VERSION_HEX >= 0x030d0000
    PyObject *target;
    return PyWeakref_GetRef(reference, &target) == 1 ? target : NULL;
#else
    PyObject *target = PyWeakref_GetObject(reference);
    return target != Py_None ? Py_XNewRef(target) : NULL;
#endif
}

static void catch_up(Condition *self)
{
    PyObject *future = weak_target(self->future);
    if (future != NULL) {
        future_catch_up(future);
        Py_DECREF(future);
    }
}

static void take_over(Condition *self, unsigned depth)
{
    self->owner = PyThread_get_thread_ident();
    self->depth = depth;
    catch_up(self);
}

/* 1: acquired. 0: not by the deadline. -1: exception set. */
static int wait_for_lock(Condition *self, int64_t deadline)
{
    PyLockStatus status = PyThread_acquire_lock_timed(self->lock, 0, 0);
    while (status != PY_LOCK_ACQUIRED) {
        int64_t left = deadline == WEIRPOOL_FOREVER ? -1 : (deadline - weirpool_deadline(0)) / 1000;
        if (deadline != WEIRPOOL_FOREVER && left <= 0) {
            return 0;
        }
        Py_BEGIN_ALLOW_THREADS
        status = PyThread_acquire_lock_timed(self->lock, left, 1);
        Py_END_ALLOW_THREADS
        if (status == PY_LOCK_INTR && PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return 1;
}

static int acquire(Condition *self, int64_t deadline)
{
    int rc = 1;
    if (!is_owned(self)) {
        rc = wait_for_lock(self, deadline);
        if (rc == 1) {
            take_over(self, 1);
        }
    } else {
        self->depth++;
    }
    return rc;
}

int condition_acquire(PyObject *self)
{
    return acquire((Condition *)self, WEIRPOOL_FOREVER) == 1 ? 0 : -1;
}

static void give_back(Condition *self)
{
    self->depth = 0;
    PyThread_release_lock(self->lock);
}

void condition_release(PyObject *self)
{
    Condition *condition = (Condition *)self;
    if (condition->depth == 1) {
        give_back(condition);
    } else {
        condition->depth--;
    }
}

/* ---- methods ---- */

static int check_owned(PyObject *self, const char *what)
{
    if (!is_owned((Condition *)self)) {
        PyErr_Format(PyExc_RuntimeError, "cannot %s un-acquired lock", what);
        return -1;
    }
    return 0;
}

static PyObject *method_acquire(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"blocking", "timeout", NULL};
    int blocking = 1;
    double timeout = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|pd:acquire", names, &blocking, &timeout)) {
        return NULL;
    }
    if (timeout != -1 && (!blocking || timeout < 0)) {
        PyErr_SetString(PyExc_ValueError, blocking ? "timeout value must be a non-negative number"
                                                   : "can't specify a timeout for a non-blocking call");
        return NULL;
    }
    int64_t deadline = WEIRPOOL_FOREVER;
    if (!blocking) {
        deadline = WEIRPOOL_NOW;
    } else if (timeout >= 0 && timeout < 1e9) {
        deadline = weirpool_deadline((int64_t)(timeout * 1e9));
    }
    int rc = acquire((Condition *)self, deadline);
    return rc >= 0 ? PyBool_FromLong(rc) : NULL;
}

static PyObject *method_release(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (check_owned(self, "release") < 0) {
        return NULL;
    }
    condition_release(self);
    Py_RETURN_NONE;
}

static PyObject *method_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return condition_acquire(self) == 0 ? Py_NewRef(Py_True) : NULL;
}

static PyObject *method_exit(PyObject *self, PyObject *Py_UNUSED(args))
{
    return method_release(self, NULL);
}

static PyObject *method_is_owned(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(is_owned((Condition *)self));
}

static PyObject *method_locked(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((Condition *)self)->depth > 0);
}

/* What threading.Condition does with its lock around a wait. */
static PyObject *method_release_save(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (check_owned(self, "release") < 0) {
        return NULL;
    }
    PyObject *depth = PyLong_FromUnsignedLong(((Condition *)self)->depth);
    if (depth != NULL) {
        give_back((Condition *)self);
    }
    return depth;
}

/* Ctrl-C does not keep it from being acquired: wait() returns with the lock, whatever happened. */
static PyObject *method_acquire_restore(PyObject *self, PyObject *depth)
{
    Condition *condition = (Condition *)self;
    unsigned long value = PyLong_AsUnsignedLong(depth);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (PyThread_acquire_lock_timed(condition->lock, 0, 0) != PY_LOCK_ACQUIRED) {
        Py_BEGIN_ALLOW_THREADS
        PyThread_acquire_lock(condition->lock, WAIT_LOCK);
        Py_END_ALLOW_THREADS
    }
    take_over(condition, value > 0 ? (unsigned)value : 1);
    Py_RETURN_NONE;
}

/* ---- waiting ---- */

static PyObject *queue_of(PyObject *self)
{
    Condition *condition = (Condition *)self;
    if (condition->queue == NULL) {
        PyObject *queue = call_support(state_of(self), "make_condition", "(O)", self);
        if (queue == NULL) {
            return NULL;
        }
        Py_XSETREF(condition->queue, queue);
    }
    return condition->queue;
}

/* Whoever waits holds the lock, so that the queue is made once. */
static PyObject *call_queue(PyObject *self, const char *name, PyObject *args, PyObject *kwargs)
{
    if (check_owned(self, "wait on") < 0) {
        return NULL;
    }
    PyObject *queue = queue_of(self);
    PyObject *method = queue != NULL ? PyObject_GetAttrString(queue, name) : NULL;
    PyObject *result = method != NULL ? PyObject_Call(method, args, kwargs) : NULL;
    Py_XDECREF(method);
    return result;
}

static PyObject *method_wait(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return call_queue(self, "wait", args, kwargs);
}

static PyObject *method_wait_for(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return call_queue(self, "wait_for", args, kwargs);
}

static PyObject *notify(PyObject *self, const char *name, PyObject *args, PyObject *kwargs)
{
    if (check_owned(self, "notify on") < 0) {
        return NULL;
    }
    return ((Condition *)self)->queue != NULL ? call_queue(self, name, args, kwargs) : Py_NewRef(Py_None);
}

static PyObject *method_notify(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return notify(self, "notify", args, kwargs);
}

static PyObject *method_notify_all(PyObject *self, PyObject *args)
{
    return notify(self, "notify_all", args, NULL);
}

int condition_notify_all(PyObject *self)
{
    PyObject *queue = ((Condition *)self)->queue;
    PyObject *done = queue != NULL ? PyObject_CallMethod(queue, "notify_all", NULL) : Py_NewRef(Py_None);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

#define WITH_KEYWORDS(function) (PyCFunction)(void (*)(void))(function), METH_VARARGS | METH_KEYWORDS
#define DOC(signature) signature "\n--\n\nAs threading.Condition's."

static PyMethodDef condition_methods[] = {
    {"acquire", WITH_KEYWORDS(method_acquire), DOC("acquire($self, /, blocking=True, timeout=-1)")},
    {"release", method_release, METH_NOARGS, DOC("release($self, /)")},
    {"wait", WITH_KEYWORDS(method_wait), DOC("wait($self, /, timeout=None)")},
    {"wait_for", WITH_KEYWORDS(method_wait_for), DOC("wait_for($self, /, predicate, timeout=None)")},
    {"notify", WITH_KEYWORDS(method_notify), DOC("notify($self, /, n=1)")},
    {"notify_all", method_notify_all, METH_VARARGS, DOC("notify_all($self)")},
    {"__enter__", method_enter, METH_NOARGS, DOC("__enter__($self, /)")},
    {"__exit__", method_exit, METH_VARARGS, DOC("__exit__($self, /, *args)")},
    {"locked", method_locked, METH_NOARGS, DOC("locked($self, /)")},
    {"_is_owned", method_is_owned, METH_NOARGS, DOC("_is_owned($self, /)")},
    {"_release_save", method_release_save, METH_NOARGS, DOC("_release_save($self, /)")},
    {"_acquire_restore", method_acquire_restore, METH_O, DOC("_acquire_restore($self, depth, /)")},
    {NULL},
};

static PyMemberDef condition_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Condition, weak_references), READONLY, NULL},
    {NULL},
};

static PyType_Slot condition_slots[] = {
    {Py_tp_dealloc, condition_dealloc},
    {Py_tp_traverse, condition_traverse},
    {Py_tp_clear, condition_clear},
    {Py_tp_methods, condition_methods},
    {Py_tp_members, condition_members},
    {Py_tp_doc, "The condition of one future, as threading.Condition."},
    {0, NULL},
};

PyType_Spec condition_spec = {
    .name = "weirpool._core.Condition",
    .basicsize = sizeof(Condition),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = condition_slots,
};
