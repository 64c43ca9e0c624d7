/*
 * Where a future stands, and the privates that the base class and libraries look at.
 *
 * Its state follows the task while it is FOLLOWS. Where a condition exists, the state changes only when somebody
 * acquires it (announce, condition.c), because wait() counts states twice under it; done() and result() look at
 * the task itself and need not wait for that.
 */
#include "future.h"

/* ---- the state ---- */

int is_taken(PyObject *self)
{
    weirpool_task *task = task_of(self);
    return task != NULL && weirpool_phase(pool_of(self), task) == WEIRPOOL_TAKEN;
}

void resolve(PyObject *self)
{
    struct future *f = fields(self);
    if (f->state == FOLLOWS) {
        struct weirpool_completion end;
        weirpool_describe(task_of(self), &end);
        f->state = end.error == -ECANCELED ? CANCELLED : FINISHED;
    }
}

enum future_state current_state(PyObject *self)
{
    struct future *f = fields(self);
    if (f->state != FOLLOWS || task_of(self) == NULL) {
        return f->state != FOLLOWS ? f->state : PENDING;
    }
    enum weirpool_phase phase = weirpool_phase(pool_of(self), task_of(self));
    if (phase == WEIRPOOL_TAKEN && f->condition == NULL) {
        resolve(self);
        return f->state;
    }
    return phase == WEIRPOOL_WAITING ? PENDING : RUNNING;
}

int has_ended(PyObject *self)
{
    enum future_state state = fields(self)->state;
    return state == FOLLOWS ? is_taken(self) : state != PENDING && state != RUNNING;
}

int was_cancelled(PyObject *self)
{
    struct future *f = fields(self);
    if (f->state == FOLLOWS && is_taken(self)) {
        struct weirpool_completion end;
        weirpool_describe(task_of(self), &end);
        return end.error == -ECANCELED;
    }
    return f->state == CANCELLED || f->state == UNNOTIFIED;
}

static PyObject *get_state(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(state_of(self)->state_names[current_state(self)]);
}

/* By hand a future can be ended. Otherwise one that has a task follows it. */
static void set_state_to(PyObject *self, enum future_state state)
{
    struct future *f = fields(self);
    if (f->handle == NULL) {
        f->state = state;
    } else if (state == FINISHED || state == CANCELLED || state == UNNOTIFIED) {
        f->state = state == FINISHED ? FINISHED : CANCELLED;
    }
}

static int set_state(PyObject *self, PyObject *name, void *Py_UNUSED(closure))
{
    PyObject *const *names = state_of(self)->state_names;
    for (enum future_state state = PENDING; name != NULL && state < FOLLOWS; state++) {
        int same = PyObject_RichCompareBool(name, names[state], Py_EQ);
        if (same > 0) {
            set_state_to(self, state);
        }
        if (same != 0) {
            return same > 0 ? 0 : -1;
        }
    }
    PyErr_SetString(PyExc_ValueError, "_state must be one of the states of concurrent.futures");
    return -1;
}

/* ---- garbage ---- */

void future_track(PyObject *self)
{
    if (!PyObject_GC_IsTracked(self)) {
        PyObject_GC_Track(self);
    }
}

int future_setattr(PyObject *self, PyObject *name, PyObject *value)
{
    future_track(self);
    return PyObject_GenericSetAttr(self, name, value);
}

static PyObject *get_dict(PyObject *self, void *context)
{
    future_track(self);
    return PyObject_GenericGetDict(self, context);
}

static int set_dict(PyObject *self, PyObject *value, void *context)
{
    future_track(self);
    return PyObject_GenericSetDict(self, value, context);
}

/* ---- what the base class finds when it looks ---- */

/* Declares interest in the task's end. Where it came too late the future is resolved. */
static void declare(PyObject *self, unsigned interest)
{
    weirpool_task *task = task_of(self);
    if (fields(self)->state == FOLLOWS && task != NULL && !weirpool_interest(task, interest)) {
        resolve(self);
    }
}

static PyObject *get_condition(PyObject *self, void *Py_UNUSED(closure))
{
    struct future *f = fields(self);
    if (f->condition == NULL) {
        PyObject *condition = condition_new(state_of(self), self);
        if (condition == NULL) {
            return NULL;
        }
        if (f->condition != NULL) { /* made by another thread meanwhile */
            Py_DECREF(condition);
        } else {
            declare(self, WEIRPOOL_WATCHED);
            f->condition = condition;
            future_track(self);
        }
    }
    return Py_NewRef(f->condition);
}

/* Making a list may run other code, which may have made it meanwhile. */
static PyObject *get_list(PyObject *self, PyObject **field, int *made)
{
    future_track(self);
    PyObject *list = *field == NULL ? PyList_New(0) : NULL;
    *made = list != NULL && *field == NULL;
    if (*made) {
        *field = Py_NewRef(list);
    }
    Py_XDECREF(list);
    return Py_XNewRef(*field);
}

static PyObject *get_waiters(PyObject *self, void *Py_UNUSED(closure))
{
    int made;
    return get_list(self, &fields(self)->waiters, &made);
}

PyObject *future_callbacks(PyObject *self, void *Py_UNUSED(closure))
{
    int made;
    PyObject *list = get_list(self, &fields(self)->callbacks, &made);
    if (made) {
        declare(self, WEIRPOOL_HOLDS);
    }
    return list;
}

static PyObject *get_outcome(PyObject *self, PyObject **field)
{
    if (has_ended(self) && ensure_decoded(self, WEIRPOOL_FOREVER) < 0) {
        return NULL;
    }
    return Py_NewRef(*field != NULL ? *field : Py_None);
}

static PyObject *get_result(PyObject *self, void *Py_UNUSED(closure))
{
    return get_outcome(self, &fields(self)->result);
}

static PyObject *get_exception(PyObject *self, void *Py_UNUSED(closure))
{
    return get_outcome(self, &fields(self)->exception);
}

static int set_outcome(PyObject *self, PyObject **field, PyObject *value)
{
    fields(self)->decoded = 1;
    future_track(self);
    Py_XSETREF(*field, value == Py_None ? NULL : Py_XNewRef(value));
    return 0;
}

static int set_result(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    return set_outcome(self, &fields(self)->result, value);
}

static int set_exception(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    return set_outcome(self, &fields(self)->exception, value);
}

PyGetSetDef future_getset[] = {
    {"_state", get_state, set_state, NULL, NULL},
    {"_result", get_result, set_result, NULL, NULL},
    {"_exception", get_exception, set_exception, NULL, NULL},
    {"_condition", get_condition, NULL, NULL, NULL},
    {"_waiters", get_waiters, NULL, NULL, NULL},
    {"_done_callbacks", future_callbacks, NULL, NULL, NULL},
    {"__dict__", get_dict, set_dict, NULL, NULL},
    {NULL},
};
