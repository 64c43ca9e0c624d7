/*
 * weirpool.h: a process pool behind a weir.
 *
 * A pool hands byte strings (tasks) to worker processes and brings byte strings (results) back. It admits at most
 * `bound` outstanding tasks; past that weirpool_submit() waits, first come first served, so a producer that is faster
 * than the workers is slowed down instead of filling memory. A worker that crashes breaks the pool, never the caller,
 * and each task says whether it was the one that crashed.
 *
 *     static int shout(const void *text, size_t size, weirpool_reply *reply, void *context);
 *
 *     struct weirpool_options options = {.size = sizeof options, .workers = 8, .bound = 16, .handler = shout};
 *     weirpool *pool;
 *     int rc = weirpool_open(&pool, &options);                       // before the program starts threads
 *     rc = weirpool_submit(pool, "hello", 5, NULL, WEIRPOOL_FOREVER, NULL);
 *     rc = weirpool_shutdown(pool);                                  // no more: weirpool_next() will end
 *     struct weirpool_completion done;
 *     while (weirpool_next(pool, &done, WEIRPOOL_FOREVER) == 0) {
 *         use(done.result, done.result_size);
 *         weirpool_release(pool, done.task);
 *     }
 *     weirpool_close(pool);
 *
 * Caveats
 *  - Linux 5.3 or newer.
 *  - weirpool_open() forks the workers (unless it is given a program to start): call it before there are threads.
 *  - After fork() a child cannot use its parent's pool: what would act on it returns -ECHILD there.
 *  - Completions that nobody fetches stay in memory: the bound covers tasks until their workers have finished them.
 *  - A worker that dies breaks the pool. The task that it ran ends with -EOWNERDEAD, what had not finished with -EPIPE.
 *    With options.replace the death costs only the task that it ran, and another worker takes the place.
 *
 * Errors: every function that can fail returns 0 or a negative errno value.
 * Threads: every function may be called from any thread at any time, unless its comment says otherwise.
 * Deadlines: nanoseconds of CLOCK_MONOTONIC. WEIRPOOL_NOW (or any time gone by) tries once; WEIRPOOL_FOREVER: no end.
 */
#ifndef WEIRPOOL_H
#define WEIRPOOL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WEIRPOOL_VERSION "0.1.0"

#if defined(__GNUC__)
#define WEIRPOOL_API __attribute__((visibility("default")))
#else
#define WEIRPOOL_API
#endif

#define WEIRPOOL_NOW INT64_C(0)
#define WEIRPOOL_FOREVER INT64_MAX

/* The most workers that one pool can have. */
#define WEIRPOOL_MAX_WORKERS 4096u

typedef struct weirpool weirpool;
typedef struct weirpool_task weirpool_task;
typedef struct weirpool_reply weirpool_reply;

/*
 * Runs one task, in a worker process. `payload` is read-only and lives until the handler returns. The result is what
 * weirpool_answer() was given, or empty. The return value arrives as the completion's `status`.
 */
typedef int weirpool_handler(const void *payload, size_t size, weirpool_reply *reply, void *context);

struct weirpool_options {
    size_t size;                    /* sizeof(struct weirpool_options): tells which fields the caller knows */
    uint32_t workers;               /* how many processes; 0: one for each core that this process may use */
    uint64_t bound;                 /* the most outstanding tasks (waiting and running); 0: no bound */
    weirpool_handler *handler;      /* what a worker runs, in a fork of this process */
    void *context;                  /* given to the handler */
    char *const *program;           /* or: the argv of a program to start, which calls weirpool_serve() */
    uint64_t arena_bytes;           /* address space for large payloads; 0: as much as there is physical memory */
    uint32_t adaptive;              /* 1: the pool finds its bound by itself, from one more than there are workers to
                                       4 times as many, or 8 times where tasks take less than 10 ms; `bound` is 0 */
    uint64_t max_unstarted;         /* the most tasks that no worker has started; 0: no bound */
    uint64_t max_bytes;             /* the most bytes of outstanding payloads; a larger one runs alone; 0: none */
    uint32_t replace;               /* 0: a worker's death breaks the pool; 1: it costs only the task that it ran, and
                                       weirpool_next() starts another worker. Not with `handler`: that would fork a
                                       process that has threads by then */
};

/*
 * What may be said of one task, for weirpool_submit_with(). What is not said is 0. A task that is retried may have done
 * part of its work, or all of it, before. A limit counts from the moment at which a worker has claimed the task until
 * its result is complete. It is seen to in weirpool_next(), for which weirpool_fd() wakes; while no thread is there, by
 * threads that wait for room, once a second.
 */
