/*
 * What the files of the extension share. The extension only translates: objects to bytes, results to futures, errors
 * to exceptions. Everything here runs with the interpreter lock held, unless a comment says otherwise.
 */
#ifndef WEIRPOOL_EXT_H
#define WEIRPOOL_EXT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "weirpool.h"
#include "weirpool_worker.h"

/* ---- module.c ---- */

/* A large object that was decoded, see warm.h. */
#define WARM_OBJECTS 8
struct warm {
    PyObject *object; /* NULL: none */
    size_t room; /* the bytes that it has memory for */
};

struct state {
    PyTypeObject *engine_type;
    PyTypeObject *future_type;
    PyTypeObject *handle_type;
    PyTypeObject *condition_type;
    PyTypeObject *sink_type;
    PyTypeObject *memory_type;
    PyTypeObject *ticket_type;
    PyTypeObject *worker_type;
    PyTypeObject *gate_type;
    PyTypeObject *permit_type;
    PyTypeObject *starter_type;
    PyTypeObject *place_type;
    PyObject *base_future;     /* concurrent.futures.Future */
    PyObject *cancelled_error; /* concurrent.futures.CancelledError */
    PyObject *broken_pool;     /* concurrent.futures.process.BrokenProcessPool */
    PyObject *state_names[5];  /* the strings of concurrent.futures._base, by enum future_state */
    PyObject *loads;           /* pickle.loads */
    PyObject *pickler_type;    /* _pickle.Pickler */
    PyObject *dispatch_table;  /* ForkingPickler's: its extra reducers, else copyreg's */
    PyObject *idle_picklers;   /* a list: picklers that nobody uses at the moment */
    PyObject *dump_name;       /* "dump" and "clear_memo" */
    PyObject *clear_memo_name;
    struct warm warm[WARM_OBJECTS]; /* by age, the oldest at `warm_next` */
    int warm_next;
    int keeps_warm;
    PyObject *support;         /* the module weirpool._support */
};

extern struct PyModuleDef weirpool_module;

/* The state, from an instance of any type of this module. */
struct state *state_of(PyObject *self);

/* Calls a function of weirpool._support. */
PyObject *call_support(struct state *state, const char *name, const char *format, ...);

/* ---- waiting ---- */

#define LOOK_NS INT64_C(1000000000) /* the longest that anybody waits without a look around */

/* Slices in which the main thread waits, so that a signal that came just before the wait is noticed. */
int64_t wait_slice(int64_t deadline);

/* In which signal handlers run. */
int is_main_thread(void);

/* As short a slice, in any thread. */
int64_t short_slice(int64_t deadline);

/* A timeout in seconds (a number, or None) as a deadline. -1 with an exception set. */
int parse_timeout(PyObject *timeout, int64_t *deadline);

/* Was a wait cut short without the deadline having passed? */
int is_early(int rc, int64_t deadline);

/* Did a wait end at its deadline, or a try find nothing? */
int timed_out(int rc);

/* ---- errors.c ---- */

/* What is said of a pool that is used in a forked child, or was shut down, or broke; the package has them from here. */
extern const char forked_text[];
extern const char shut_down_text[];
extern const char unusable_text[];

/* Raises what a -errno of the core means for a user, where the caller has no better word for it; returns NULL. */
PyObject *raise_error(struct state *state, int rc);

/* What an operation on this pool has failed with: as above, and a broken pool says why it broke. */
typedef struct engine Engine;
PyObject *raise_pool_error(Engine *engine, int rc);

/* Takes the exception that is set, with its traceback; gives it back. restore_exception() steals the reference. */
PyObject *take_exception(void);
void restore_exception(PyObject *error);

/* ---- codec.c ---- */

extern PyType_Spec sink_spec;

/* A user's pickler; both are NULL where ForkingPickler's semantics hold. */
struct codec {
    PyObject *dumps;
    PyObject *loads;
};

/* From an object with dumps and loads, or None. -1: exception set. */
int codec_init(struct codec *codec, PyObject *pickler);
void codec_clear(struct codec *codec);

/*
 * Parts of a message: `bytes`, where they are used, and then what a pickler wrote: chunks that are referred to, not
 * copied. It refers to itself: it must not be moved.
 */
