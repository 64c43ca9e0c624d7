/*
 * A future's own fields, for the files that share the work: future.c (the type, and what users call), standing.c (its
 * state, and the privates that others look at), outcome.c (decoding) and tell.c (announcing the end, callbacks).
 */
#ifndef WEIRPOOL_EXT_FUTURE_H
#define WEIRPOOL_EXT_FUTURE_H

#include "ext.h"

#include <sys/types.h>

struct future {
    PyObject *handle;
    PyObject *result;
    PyObject *exception;
    PyObject *condition;
    PyObject *waiters;
    PyObject *callbacks;
    PyObject *memory; /* of a large result, taken over from the task while it is decoded; else NULL */
    unsigned long decoder; /* the thread that decodes at this moment */
    pid_t decoder_process; /* and its process: in a fork nobody else decodes */
    int decoding; /* how deep: a thread may ask for a result from within its own decoding; 0: nobody decodes */
    unsigned char state;
    unsigned char told;
    unsigned char decoded;
};

/* Where they lie in an instance: behind those of the base class, whose size differs between versions. */
extern Py_ssize_t future_fields_at;

static inline struct future *fields(PyObject *self)
{
    return (struct future *)(void *)((char *)self + future_fields_at);
}

static inline Handle *handle_of(PyObject *self)
{
    return (Handle *)fields(self)->handle;
}

static inline weirpool_task *task_of(PyObject *self)
{
    Handle *handle = handle_of(self);
    return handle != NULL ? handle->task : NULL;
}

static inline weirpool *pool_of(PyObject *self)
{
    return handle_of(self)->engine->pool;
}

/* ---- standing.c ---- */

enum future_state current_state(PyObject *self);

/* Has it ended, whoever has been told? */
int has_ended(PyObject *self);
int was_cancelled(PyObject *self);

/* The list of done-callbacks; made when it is first asked for, and then its task holds its permit until it is told. */
PyObject *future_callbacks(PyObject *self, void *closure);

extern PyGetSetDef future_getset[];

/*
 * From now on it may be part of a cycle. A future that nobody has looked into cannot be, and most are never: the garbage
 * collector need not go through a million of them.
 */
void future_track(PyObject *self);
int future_setattr(PyObject *self, PyObject *name, PyObject *value);

/* Has its task been taken, whoever has been told? */
int is_taken(PyObject *self);

/* Ends FOLLOWS: the task is taken. */
void resolve(PyObject *self);

/* ---- condition.c ---- */

PyObject *condition_new(struct state *state, PyObject *future);

/* The future's own, a new reference; NULL (without an exception) if there is none. */
PyObject *condition_of(PyObject *future);

/* With the future's end announced if there is one. -1: a signal handler raised, and it is not acquired. */
int condition_acquire(PyObject *condition);
void condition_release(PyObject *condition);
int condition_notify_all(PyObject *condition);

/* ---- outcome.c ---- */

/* Decodes, once, in the thread that asks: the outcome lies in `result` or `exception` afterwards. -1: exception set. */
int ensure_decoded(PyObject *self, int64_t deadline);

/* ---- tell.c ---- */

/* Whoever has acquired the condition calls this: he finds the end announced, although its teller may wait for him. */
void future_catch_up(PyObject *self);

/* The condition, if there is one, is held: makes the end of the task the future's, and tells its waiters. */
void resolve_and_notify(PyObject *self);

/* Calls one callback. An Exception is logged. Anything else, Ctrl-C for one, is passed on: -1. */
int run_callback(PyObject *self, PyObject *callback);

/*
 * Calls all of them, once. Where nobody is there to whom it could be passed on (`pass_on` is 0), anything that a
 * callback raises is logged; otherwise as above.
 */
int run_callbacks(PyObject *self, int pass_on);

/* Takes the task back, under the condition if there is one. 0, -errno, or 1 with an exception set. */
int withdraw(PyObject *self);

/* Ends the task also if it runs. As withdraw(), or -EALREADY; it waits for the end of a process, without the condition. */
int stop(PyObject *self);

/* After withdraw() or stop() returned 0. -1: a callback raised what is no Exception. */
int tell_cancelled(PyObject *self);

#endif