struct weirpool_task_options {
    size_t size;                    /* sizeof(struct weirpool_task_options) */
    void *user;
    int64_t deadline;               /* for room, as in weirpool_submit() */
    uint32_t retries;               /* how often it may run again after its worker died, or it ran over its time */
    uint64_t limit_ns;              /* how long one attempt may run; then its worker is killed; 0: no limit */
};

/*
 * One finished task. `error` is 0 if the handler ran to its end; else
 *   -EOWNERDEAD  its worker died while running it (`worker_pid`, `worker_status` as waitpid() gives it), and no retry
 *                was left
 *   -ETIME       it ran over its limit, and no retry was left
 *   -EPIPE       the pool broke before this task finished
 *   -ECANCELED   weirpool_cancel() took it back, or weirpool_stop() (weirpool_worker.h) ended it
 *   -ENOMEM      the result did not fit this process's memory
 */
struct weirpool_completion {
    weirpool_task *task;
    void *user;                     /* as given to weirpool_submit() */
    int error;
    int status;                     /* what the handler returned */
    const void *result;             /* valid until weirpool_release() */
    size_t result_size;             /* bytes; with -ENOMEM how many there would have been */
    int worker_pid;                 /* with -EOWNERDEAD, else 0 */
    int worker_status;              /* with -EOWNERDEAD, else 0 */
    uint32_t attempts;              /* that are over; with -EPIPE one that still ran is not counted */
    uint64_t limit_ns;              /* as it was given; with -ETIME each attempt had so long */
};

/* How long something took, over the life of the pool: in nanoseconds, the percentiles to about 3 %. */
struct weirpool_durations {
    uint64_t count;
    uint64_t sum;
    uint64_t p50;
    uint64_t p95;
    uint64_t p99;
};

struct weirpool_stats {
    uint64_t bound;                 /* at this moment; 0: none */
    uint64_t outstanding;           /* admitted and not finished: waiting + running */
    uint64_t waiting;               /* admitted, no worker has started it */
    uint64_t running;               /* a worker has started it; or its callbacks have not run (WEIRPOOL_HOLDS) */
    uint64_t bytes_held;            /* payloads of admitted and unfinished tasks */
    uint64_t peak_outstanding;
    uint64_t admitted_over_bound;   /* by weirpool_admit() with WEIRPOOL_OVER_BOUND */
    uint64_t blocked_producers;     /* threads, and tickets of no thread, that wait for room now */
    uint64_t blocked_ns;            /* time that producers waited for room, summed; counts ended waits */
    uint64_t submitted;             /* tasks admitted and handed over, ever */
    uint64_t finished;              /* tasks whose end is known: completed + failed + cancelled */
    uint64_t completed;             /* the handler returned 0 */
    uint64_t failed;                /* it returned something else, or the task was lost */
    uint64_t cancelled;
    uint64_t retried;               /* attempts that were put back to run again */
    uint64_t stopped;               /* attempts whose worker the pool killed: over their limit, or weirpool_stop() */
    uint64_t workers_died;          /* that ended without being told to, before the pool broke; not those `stopped` */
    uint32_t workers;               /* processes now */
    struct weirpool_durations wait; /* from admission, with the task at hand, until a worker started it */
    struct weirpool_durations run;  /* from there until its result was complete */
    struct weirpool_durations refill_lag; /* from a worker's finish to its next start, if a task or a producer waited */
    double occupancy; /* the share of the last ten seconds that workers spent running tasks: 0 to 1 */
    double tasks_per_second; /* that workers finished in the same time */
    uint64_t segment_bytes; /* memory that the shared segment really holds (st_blocks) */
};

/* One worker process. Memory is for whoever asks to look up, by the pid. */
struct weirpool_worker_stats {
    int pid;
    uint64_t tasks; /* that it has finished */
    uint64_t busy_ns; /* with these, and with what it runs now */
};

/* What is in the future: `ns` nanoseconds from now, as a deadline. */
WEIRPOOL_API int64_t weirpool_deadline(int64_t ns);

/*
 * Opens a pool and starts its workers. With neither `handler` nor `program` no worker is started: the caller brings its
 * own through weirpool_worker.h.
 * Errors: -EINVAL (options), -ENOMEM, -EMFILE, -EAGAIN (no more processes), -ENOSYS (kernel too old or refused).
 */
WEIRPOOL_API int weirpool_open(weirpool **pool, const struct weirpool_options *options);

/*
 * Submits a copy of `size` bytes at `data`; waits for room by `deadline`. `task` may be NULL.
 * Errors (nothing was submitted): -EAGAIN (full, WEIRPOOL_NOW), -ETIMEDOUT, -EINTR (a signal came), -ESHUTDOWN,
 * -EPIPE (broken), -ENOMEM, -EMSGSIZE (larger than the arena), -ECHILD. After -EINTR the place in the line is lost.
 */
