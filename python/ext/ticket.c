/*
 * Submitting without waiting, for event loops: where there is no room the caller gets a Ticket, and a bell that rings
 * when the ticket should be polled. A small task waits with its pickle, and is published by whoever makes room. A large
 * one waits for a bare permit, is pickled to be weighed, and waits with its permit for the bytes, without its pickle.
 *
 * A ticket is used by the thread of its loop. Only threads that wait in submit() take its turn for it, where that has
 * come: its loop may stand still. While it waits it counts as a call inside its engine, whose pool stays open.
 */
#include "submit.h"

#include <errno.h>
#include <sys/eventfd.h>

enum stage { PARKED, FOR_PERMIT, FOR_BYTES };
enum step { FAILED = -1, SUBMITTED = 0, WAITS = 1 };

/*
 * All fields are protected by the interpreter lock. What a ticket is doing, and what it answers meanwhile:
 *
 *   state                               shown by        poll()             leave()
 *   waits, in its engine's list         place           None               gives the place up
 *   is submitted in poll()              busy            RuntimeError       None
 *   is submitted by another thread      busy, server    None               None; `left` tells that thread
 *   was submitted by a thread that      served          the future         the future
 *   waits in submit()
 *   failed there                        error           raises it, once    None
 *   its engine was shut down            retired         as submit() then   None
 *   has ended in a method of its own    none of these   RuntimeError       None
 *
 * `stage` says for what it waits: its turn, with its pickle (PARKED); a permit (FOR_PERMIT); bytes, with a permit held
 * (FOR_BYTES). Who has waited for a permit may wait once more, for bytes.
 */
typedef struct ticket {
    PyObject_HEAD
    struct submission submission; /* refers to `call` */
    struct call call;             /* its references are its own, as that to the future is */
    weirpool_ticket *place;       /* NULL: it waits for nothing any more */
    enum stage stage;
    size_t size; /* FOR_BYTES: how many */
    int bell;
    unsigned long thread; /* that made it: the only one that polls it */
    unsigned long server; /* another thread that submits it at this moment; 0: none */
    PyObject *error; /* with which it ended when its thread served it */
    uint64_t round;  /* of its engine, in which its thread served it last */
    bool served;  /* it was submitted then */
    bool left;    /* while another thread submitted it */
    bool busy;    /* it is being polled */
    bool retired; /* by the shutdown of its engine */
    struct ticket *next, *previous;
} Ticket;

/* ---- the engine's tickets that wait ---- */

static void list(Ticket *t)
{
    Engine *engine = t->submission.engine;
    t->next = NULL;
    t->previous = engine->last_ticket;
    *(t->previous != NULL ? &t->previous->next : &engine->tickets) = t;
    engine->last_ticket = t;
}

static void unlist(Ticket *t)
{
    Engine *engine = t->submission.engine;
    *(t->previous != NULL ? &t->previous->next : &engine->tickets) = t->next;
    *(t->next != NULL ? &t->next->previous : &engine->last_ticket) = t->previous;
}

/* ---- places ---- */

/* A place in line. -1: exception set, and nothing has changed. */
static int take_place(Ticket *t, enum stage stage, struct weirpool_request *request)
{
    const struct submission *s = &t->submission;
    request->bell = t->left ? 0 : t->bell; /* which is closed by now, perhaps */
    int rc = weirpool_queue(s->engine->pool, request, future_task(s->future), &t->place);
    if (rc != 0) {
        t->place = NULL;
        raise_pool_error(s->engine, rc);
        return -1;
    }
    t->stage = stage;
    engine_enter(s->engine);
    list(t);
    return 0;
}

/* The core's ticket has ended. The pool may close with engine_leave(). */
static void lose_place(Ticket *t)
{
    t->place = NULL;
    unlist(t);
}

/* What the ticket held besides its place, after its turn came or did not come, where it is not submitted. */
static void give_back(Ticket *t, bool came)
{
    const struct submission *s = &t->submission;
    if (t->stage == PARKED && !came) {
        undo_flight(s->future);
    } else if (t->stage == FOR_PERMIT && came) {
        weirpool_forgo(s->engine->pool, 0);
    } else if (t->stage == FOR_BYTES) {
        weirpool_forgo(s->engine->pool, came ? t->size : 0);
    }
}

