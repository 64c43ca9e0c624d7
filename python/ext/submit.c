/* Submitting: a permit, a worker if one is wanted, the pickle, the queue. */
#include "submit.h"

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

int is_delivering(void)
{
    return deliveries > 0;
}

enum weirpool_admission own_admission(void)
{
    return deliveries > 0 ? WEIRPOOL_OVER_BOUND : WEIRPOOL_IN_BOUND;
}

/* ---- threads that must not wait for the end of their pool ---- */

static _Thread_local const struct holding *innermost;

void begin_holding(struct holding *holding, const Engine *engine)
{
    *holding = (struct holding){.engine = engine, .outer = innermost};
    innermost = holding;
}

void end_holding(const struct holding *holding)
{
    innermost = holding->outer;
}

PyObject *engine_is_holding(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const struct holding *holding = innermost;
    while (holding != NULL && holding->engine != (const Engine *)self) {
        holding = holding->outer;
    }
    return PyBool_FromLong(holding != NULL);
}

/* ---- what is submitted ---- */

int parse_options(PyObject *const *args, Py_ssize_t count, struct task_options *options)
{
    *options = (struct task_options){.limit_ns = 0};
    if (count > 0) {
        options->limit_ns = PyLong_AsUnsignedLongLong(args[0]);
    }
    if (count > 1 && !PyErr_Occurred()) {
        options->retries = (uint32_t)PyLong_AsUnsignedLong(args[1]);
    }
    return PyErr_Occurred() ? -1 : 0;
}

struct weirpool_request request_for(const struct submission *s, const struct encoded *encoded)
{
    return (struct weirpool_request){
        .parts = encoded->parts,
        .count = encoded->count,
        .user = s->future,
        .limit_ns = s->options.limit_ns,
        .retries = s->options.retries,
    };
}

/* ---- waiting in line ---- */

int refuse(Engine *engine)
{
    struct state *state = state_of((PyObject *)engine);
    PyObject *seconds = engine->patience < 0 ? Py_NewRef(Py_None) : PyFloat_FromDouble((double)engine->patience / 1e9);
    PyObject *refusal = seconds != NULL ? call_support(state, "refusal", "(O)", seconds) : NULL;
    Py_XDECREF(seconds);
    if (refusal != NULL) {
        engine->rejected++;
        PyErr_SetObject((PyObject *)Py_TYPE(refusal), refusal);
        Py_DECREF(refusal);
    }
    return -1;
}

/* Waits for a ticket's turn, and for signals meanwhile: -EINTR means that one raised, and that the place is kept. */
static int await_ticket(const struct submission *s, weirpool_ticket *ticket)
{
    for (int64_t look = weirpool_deadline(LOOK_NS);;) {
        bool late = weirpool_deadline(0) >= look; /* then a loop that stands still may keep the room */
        look = late ? weirpool_deadline(LOOK_NS) : look;
        bool serves = tickets_serve(s->engine, late);
        int64_t until = look < s->deadline ? look : s->deadline;
        int64_t slice = serves ? short_slice(until) : wait_slice(until);
        int rc;
        Py_BEGIN_ALLOW_THREADS
        rc = weirpool_await(s->engine->pool, ticket, slice);
        Py_END_ALLOW_THREADS
        if (!is_early(rc, s->deadline)) {
            return rc;
        }
        if (PyErr_CheckSignals() < 0) {
            return -EINTR;
        }
    }
}

