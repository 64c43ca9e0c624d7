/* The gate alone, for executors that are not the engine's: who is admitted, and who stands in line. */
#include "gate.h"

#include <errno.h>

typedef struct {
    PyObject_HEAD
    Gate *gate;
    weirpool_ticket *ticket; /* NULL: it has ended */
} Place;

/* ---- Place ---- */

/* What came of the place: a permit, None, or an exception. `permit` is used up. */
static PyObject *end_place(Place *place, int rc, bool admitted, Permit *permit)
{
    bool ended = rc != -EAGAIN && rc != -ECHILD;
    if (ended) {
        place->ticket = NULL;
    }
    if (admitted) {
        permit->standing = HELD;
        return (PyObject *)permit;
    }
    Py_DECREF(permit);
    return rc == 0 || rc == -EAGAIN ? Py_NewRef(Py_None) : raise_error(state_of((PyObject *)place), rc);
}

static PyObject *ask_place(PyObject *self, bool leaves)
{
    Place *place = (Place *)self;
    if (place->ticket == NULL) {
        Py_RETURN_NONE;
    }
    Permit *permit = permit_new(place->gate);
    if (permit == NULL) {
        return NULL;
    }
    weirpool_gate *gate = place->gate->gate;
    int rc = leaves ? weirpool_gate_leave(gate, place->ticket) : weirpool_gate_await(gate, place->ticket, WEIRPOOL_NOW);
    return end_place(place, rc, rc == (leaves ? 1 : 0), permit);
}

static PyObject *place_poll(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return ask_place(self, false);
}

static PyObject *place_leave(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return ask_place(self, true);
}

static void place_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Place *place = (Place *)self;
    if (place->ticket != NULL && weirpool_gate_leave(place->gate->gate, place->ticket) == 1) {
        (void)weirpool_gate_return(place->gate->gate, false);
    }
    Py_DECREF(place->gate);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef place_methods[] = {
    {"poll", place_poll, METH_NOARGS,
     "poll($self, /)\n--\n\nReturn a Permit if the turn has come, else None. RuntimeError: it never will."},
    {"leave", place_leave, METH_NOARGS,
     "leave($self, /)\n--\n\nGive the place up; return a Permit if the turn had come. RuntimeError: as poll()."},
    {NULL},
};

static PyType_Slot place_slots[] = {
    {Py_tp_dealloc, place_dealloc},
    {Py_tp_methods, place_methods},
    {Py_tp_doc, "A place in the line at a gate, for who does not wait there. It is left when nobody refers to it."},
    {0, NULL},
};

PyType_Spec place_spec = {
    .name = "weirpool._core.Place",
    .basicsize = sizeof(Place),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = place_slots,
};

/* ---- Gate ---- */

static PyObject *gate_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"tasks", "unstarted", NULL};
    unsigned long long tasks, unstarted;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KK:Gate", names, &tasks, &unstarted)) {
        return NULL;
    }
    Gate *self = (Gate *)type->tp_alloc(type, 0);
    int rc = self != NULL ? weirpool_gate_open(&self->gate, tasks, unstarted) : 0;
    if (rc != 0) {
        raise_error(state_of((PyObject *)self), rc);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void gate_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (((Gate *)self)->gate != NULL) {
        (void)weirpool_gate_close(((Gate *)self)->gate); /* in a forked child it stays */
    }
    type->tp_free(self);
    Py_DECREF(type);
}

/* Waits for a ticket's turn, and for signals meanwhile: -EINTR means that one raised, and that the place is kept. */
static int await_turn(weirpool_gate *gate, weirpool_ticket *ticket, int64_t deadline)
{
    for (;;) {
        int64_t slice = wait_slice(deadline);
        int rc;
        Py_BEGIN_ALLOW_THREADS
        rc = weirpool_gate_await(gate, ticket, slice);
        Py_END_ALLOW_THREADS
        if (!is_early(rc, deadline)) {
            return rc;
        }
        if (PyErr_CheckSignals() < 0) {
            return -EINTR;
        }
    }
}

/* 0: admitted. -EINTR: an exception is set, and nothing is held. */
static int wait_in_line(weirpool_gate *gate, int64_t deadline)
{
    weirpool_ticket *ticket;
    int rc = weirpool_gate_queue(gate, 0, &ticket);
    if (rc == 0) {
        rc = await_turn(gate, ticket, deadline);
    }
    if (rc != -EINTR && rc != -ETIMEDOUT && rc != -EAGAIN) {
        return rc;
    }
    int left = weirpool_gate_leave(gate, ticket);
    if (rc == -EINTR) {
        if (left == 1) {
            (void)weirpool_gate_return(gate, false);
        }
        return rc;
    }
    return left == 0 ? rc : left == 1 ? 0 : left;
}