/* Gives the place up, and all that was held. True: the task was submitted just then. */
static bool leave(Ticket *t)
{
    Engine *engine = t->submission.engine;
    int rc = weirpool_leave(engine->pool, t->place);
    if (rc == -ECHILD) {
        return false; /* it is the parent's */
    }
    lose_place(t);
    give_back(t, rc == 1);
    engine_leave(engine);
    return rc == 1 && t->stage == PARKED;
}

void tickets_retire(Engine *engine)
{
    for (Ticket *t = engine->tickets, *next; t != NULL; t = next) {
        next = t->next;
        if (!t->busy && t->stage != PARKED) { /* one that is busy finds out by itself */
            t->retired = true;
            (void)leave(t);
        }
    }
}

/* ---- steps ---- */

static enum step park(Ticket *t, const struct encoded *encoded)
{
    const struct submission *s = &t->submission;
    struct weirpool_request request = request_for(s, encoded);
    begin_flight(s->future);
    if (take_place(t, PARKED, &request) < 0) {
        undo_flight(s->future);
        return FAILED;
    }
    return WAITS;
}

static enum step wait_for_bytes(Ticket *t, size_t size)
{
    struct weirpool_request request = {.weighed = size, .permitted = true};
    t->size = size;
    if (take_place(t, FOR_BYTES, &request) < 0) {
        weirpool_forgo(t->submission.engine->pool, 0);
        return FAILED;
    }
    return WAITS;
}

/* There is a permit and no room for the bytes. Takes `encoded` over. */
static enum step stand_at_scale(Ticket *t, struct encoded *encoded, bool is_new)
{
    const struct submission *s = &t->submission;
    size_t size = encoded->size;
    bool may_park = is_new && size <= WEIRPOOL_PARK_LIMIT; /* else it would lose its turn */
    enum step step;
    if (s->deadline <= 0 || may_park) {
        weirpool_forgo(s->engine->pool, 0);
        step = s->deadline <= 0 ? (enum step)refuse(s->engine) : park(t, encoded);
        encoded_clear(encoded);
        return step;
    }
    encoded_clear(encoded);
    return wait_for_bytes(t, size);
}

static enum step use_permit(Ticket *t, bool is_new)
{
    struct encoded encoded;
    int rc = submit_permitted(&t->submission, &encoded);
    return rc == 1 ? stand_at_scale(t, &encoded, is_new) : rc < 0 ? FAILED : SUBMITTED;
}

static enum step stand_in_line(Ticket *t)
{
    struct encoded encoded;
    struct weirpool_request bare = {.weighed = 0};
    int rc = encode_call(t->submission.engine, &t->call, WEIRPOOL_PARK_LIMIT, &encoded);
    if (rc < 0) {
        return fail_with_current(state_of((PyObject *)t), t->submission.future) < 0 ? FAILED : SUBMITTED;
    }
    if (rc == 1) {
        return take_place(t, FOR_PERMIT, &bare) < 0 ? FAILED : WAITS;
    }
    enum step step = park(t, &encoded);
    encoded_clear(&encoded);
    return step;
}

static enum step begin(Ticket *t)
{
    int rc = admit(&t->submission);
    return rc < 0 ? FAILED : rc == 1 ? stand_in_line(t) : use_permit(t, true);
}

/* The turn has come (0), or never will. */
static enum step go_on(Ticket *t, int outcome)
{
    if (outcome != 0) {
        give_back(t, false);
        raise_pool_error(t->submission.engine, outcome);
        return FAILED;
    }
    if (start_worker_after_wait(t->submission.engine, t->stage == PARKED) < 0) {
        give_back(t, true);
        return FAILED;
    }
    if (t->stage == FOR_PERMIT) {
        return use_permit(t, false);
    }
    return t->stage == PARKED || submit_weighed(&t->submission, t->size) == 0 ? SUBMITTED : FAILED;
}

/* It waits: has its turn come, or will it never? */
static enum step advance(Ticket *t)
{
    Engine *engine = t->submission.engine;
    int rc = weirpool_await(engine->pool, t->place, WEIRPOOL_NOW);
    if (rc == -EAGAIN || rc == -EINTR || rc == -ETIMEDOUT) {
        return WAITS;
    }
    if (rc == -ECHILD) {
        raise_error(state_of((PyObject *)t), rc);
        return FAILED;
    }
    lose_place(t);
    t->busy = true;
    enum step step = go_on(t, rc);
    t->busy = false;
    engine_leave(engine); /* of the place that was lost */
    return step;
}

/* ---- serving ---- */