/* A thread that runs an event loop is about to wait: all that runs there would wait, too. -1: exception set. */
static int warn_of_blocking(Engine *engine)
{
    if (engine->warned) {
        return 0;
    }
    PyObject *warned = call_support(state_of((PyObject *)engine), "warn_of_blocking", "()");
    engine->warned = warned == Py_True;
    Py_XDECREF(warned);
    return warned != NULL ? 0 : -1;
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

int start_worker_after_wait(Engine *engine, bool published)
{
    if (!engine->starts_late || weirpool_worker_wanted(engine->pool) != 1 || start_wanted_worker(engine) == 0) {
        return 0;
    }
    if (published) {
        rescue_others(engine);
    }
    if (!published || !PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

/*
 * Takes a place in line and waits there. -1: exception set. `came` says whether the turn has come, which may be so
 * although there is an exception.
 */
static int wait_in_line(const struct submission *s, const struct weirpool_request *request, int *came)
{
    weirpool_ticket *ticket;
    *came = 0;
    if (warn_of_blocking(s->engine) < 0) {
        return -1;
    }
    int rc = weirpool_queue(s->engine->pool, request, future_task(s->future), &ticket);
    int signaled = 0;
    if (rc == 0) {
        rc = await_ticket(s, ticket);
        signaled = rc == -EINTR;
        if (signaled || timed_out(rc)) {
            int left = weirpool_leave(s->engine->pool, ticket);
            rc = left == 0 ? rc : left == 1 ? 0 : left;
        }
    }
    *came = rc == 0;
    if (signaled) {
        return -1;
    }
    if (timed_out(rc)) {
        return refuse(s->engine);
    }
    if (rc != 0) {
        raise_pool_error(s->engine, rc);
        return -1;
    }
    return start_worker_after_wait(s->engine, request->parts != NULL);
}

void begin_flight(PyObject *future)
{
    Py_INCREF(future);
}

void undo_flight(PyObject *future)
{
    *future_task(future) = NULL;
    Py_DECREF(future);
}

static int publish(const struct submission *s, const struct encoded *encoded, size_t weighed)
{
    struct weirpool_request request = request_for(s, encoded);
    request.weighed = weighed;
    weirpool_task **task = future_task(s->future);
    if (encoded->size <= WEIRPOOL_PARK_LIMIT) {
        return weirpool_publish(s->engine->pool, &request, task);
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = weirpool_publish(s->engine->pool, &request, task);
    Py_END_ALLOW_THREADS
    return rc;
}

/* Uses the permit up. */
static int publish_in_flight(const struct submission *s, const struct encoded *encoded, size_t weighed)
{
    begin_flight(s->future);
    int rc = publish(s, encoded, weighed);
    if (rc != 0) {
        undo_flight(s->future);
        raise_pool_error(s->engine, rc);
        return -1;
    }
    return 0;
}

int fail_with_current(struct state *state, PyObject *future)
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

/* The call cannot be pickled: its future fails, and the permit returns. */
static int fail_submission(const struct submission *s, size_t weighed)
{
    int rc = fail_with_current(state_of((PyObject *)s->engine), s->future);
    if (rc == 0) {
        rc = start_worker_for_unsent(s->engine);
    }
    weirpool_forgo(s->engine->pool, weighed);
    return rc;
}

/* A small task waits in line with its pickle, so that whoever makes room can publish it. */
static int park(const struct submission *s, const struct encoded *encoded)
{
    const struct weirpool_request request = request_for(s, encoded);
    int came = 0;
    begin_flight(s->future);
    int rc = wait_in_line(s, &request, &came);
    if (!came) {
        undo_flight(s->future);
    }
    return rc;
}

int submit_weighed(const struct submission *s, size_t size)
{
    struct encoded encoded;
    if (encode_call(s->engine, s->call, SIZE_MAX, &encoded) != 0) {
        return fail_submission(s, size);
    }
    int rc = publish_in_flight(s, &encoded, size);
    encoded_clear(&encoded);
    return rc;
}

/*
 * A large task waits for its bytes with its permit, but without its pickle, which is made again when there is room: a
 * hundred producers do not hold a hundred of them.
 */
static int submit_when_light_enough(const struct submission *s, size_t size)
{
    const struct weirpool_request request = {.weighed = size, .permitted = true};
    struct holding holding;
    int came = 0;
    begin_holding(&holding, s->engine);
    int rc = wait_in_line(s, &request, &came);
    end_holding(&holding);
    if (rc < 0) {
        weirpool_forgo(s->engine->pool, came ? size : 0);
        return -1;
    }
    return submit_weighed(s, size);
}

/* There is a permit, and no room for the bytes. Takes `encoded` over. */
static int wait_for_bytes(const struct submission *s, struct encoded *encoded)
{
    size_t size = encoded->size;
    int rc;
    if (s->deadline <= 0 || size <= WEIRPOOL_PARK_LIMIT) {
        weirpool_forgo(s->engine->pool, 0);
        rc = s->deadline <= 0 ? refuse(s->engine) : park(s, encoded);
        encoded_clear(encoded);
    } else {
        encoded_clear(encoded);
        rc = submit_when_light_enough(s, size);
    }
    return rc;
}

int submit_permitted(const struct submission *s, struct encoded *encoded)
{
    if (encode_call(s->engine, s->call, SIZE_MAX, encoded) != 0) {
        return fail_submission(s, 0);
    }
    int rc = s->engine->weighs ? weirpool_weigh(s->engine->pool, s->admission, encoded->size) : 0;
    if (rc == -EAGAIN) {
        return 1;
    }
    if (rc != 0) {
        weirpool_forgo(s->engine->pool, 0);
        raise_pool_error(s->engine, rc);
        rc = -1;
    } else {
        rc = publish_in_flight(s, encoded, s->engine->weighs ? encoded->size : 0);
    }
    encoded_clear(encoded);
    return rc;
}

static int submit_with_permit(const struct submission *s)
{
    struct encoded encoded;
    int rc = submit_permitted(s, &encoded);
    return rc == 1 ? wait_for_bytes(s, &encoded) : rc;
}

/* The pickle of a large task is made once there is room for one task more. */
static int submit_large_in_line(const struct submission *s)
{
    const struct weirpool_request request = {.weighed = 0};
    int came = 0;
    if (wait_in_line(s, &request, &came) < 0) {
        if (came) {
            weirpool_forgo(s->engine->pool, 0);
            rescue_others(s->engine);
        }
        return -1;
    }
    return submit_with_permit(s);
}

static int submit_in_line(const struct submission *s)
{
    struct encoded encoded;
    int rc = encode_call(s->engine, s->call, WEIRPOOL_PARK_LIMIT, &encoded);
    if (rc < 0) {
        return fail_with_current(state_of((PyObject *)s->engine), s->future);
    }
    if (rc == 1) {
        return submit_large_in_line(s);
    }
    rc = park(s, &encoded);
    encoded_clear(&encoded);
    return rc;
}

int admit(const struct submission *s)
{
    Engine *engine = s->engine;
    int rc = weirpool_admit(engine->pool, s->admission, 0, WEIRPOOL_NOW);
    if (rc == -EAGAIN) {
        return s->deadline <= 0 ? refuse(engine) : 1;
    }
    if (rc < 0) {
        raise_pool_error(engine, rc);
        return -1;
    }
    if (rc == 1 && start_wanted_worker(engine) < 0) {
        weirpool_forgo(engine->pool, 0);
        rescue_others(engine);
        return -1;
    }
    return 0;
}

/* permit, worker, pickle, publish: whatever fails on the way, the permit returns. */
static int submit(const struct submission *s)
{
    int rc = admit(s);
    return rc < 0 ? -1 : rc == 1 ? submit_in_line(s) : submit_with_permit(s);
}

static int64_t deadline_of(const Engine *engine)
{
    if (engine->patience == WEIRPOOL_FOREVER || engine->patience <= 0) {
        return engine->patience == WEIRPOOL_FOREVER ? WEIRPOOL_FOREVER : WEIRPOOL_NOW;
    }
    return weirpool_deadline(engine->patience);
}

/* An exception is set. A Ctrl-C that has come takes its place: it may be why the pool broke, and is what happened. */
static void prefer_signals(void)
{
    PyObject *error = take_exception();
    if (PyErr_CheckSignals() < 0) {
        Py_DECREF(error);
    } else {
        restore_exception(error);
    }
}

PyObject *engine_submit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    Engine *engine = (Engine *)self;
    if (count < 3 || count > 5 || !PyTuple_CheckExact(args[1]) || !PyDict_CheckExact(args[2])) {
        PyErr_SetString(PyExc_TypeError, "submit() takes fn, args, kwargs, limit and retries");
        return NULL;
    }
    struct task_options options;
    if (parse_options(args + 3, count - 3, &options) < 0 || engine_pool(self) == NULL) {
        return NULL;
    }
    engine_enter(engine);
    struct call call = {.fn = args[0], .args = args[1], .kwargs = args[2]};
    PyObject *future = future_new(state_of(self), engine);
    const struct submission submission = {
        .engine = engine,
        .call = &call,
        .future = future,
        .options = options,
        .admission = own_admission(),
        .deadline = deadline_of(engine),
    };
    enter_delivery(); /* a signal handler that submits must not wait for a permit that this submission holds */
    if (future != NULL && submit(&submission) < 0) {
        prefer_signals();
        Py_CLEAR(future);
    }
    leave_delivery();
    engine_sweep(engine);
    engine_leave(engine);
    return future;
}