WEIRPOOL_API int weirpool_submit(weirpool *pool, const void *data, size_t size, void *user, int64_t deadline,
                                 weirpool_task **task);

/*
 * The same with more said of the task; NULL: nothing. Errors: also -EINVAL (`size`; retries or a limit in a pool
 * without options.replace).
 */
WEIRPOOL_API int weirpool_submit_with(weirpool *pool, const void *data, size_t size,
                                      const struct weirpool_task_options *options, weirpool_task **task);

/*
 * Fetches a finished task. The order is that in which the pool noticed the ends, roughly that of finishing. One thread
 * at a time; a second gets -EBUSY.
 * Errors: -EAGAIN (none yet, WEIRPOOL_NOW), -ETIMEDOUT, -EINTR, -ESHUTDOWN (shut down, and every completion was
 * fetched), -EPIPE (broken, and every completion was fetched), -ECHILD.
 */
WEIRPOOL_API int weirpool_next(weirpool *pool, struct weirpool_completion *completion, int64_t deadline);

/*
 * Takes back a task that no worker has started: its completion says -ECANCELED. -EBUSY: it runs or has ended. Nobody
 * may release the task meanwhile.
 */
WEIRPOOL_API int weirpool_cancel(weirpool *pool, weirpool_task *task);

/* Frees a task that weirpool_next() gave, with its result. Each task once. */
WEIRPOOL_API void weirpool_release(weirpool *pool, weirpool_task *task);

/*
 * A descriptor for poll() or epoll: readable when weirpool_next() may have something. Call weirpool_next() with
 * WEIRPOOL_NOW until it returns -EAGAIN before you wait on it. The pool owns it. In a forked child: -ECHILD.
 */
WEIRPOOL_API int weirpool_fd(const weirpool *pool);

/*
 * What the pool does at this moment. Looks at every slot under the pool's lock: microseconds with a bound of some
 * hundreds, about half a millisecond with one of 65,536 or more. Errors: -ECHILD.
 */
WEIRPOOL_API int weirpool_stats(weirpool *pool, struct weirpool_stats *stats);

/*
 * The workers that run at this moment: fills up to `room` entries and returns how many. Errors: -ECHILD.
 */
WEIRPOOL_API int weirpool_workers(weirpool *pool, struct weirpool_worker_stats *workers, uint32_t room);

/* Why a pool has broken. */
enum weirpool_fault {
    WEIRPOOL_FAULT_NONE, /* it has not */
    WEIRPOOL_FAULT_DEATH, /* a worker died, in a pool without options.replace */
    WEIRPOOL_FAULT_INIT_FAILED, /* a worker could not set itself up (WEIRPOOL_INIT_FAILED) */
    WEIRPOOL_FAULT_DEATHS_IN_A_ROW, /* WEIRPOOL_DEATHS_IN_A_ROW workers died, and no task finished between */
    WEIRPOOL_FAULT_NO_WORKER, /* no process could be started in a dead worker's place, and no other is left */
    WEIRPOOL_FAULT_CORRUPT, /* a worker wrote over the shared memory of the pool */
    WEIRPOOL_FAULT_ASKED, /* weirpool_break() */
};

/* In a pool with options.replace: so many deaths without a task that finishes break it. */
#define WEIRPOOL_DEATHS_IN_A_ROW 3

/* Why the pool broke, if it did. In a forked child: NONE. */
WEIRPOOL_API enum weirpool_fault weirpool_fault(weirpool *pool);

/*
 * Admits nothing more: producers that wait get -ESHUTDOWN. What was admitted runs to its end; fetch it with
 * weirpool_next() until that returns -ESHUTDOWN.
 */
WEIRPOOL_API int weirpool_shutdown(weirpool *pool);

/*
 * Ends the pool at once and frees it: tasks that have not finished are dropped and workers that still run one are
 * killed. No other thread may be inside or call any function on this pool. In a forked child: -ECHILD, nothing freed.
 */
WEIRPOOL_API int weirpool_close(weirpool *pool);

/*
 * In a handler: the result, copied at once. Once a task; -EALREADY after that. Waits while a large one finds no room.
 * -ESHUTDOWN or -EOWNERDEAD: nobody wants it, and this worker ends after the handler; -ECHILD: in a fork of the worker.
 */
WEIRPOOL_API int weirpool_answer(weirpool_reply *reply, const void *data, size_t size);

/*
 * The whole of a worker program (options.program): serves the pool that started this process until it stops.
 * Returns 0; -EINVAL if no pool started this process; -ESTALE if another process serves in its place already.
 */
WEIRPOOL_API int weirpool_serve(weirpool_handler *handler, void *context);

#ifdef __cplusplus
}
#endif
#endif