/* One that was not asked in this round. Any may come or go while another is pickled. */
static Ticket *next_to_serve(const Engine *engine, unsigned long thread, bool all)
{
    Ticket *t = engine->tickets;
    while (t != NULL && ((t->thread != thread && !all) || t->round == engine->round || t->busy || t->stage == PARKED)) {
        t = t->next;
    }
    return t;
}

/* The outcome is kept for its loop, which the bell has told to poll. */
static enum step serve(Ticket *t)
{
    enum step step = advance(t);
    if (step == FAILED) {
        Py_XSETREF(t->error, take_exception());
    }
    t->served = step == SUBMITTED;
    return step;
}

/* Its coroutine has gone while it was submitted: as if that had left a moment later. */
static void end_for_who_left(Ticket *t)
{
    if (t->place != NULL) {
        (void)leave(t);
    }
    if (t->served) {
        Py_XDECREF(PyObject_CallMethod(t->submission.future, "cancel", NULL));
        PyErr_Clear();
    }
}

/* Was it given the Ctrl-C that came to this thread while it pickled for another's coroutine? */
static bool has_taken_interrupt(const Ticket *t)
{
    return t->error != NULL && is_main_thread() && PyErr_GivenExceptionMatches(t->error, PyExc_KeyboardInterrupt);
}

/* The interrupt is raised again where it belongs, and the ticket stands in line anew. */
static enum step return_interrupt(Ticket *t)
{
    struct weirpool_request bare = {.weighed = 0};
    Py_CLEAR(t->error);
    PyErr_SetInterrupt();
    if (take_place(t, FOR_PERMIT, &bare) == 0) {
        return WAITS;
    }
    t->error = take_exception();
    return FAILED;
}

/* Its loop may have polled meanwhile, in vain. */
static void serve_for_another_thread(Ticket *t, unsigned long me)
{
    t->server = me;
    enum step step = serve(t);
    if (has_taken_interrupt(t)) {
        step = return_interrupt(t);
    }
    t->server = 0;
    if (t->left) {
        end_for_who_left(t);
    } else if (step != WAITS) {
        (void)eventfd_write(t->bell, 1);
    }
}

bool tickets_serve(Engine *engine, bool all)
{
    unsigned long me = PyThread_get_thread_ident();
    bool some_wait = false;
    engine->round++;
    for (Ticket *t = next_to_serve(engine, me, all); t != NULL; t = next_to_serve(engine, me, all)) {
        Py_INCREF((PyObject *)t);
        t->round = engine->round;
        if (t->thread != me) {
            serve_for_another_thread(t, me);
        } else {
            some_wait |= serve(t) == WAITS;
        }
        Py_DECREF((PyObject *)t);
    }
    return some_wait;
}

/* ---- methods ---- */

/* One at a time, and only while it waits. -1: exception set. */
static int check_waits(Ticket *t)
{
    if (t->place != NULL && !t->busy) {
        return 0;
    }
    if (t->error != NULL) {
        restore_exception(t->error);
        t->error = NULL;
    } else if (t->retired) {
        raise_error(state_of((PyObject *)t), -ESHUTDOWN);
    } else {
        PyErr_SetString(PyExc_RuntimeError, t->busy ? "this ticket is being polled" : "this ticket has ended");
    }
    return -1;
}

static PyObject *ticket_poll(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Ticket *t = (Ticket *)self;
    if (t->served) {
        return Py_NewRef(t->submission.future);
    }
    if (t->server != 0) {
        Py_RETURN_NONE; /* the bell will ring again */
    }
    if (check_waits(t) < 0) {
        return NULL;
    }
    enum step step = advance(t);
    return step == FAILED ? NULL : Py_NewRef(step == WAITS ? Py_None : t->submission.future);
}

static PyObject *ticket_leave(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Ticket *t = (Ticket *)self;
    bool submitted = t->served;
    t->left = t->server != 0;
    if (t->place != NULL && !t->busy) {
        submitted = leave(t);
    }
    return Py_NewRef(submitted ? t->submission.future : Py_None);
}

static PyObject *ticket_expire(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Ticket *t = (Ticket *)self;
    if (t->server != 0) {
        Py_RETURN_NONE; /* its turn has come */
    }
    if (!t->served && check_waits(t) < 0) {
        return NULL;
    }
    if (t->served || leave(t)) {
        return Py_NewRef(t->submission.future);
    }
    (void)refuse(t->submission.engine);
    return NULL;
}

static PyObject *ticket_permitted(PyObject *self, void *Py_UNUSED(closure))
{
    Ticket *t = (Ticket *)self;
    return PyBool_FromLong(t->place != NULL && t->stage == FOR_BYTES);
}