struct encoded {
    PyObject *chunks;  /* a list of bytes-like objects */
    PyObject *buffers; /* a list of PickleBuffers out of band, or NULL */
    Py_buffer *views;  /* of both */
    int viewed;
    struct iovec *parts;
    int count;
    size_t size;
    size_t prefix; /* how much of `bytes` precedes a pickle */
    struct iovec part; /* `parts`, where one is enough */
    unsigned char bytes[WEIRPOOL_INLINE_PAYLOAD];
};

/* Makes it empty; returns where its bytes are written. encoded_end() ends a message that has nothing else. */
unsigned char *encoded_begin(struct encoded *encoded);
void encoded_end(struct encoded *encoded, const unsigned char *end);

/* Pickles into it, behind a prefix that it may have. -1: exception set. 1: more than `limit` bytes. Both leave it empty. */
int encode(struct state *state, const struct codec *codec, PyObject *object, size_t limit, struct encoded *encoded);
int encode_raw(PyObject *bytes, size_t limit, struct encoded *encoded); /* a bytes object without pickle */
void encoded_clear(struct encoded *encoded);

/* Unpickles. The object does not refer to the bytes, unless `memory` (or NULL) owns them: see memory.h. */
PyObject *decode(struct state *state, const struct codec *codec, const void *data, size_t size, PyObject *memory);

/* ---- functions.c ---- */

#define FUNCTION_NAMES 120 /* bytes; below 0x80, which is how a pickle starts */
#define KNOWN_NAMES 8

struct known_name {
    PyObject *module, *name;
    size_t size; /* 0: none */
    unsigned char bytes[FUNCTION_NAMES];
};

/* Names that tasks came with lately. */
struct known_names {
    struct known_name entry[KNOWN_NAMES];
    unsigned next; /* to be replaced */
};

/* ---- message.c ---- */

struct call {
    PyObject *fn, *args, *kwargs; /* kwargs: NULL if there are none and it was decoded */
};

/* As encode(). */
int encode_call(Engine *engine, const struct call *call, size_t limit, struct encoded *encoded);

/* Fills in new references. -1: exception set. */
int decode_call(struct state *state, const struct codec *codec, struct known_names *known, const void *data,
                size_t size, struct call *call);
void call_clear(struct call *call);

int encode_result(struct state *state, const struct codec *codec, PyObject *result, struct encoded *encoded);
PyObject *decode_result(struct state *state, const struct codec *codec, const void *data, size_t size,
                        PyObject *memory);

/* ---- engine.c ---- */

extern PyType_Spec engine_spec;

struct engine {
    PyObject_HEAD
    weirpool *pool; /* NULL once it is closed: then every task has ended */
    PyObject *crew; /* starts workers, and knows how they ended */
    struct codec codec;
    PyObject *cause;  /* why the pool broke, a text; with the next one NULL: a worker died */
    PyObject *reason; /* what the tasks' exceptions say; NULL: the usual text */
    uint64_t unsent; /* tasks that could not be pickled */
    uint64_t rejected; /* submissions for which there was no room */
    int64_t patience; /* how long a submission waits for room, in ns; WEIRPOOL_FOREVER; negative: not at all */
    bool replaces; /* a worker's death costs only its task */
    bool weighs; /* bytes are bounded */
    bool starts_late; /* a producer may have to wait while there are fewer workers than may be */
    bool warned; /* that a submission blocks an event loop */
    struct ticket *tickets, *last_ticket; /* that wait for something, by age: ticket.c */
    uint64_t round; /* in which they are served */
    int inside;       /* calls that are under way, and may have released the interpreter lock */
    int closing;      /* close it when nobody is inside */
    int broke;
    struct weirpool_stats last; /* what the pool said when it was closed */
    enum weirpool_fault last_fault;
};

/* Around every call during which the interpreter lock may be released: the pool is not closed meanwhile. */
void engine_enter(Engine *engine);
void engine_leave(Engine *engine);

/* The pool, or NULL with an exception set when it is closed. */
weirpool *engine_pool(PyObject *self);

/* Tells what was taken and nobody watches, so that finished futures need not wait for the collector to wake up. */
void engine_sweep(Engine *engine);