/* There is no room: over the bound if the caller must not wait, else as long as its patience lasts. */
static int admit_when_full(weirpool_gate *gate, PyObject *must_not_wait, PyObject *patience)
{
    PyObject *must_not = PyObject_CallNoArgs(must_not_wait);
    int over = must_not != NULL ? PyObject_IsTrue(must_not) : -1;
    int64_t deadline;
    Py_XDECREF(must_not);
    if (over < 0 || parse_timeout(patience, &deadline) < 0) {
        return -EINTR;
    }
    if (over) {
        return weirpool_gate_admit(gate, WEIRPOOL_OVER_BOUND, WEIRPOOL_NOW);
    }
    return deadline == WEIRPOOL_NOW ? -EAGAIN : wait_in_line(gate, deadline);
}

static PyObject *gate_admit(PyObject *self, PyObject *args)
{
    PyObject *must_not_wait, *patience;
    if (!PyArg_ParseTuple(args, "OO:admit", &must_not_wait, &patience)) {
        return NULL;
    }
    Gate *gate = (Gate *)self;
    Permit *permit = permit_new(gate); /* first: nothing can fail once there is a permit to lose */
    if (permit == NULL) {
        return NULL;
    }
    int rc = weirpool_gate_admit(gate->gate, WEIRPOOL_IN_BOUND, WEIRPOOL_NOW);
    if (rc == -EAGAIN) {
        rc = admit_when_full(gate->gate, must_not_wait, patience);
    }
    if (rc == 0) {
        permit->standing = HELD;
        return (PyObject *)permit;
    }
    Py_DECREF(permit);
    if (rc == -EAGAIN || rc == -ETIMEDOUT) {
        gate->rejected++;
        Py_RETURN_NONE;
    }
    return rc == -EINTR ? NULL : raise_error(state_of(self), rc);
}

static PyObject *gate_queue(PyObject *self, PyObject *bell)
{
    int fd = PyObject_AsFileDescriptor(bell);
    Place *place = fd >= 0 ? PyObject_New(Place, state_of(self)->place_type) : NULL;
    if (place == NULL) {
        return NULL;
    }
    place->gate = (Gate *)Py_NewRef(self);
    place->ticket = NULL;
    int rc = weirpool_gate_queue(place->gate->gate, fd, &place->ticket);
    if (rc != 0) {
        raise_error(state_of(self), rc);
        Py_CLEAR(place);
    }
    return (PyObject *)place;
}

static PyObject *gate_shut(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    int rc = weirpool_gate_shut(((Gate *)self)->gate);
    return rc == 0 ? Py_NewRef(Py_None) : raise_error(state_of(self), rc);
}

static PyObject *gate_stats(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const Gate *gate = (Gate *)self;
    struct weirpool_stats s;
    int rc = weirpool_gate_stats(gate->gate, &s);
    if (rc != 0) {
        return raise_error(state_of(self), rc);
    }
    uint64_t finished = gate->completed + gate->failed + gate->cancelled;
    return Py_BuildValue("{sK sK sK sK sK sK sK sd sK sK sK sK sK sK}", "bound", s.bound, "outstanding", s.outstanding,
                         "waiting", s.waiting, "running", s.running, "peak_outstanding", s.peak_outstanding,
                         "admitted_over_bound", s.admitted_over_bound, "blocked_producers", s.blocked_producers,
                         "blocked_seconds", (double)s.blocked_ns / 1e9, "submitted", finished + s.outstanding,
                         "finished", finished, "completed", gate->completed, "failed", gate->failed, "cancelled",
                         gate->cancelled, "rejected", gate->rejected);
}

static PyMethodDef gate_methods[] = {
    {"admit", gate_admit, METH_VARARGS,
     "admit($self, must_not_wait, patience, /)\n--\n\n"
     "Return a Permit, or None if there was no room within `patience` seconds (None: without end; -1: at once).\n\n"
     "If there is none, must_not_wait() says whether the caller is admitted over the bound.\n"
     "RuntimeError: the gate is shut, or this is a forked child."},
    {"queue", gate_queue, METH_O,
     "queue($self, bell, /)\n--\n\nTake a place in line. `bell`, an eventfd, is rung when its turn has come or never "
     "will."},
    {"shut", gate_shut, METH_NOARGS, "shut($self, /)\n--\n\nAdmit nobody any more, and wake those who wait."},
    {"stats", gate_stats, METH_NOARGS, "stats($self, /)\n--\n\nReturn the fields of Stats that a gate knows."},
    {NULL},
};

static PyType_Slot gate_slots[] = {
    {Py_tp_new, gate_new},
    {Py_tp_dealloc, gate_dealloc},
    {Py_tp_methods, gate_methods},
    {Py_tp_doc, "Gate(tasks, unstarted)\n--\n\nHands out permits, first come first served; 0: no such bound."},
    {0, NULL},
};

PyType_Spec gate_spec = {
    .name = "weirpool._core.Gate",
    .basicsize = sizeof(Gate),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = gate_slots,
};
