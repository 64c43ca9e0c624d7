/* Submitting: what submit.c, whose calls wait, and ticket.c, whose calls do not, share. */
#ifndef WEIRPOOL_EXT_SUBMIT_H
#define WEIRPOOL_EXT_SUBMIT_H

#include "ext.h"

/* What with_options() says of a call. */
struct task_options {
    uint64_t limit_ns; /* how long one attempt may run; 0: no limit */
    uint32_t retries;
};

/* From arguments that may be missing. -1: exception set. */
int parse_options(PyObject *const *args, Py_ssize_t count, struct task_options *options);

/* One call to submit. */
struct submission {
    Engine *engine;
    const struct call *call;
    PyObject *future;
    struct task_options options;
    enum weirpool_admission admission;
    int64_t deadline; /* of all its waits together; WEIRPOOL_NOW: it is refused where it would have to wait */
};

/* How the calling thread is admitted: over the bound within a callback or while something is pickled. */
enum weirpool_admission own_admission(void);

/* There is no room, and the executor does not wait, or not for longer. Returns -1. */
int refuse(Engine *engine);

/* Asks for a permit, and brings the worker that is wanted then. 0: there is one. 1: wait in line. -1: exception set. */
int admit(const struct submission *s);

/*
 * With a permit: pickles, weighs, publishes. 0: it is submitted, or cannot be pickled and its future has failed. -1:
 * exception set. In both cases the permit is used up or has returned. 1: the permit is kept, there is no room for the
 * bytes, and the caller clears `encoded`.
 */
int submit_permitted(const struct submission *s, struct encoded *encoded);

/* A pickled task, as the core wants it; it refers to `encoded`. */
struct weirpool_request request_for(const struct submission *s, const struct encoded *encoded);

/* With a permit and `size` bytes: pickles (again) and publishes. As above, and never 1. */
int submit_weighed(const struct submission *s, size_t size);

/* The exception that is set becomes the future's: a task that cannot be pickled fails, its submission does not. */
int fail_with_current(struct state *state, PyObject *future);

/* While a task is in flight its future is kept alive; future_tell() or tell_cancelled() ends the flight. */
void begin_flight(PyObject *future);
void undo_flight(PyObject *future);

/*
 * Where more than their number bounds the tasks, those that had to wait may be the first that a worker is missing for.
 * -1: exception set. A task that is published already has a future, which tells of a pool that cannot run it: then a
 * worker that could not be started is no error of its submission. An interrupt is.
 */
int start_worker_after_wait(Engine *engine, bool published);

#endif