/* Breaks the pool, if it is not broken already; both are texts or NULL. */
void engine_break(Engine *engine, PyObject *cause, PyObject *reason);

/*
 * The exception that says why the pool broke; a new one each time. `text` is used where nothing more is known. pid: of
 * the worker whose death is its cause; 0: of the one that broke the pool. NULL: exception set.
 */
PyObject *engine_broken(Engine *engine, const char *text, int pid);

/* ---- stats.c ---- */

/* Methods of Engine: the fields of Stats as a dict, and (pid, tasks, busy seconds) of each worker. */
PyObject *engine_stats(PyObject *self, PyObject *ignored);
PyObject *engine_workers(PyObject *self, PyObject *ignored);

/* ---- action.c ---- */

/* Functions of the module: what the kernel does at a signal, as bytes; and back. */
PyObject *signal_action(PyObject *module, PyObject *number);
PyObject *set_signal_action(PyObject *module, PyObject *args);

/* ---- submit.c ---- */

/* Around callbacks, pickling and submitting: a submit of this thread's does not wait at the gate meanwhile. */
void enter_delivery(void);
void leave_delivery(void);

/* Is this thread inside of one? */
int is_delivering(void);

/* A thread inside of a submission that has a permit, or may have one: a shutdown would wait for it. */
struct holding {
    const Engine *engine;
    const struct holding *outer;
};

/* Around whatever runs Python code, or looks for signals, with a permit. */
void begin_holding(struct holding *holding, const Engine *engine);
void end_holding(const struct holding *holding);

/* is_holding() -> bool: a method of Engine. */
PyObject *engine_is_holding(PyObject *self, PyObject *ignored);

/* submit(fn, args, kwargs, limit, retries) -> Future: a method of Engine. */
PyObject *engine_submit(PyObject *self, PyObject *const *args, Py_ssize_t count);

/* ---- ticket.c ---- */

extern PyType_Spec ticket_spec;

/* submit_soon(fn, args, kwargs, bell, limit, retries) -> Future | Ticket: a method of Engine. */
PyObject *engine_submit_soon(PyObject *self, PyObject *const *args, Py_ssize_t count);

/* The engine was shut down. Tickets give up permits that nobody might come to use: the end of the pool waits for them. */
void tickets_retire(Engine *engine);

/*
 * The calling thread is about to wait for room. A loop of its own stands still then, and nobody else polls the tickets
 * of that loop, which may hold what it waits for. Nor does anybody where another thread's loop stands still or was
 * stopped: `all` serves those, too, and is for who has waited for a while. Returns whether any of this thread's are
 * left that have to be served again later.
 */
bool tickets_serve(Engine *engine, bool all);

/* ---- future.c and tell.c; what the files of the Future share among themselves is in future.h ---- */

extern PyType_Spec future_spec;
extern PyType_Spec handle_spec;
extern PyType_Spec condition_spec;

/*
 * FOLLOWS: what its task is. CANCELLED stands for CANCELLED_AND_NOTIFIED: one that has a task is always both.
 * UNNOTIFIED is plain CANCELLED, in which only a future without a task can be.
 */
enum future_state { PENDING, RUNNING, FINISHED, CANCELLED, UNNOTIFIED, FOLLOWS };

/* Owns a task; keeps the engine that it belongs to. */
typedef struct {
    PyObject_HEAD
    Engine *engine;
    weirpool_task *task; /* NULL: never submitted */
} Handle;

/* Sets future_spec up for this interpreter's base class. Returns the type. */
PyObject *make_future_type(PyObject *module, PyObject *base);

PyObject *future_new(struct state *state, Engine *engine);
weirpool_task **future_task(PyObject *future);

/* Ends a future that was never submitted. Takes no reference. */
void future_fail(PyObject *future, PyObject *exception);

/* Tells a taken task's future, which the flight's reference keeps; drops that reference. */
void future_tell(Engine *engine, weirpool_task *task);

/* ---- gate.c, permit.c ---- */

extern PyType_Spec gate_spec;
extern PyType_Spec permit_spec;
extern PyType_Spec starter_spec;
extern PyType_Spec place_spec;

/* ---- worker.c ---- */

extern PyType_Spec worker_spec;

#endif