/* ---- making and ending ---- */

static Ticket *ticket_new(Engine *engine, PyObject *const *args, int bell, const struct task_options *options)
{
    struct state *state = state_of((PyObject *)engine);
    PyObject *future = future_new(state, engine);
    Ticket *t = future != NULL ? (Ticket *)state->ticket_type->tp_alloc(state->ticket_type, 0) : NULL;
    if (t == NULL) {
        Py_XDECREF(future);
        return NULL;
    }
    t->bell = bell;
    t->thread = PyThread_get_thread_ident();
    t->call = (struct call){.fn = Py_NewRef(args[0]), .args = Py_NewRef(args[1]), .kwargs = Py_NewRef(args[2])};
    t->submission = (struct submission){
        .engine = (Engine *)Py_NewRef((PyObject *)engine),
        .call = &t->call,
        .future = future,
        .options = *options,
        .admission = own_admission(),
        .deadline = engine->patience != WEIRPOOL_FOREVER && engine->patience <= 0 ? WEIRPOOL_NOW : WEIRPOOL_FOREVER,
    };
    return t;
}

PyObject *engine_submit_soon(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    Engine *engine = (Engine *)self;
    if (count < 4 || count > 6 || !PyTuple_CheckExact(args[1]) || !PyDict_CheckExact(args[2])) {
        PyErr_SetString(PyExc_TypeError, "submit_soon() takes fn, args, kwargs, bell, limit and retries");
        return NULL;
    }
    struct task_options options;
    if (parse_options(args + 4, count - 4, &options) < 0) {
        return NULL;
    }
    int bell = (int)PyLong_AsLong(args[3]);
    if ((bell == -1 && PyErr_Occurred()) || engine_pool(self) == NULL) {
        return NULL;
    }
    Ticket *t = ticket_new(engine, args, bell, &options);
    if (t == NULL) {
        return NULL;
    }
    engine_enter(engine);
    t->busy = true;
    enum step step = begin(t);
    t->busy = false;
    engine_sweep(engine);
    PyObject *answer = step == FAILED ? NULL : Py_NewRef(step == WAITS ? (PyObject *)t : t->submission.future);
    Py_DECREF(t);
    engine_leave(engine);
    return answer;
}

static int ticket_traverse(PyObject *self, visitproc visit, void *arg)
{
    Ticket *t = (Ticket *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)t->submission.engine);
    Py_VISIT(t->submission.future);
    Py_VISIT(t->error);
    Py_VISIT(t->call.fn);
    Py_VISIT(t->call.args);
    Py_VISIT(t->call.kwargs);
    return 0;
}

static int ticket_clear(PyObject *self)
{
    call_clear(&((Ticket *)self)->call);
    Py_CLEAR(((Ticket *)self)->error);
    return 0;
}

static void ticket_dealloc(PyObject *self)
{
    Ticket *t = (Ticket *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (t->place != NULL) {
        (void)leave(t);
    }
    (void)ticket_clear(self);
    Py_XDECREF(t->submission.future);
    Py_XDECREF((PyObject *)t->submission.engine);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef ticket_methods[] = {
    {"poll", ticket_poll, METH_NOARGS,
     "poll($self, /)\n--\n\n"
     "Return the Future if the call is submitted by now, or None: the bell will ring again.\n\n"
     "Raises what submit() raises in a thread that waits."},
    {"leave", ticket_leave, METH_NOARGS,
     "leave($self, /)\n--\n\nGive the place up, and return None; or the Future, if the call was submitted just then."},
    {"expire", ticket_expire, METH_NOARGS,
     "expire($self, /)\n--\n\nAs leave(), for a submitter whose time is over: raises SubmitTimeout instead of None."},
    {NULL},
};

static PyGetSetDef ticket_getset[] = {
    {"permitted", ticket_permitted, NULL, "It has left the line, and waits for bytes.", NULL},
    {NULL},
};

static PyType_Slot ticket_slots[] = {
    {Py_tp_dealloc, ticket_dealloc},
    {Py_tp_traverse, ticket_traverse},
    {Py_tp_clear, ticket_clear},
    {Py_tp_methods, ticket_methods},
    {Py_tp_getset, ticket_getset},
    {Py_tp_doc, "A place in the line for room, of a call that no thread waits for."},
    {0, NULL},
};

PyType_Spec ticket_spec = {
    .name = "weirpool._core.Ticket",
    .basicsize = sizeof(Ticket),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ticket_slots,
};
