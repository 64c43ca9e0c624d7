/*
 * weirpool_worker.h: the engine below weirpool.h, for language bindings and for worker processes that are started
 * by other means than fork. Same conventions: 0 or -errno (or a count, where that is said), deadlines in nanoseconds of
 * CLOCK_MONOTONIC, any thread at any time; but a weirpool_worker belongs to one thread.
 *
 * Words. A *permit* is the right of one task to be outstanding; it belongs to the task from admission to its end and
 * returns exactly once. To *take* a task is to fetch its result from shared memory, which any thread may do; to *tell*
 * it is to report it to the user, which is the caller's part.
 */
#ifndef WEIRPOOL_WORKER_H
#define WEIRPOOL_WORKER_H

#include <stdbool.h>
#include <sys/uio.h>

#include "weirpool.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Payloads and results up to these sizes travel inside a slot; larger ones take the arena, and a worker's stream. */
#define WEIRPOOL_INLINE_PAYLOAD 240
#define WEIRPOOL_INLINE_RESULT 208

/* ---- The parent: submitting ------------------------------------------------------------------------------------ */

/* What the user wants of a task's end, in bits. */
enum weirpool_interest {
    WEIRPOOL_WATCHED = 1u << 0,     /* tell it without delay: the collector is woken for it */
    WEIRPOOL_HOLDS = 1u << 1,       /* it keeps its permit until weirpool_told() */
};

enum weirpool_admission {
    WEIRPOOL_IN_BOUND = 0,
    WEIRPOOL_OVER_BOUND = 1, /* never waits; counted. For threads whose waiting would stall the pool itself */
};

/*
 * Obtains a permit for a task of `bytes` bytes, by `deadline`. Never overtakes a producer that waits already. 0 bytes:
 * how many is not known yet, and where the pool has max_bytes the caller weighs the task before it publishes it.
 * Returns 1 if one more worker is wanted (outstanding tasks exceed workers), else 0; errors as weirpool_submit().
 */
WEIRPOOL_API int weirpool_admit(weirpool *pool, enum weirpool_admission admission, size_t bytes, int64_t deadline);

/*
 * The caller's permit, obtained with 0 bytes, is for a task of so many. Needless without max_bytes. Errors: -EAGAIN (no
 * room: wait in line, `permitted`), -ESHUTDOWN, -EPIPE, -ECHILD; the permit stays the caller's.
 */
WEIRPOOL_API int weirpool_weigh(weirpool *pool, enum weirpool_admission admission, size_t bytes);

/* Gives back a permit, with the bytes that it was obtained or weighed with, for which nothing will be published. */
WEIRPOOL_API void weirpool_forgo(weirpool *pool, size_t weighed);

/* A task to publish, or a place to take in line. What is not said is 0. */
struct weirpool_request {
    const struct iovec *parts;      /* the task in pieces, which are copied; NULL: a place for a bare permit */
    int count;
    void *user;
    unsigned interest;              /* enum weirpool_interest */
    size_t weighed;                 /* what the permit was obtained or weighed with; without parts: is to be */
    bool permitted;                 /* a place for `weighed` alone: the caller has a permit */
    int bell;                       /* an eventfd to ring when the turn has come or never will; 0: none */
    uint32_t retries;               /* how often the task may run again after its worker died or its time was over */
    uint64_t limit_ns;              /* how long one attempt may run; 0: no limit. Both need options.replace */
};

/*
 * Publishes a task under a permit that the caller holds; never waits. On an error the permit has been given back.
 * Errors: -EPIPE (broken), -ENOMEM, -EMSGSIZE, -EINVAL (retries or a limit without options.replace), -ECHILD.
 */
WEIRPOOL_API int weirpool_publish(weirpool *pool, const struct weirpool_request *request, weirpool_task **task);

/*
 * A place in the line at the gate. With parts a copy of the task stays there: whoever frees a permit publishes it, so
 * that workers need not wait for the producer to be scheduled. At most WEIRPOOL_PARK_LIMIT bytes: -EMSGSIZE. Other
 * errors: -ESHUTDOWN, -EPIPE, -ENOMEM, -EINVAL, -ECHILD. A ticket is used by one thread at a time, and ends with
 * weirpool_await() or weirpool_leave(); the bell stays open until then.
 */
typedef struct weirpool_ticket weirpool_ticket;
#define WEIRPOOL_PARK_LIMIT ((size_t)64 * 1024)
WEIRPOOL_API int weirpool_queue(weirpool *pool, const struct weirpool_request *request, weirpool_task **task,
                                weirpool_ticket **ticket);

/*
 * Waits by `deadline` until the ticket's turn has come. -EAGAIN, -ETIMEDOUT, -EINTR: not yet, and the place is kept.
 * -ECHILD: the ticket is the parent's. Anything else ends it. 0: the task was published, or what was waited for is the
 * caller's; -ESHUTDOWN, -EPIPE (broken), -ENOMEM: nothing was submitted. A permit from before stays the caller's.
 */
WEIRPOOL_API int weirpool_await(weirpool *pool, weirpool_ticket *ticket, int64_t deadline);

/*
 * Gives the place up and ends the ticket. 0: nothing was submitted. 1: its turn had come, as weirpool_await() 0.
 * -ESHUTDOWN, -EPIPE, -ENOMEM: it had ended so, as in weirpool_await(). -ECHILD: the ticket is the parent's.
 */
WEIRPOOL_API int weirpool_leave(weirpool *pool, weirpool_ticket *ticket);

/* ---- The parent: tasks ------------------------------------------------------------------------------------------ */

enum weirpool_phase { WEIRPOOL_WAITING, WEIRPOOL_RUNNING, WEIRPOOL_TAKEN };

/* Where a task stands. Costs no lock once it is taken. In a forked child: WAITING, unless it was taken at the fork. */
WEIRPOOL_API enum weirpool_phase weirpool_phase(weirpool *pool, weirpool_task *task);

/*
 * Declares interest in a task's end. Returns false if the task had been taken already: then nothing was declared,
 * and nobody else will tell about this interest.
 */
WEIRPOOL_API bool weirpool_interest(weirpool_task *task, unsigned interest);

/* The task has been told: returns the permit that WEIRPOOL_HOLDS kept. Any other task: nothing happens. */
WEIRPOOL_API void weirpool_told(weirpool *pool, weirpool_task *task);

/*
 * Waits by `deadline` until a task is taken. The calling thread may take results for others meanwhile.
 * Errors: -EAGAIN, -ETIMEDOUT, -EINTR, -ECHILD.
 */
WEIRPOOL_API int weirpool_wait(weirpool *pool, weirpool_task *task, int64_t deadline);

/* Takes back a task that no worker has started; it will be in no batch. -EBUSY: it runs or has ended. */
WEIRPOOL_API int weirpool_withdraw(weirpool *pool, weirpool_task *task);

/*
 * Ends a task that may be running, for good: its worker is killed, and only if it still runs this task. Waits for the
 * end of that process, as long as that takes. 0: the task has ended with -ECANCELED, and will be in no batch; where its
 * worker was killed WEIRPOOL_WORKER_LEFT reports that. Errors: -EBUSY (it has finished), -EALREADY (another call of
 * this has ended it, and tells it), -EINVAL (the pool was opened without options.replace), -ECHILD. Nobody may release
 * the task meanwhile.
 */
WEIRPOOL_API int weirpool_stop(weirpool *pool, weirpool_task *task);

/* Describes a taken task. */
WEIRPOOL_API void weirpool_describe(weirpool_task *task, struct weirpool_completion *completion);

/* Frees the bytes of a taken task's result, not the task. */
WEIRPOOL_API void weirpool_drop_result(weirpool_task *task);

/* Hands the bytes of a taken task's result over: the caller frees them, with free(). The task has none afterwards. */
WEIRPOOL_API void *weirpool_keep_result(weirpool_task *task, size_t *size);

/* ---- The parent: collecting -------------------------------------------------------------------------------------- */

enum weirpool_event_kind {
    WEIRPOOL_NOTHING,               /* there are only tasks to tell */
    WEIRPOOL_WORKER_LEFT,           /* a planned exit, or with options.replace a death: reap `worker`, then
                                       weirpool_worker_vacate() it; another may be wanted */
    WEIRPOOL_BROKE,                 /* every task has been ended; the workers have to be ended too */
    WEIRPOOL_DRAINED,               /* shut down and nothing outstanding; workers have been told to leave */
};

struct weirpool_event {
    enum weirpool_event_kind kind;
    uint32_t worker;
};

/*
 * Waits by `deadline` for something to tell: fills `tasks` with up to `room` taken tasks and `event` with what else
 * happened (WEIRPOOL_BROKE and WEIRPOOL_DRAINED come only when no task is left to tell before them). Returns the number
 * of tasks. Errors: -EAGAIN, -ETIMEDOUT, -EINTR, -ECHILD, -EBUSY (one thread at a time), -EINVAL (`room` is not
 * positive).
 */
WEIRPOOL_API int weirpool_collect(weirpool *pool, weirpool_task **tasks, int room, struct weirpool_event *event,
                                  int64_t deadline);

/*
 * Fetches taken tasks that nobody watches, without waiting: a thread that has a moment tells them, so that the
 * collector need not be woken. Returns their number.
 */
WEIRPOOL_API int weirpool_sweep(weirpool *pool, weirpool_task **tasks, int room);

/*
 * Ends every task that no worker has started with -ECANCELED; the collector tells them. If no task has started yet,
 * the `spare` oldest are left to run.
 */
WEIRPOOL_API int weirpool_cancel_waiting(weirpool *pool, uint64_t spare);

/*
 * Breaks the pool. What workers have done is taken first. Producers, those that wait and later ones, get -EPIPE; every
 * other task ends with -EPIPE (-EOWNERDEAD if its worker is dead), and waits for it return 0. Errors: -EALREADY (it was
 * broken), -ECHILD.
 */
WEIRPOOL_API int weirpool_break(weirpool *pool);

/* Compares every invariant of the pool. Returns 0, or -EUCLEAN and a sentence in `why`. For tests. */
WEIRPOOL_API int weirpool_check(weirpool *pool, char *why, size_t room);

/* ---- The parent: workers ----------------------------------------------------------------------------------------- */

/* What a worker process needs beside its badge. The pool owns them; a worker inherits or receives copies. */
struct weirpool_channel {
    int segment;                    /* the shared memory */
    int doorbell;                   /* wakes the collector */
    int parent;                     /* a pidfd of this process, by which a worker sees it die */
};

/* The descriptors for a worker about to be started; good until the pool is closed. */
WEIRPOOL_API void weirpool_channel(const weirpool *pool, struct weirpool_channel *channel);

/*
 * Reserves a number for a worker about to be started. -EAGAIN: there are as many as the pool may have; -EPIPE;
 * -ESHUTDOWN once the workers were told to leave.
 */
WEIRPOOL_API int weirpool_worker_reserve(weirpool *pool, uint32_t *worker);

/* The worker runs: `fd` becomes readable when it ends (a pidfd). The pool uses a copy of it. */
WEIRPOOL_API int weirpool_worker_watch(weirpool *pool, uint32_t worker, int fd, int pid);

/*
 * What the worker about to be started has to show when it attaches. It lets one process in, and none any more once the
 * number was revoked or abandoned: a process that comes late finds the door shut, also if another has the number then.
 */
WEIRPOOL_API uint32_t weirpool_worker_badge(weirpool *pool, uint32_t worker);

/*
 * Turns the reserved worker away, if it has not attached: its process is not needed any more, or nobody knows whether
 * there is one. Where it is watched its end is a planned one. -EALREADY: a process has attached, or the worker was
 * turned away before; -ECHILD.
 */
WEIRPOOL_API int weirpool_worker_revoke(weirpool *pool, uint32_t worker);

/*
 * The reserved worker could not be started, or not be watched. A process that did not attach is turned away if it still
 * comes. One that did has ended by now (whoever cannot tell asks weirpool_worker_revoke() first, and where that says
 * -EALREADY has to break the pool); if it had claimed a task, that is a death.
 */
WEIRPOOL_API void weirpool_worker_abandon(weirpool *pool, uint32_t worker);

/* A worker that left was reaped: its number may be reserved again. */
WEIRPOOL_API void weirpool_worker_vacate(weirpool *pool, uint32_t worker);

/* 1 if one more worker is wanted: outstanding tasks exceed workers, and there may be more of them. Else 0; -ECHILD. */
WEIRPOOL_API int weirpool_worker_wanted(weirpool *pool);

/* ---- A gate alone ------------------------------------------------------------------------------------------------ */

/*
 * The weir of a pool for an executor that is not: it hands out permits, first come first served, and knows nothing of
 * tasks. Its user tells what becomes of each permit. In a forked child every function returns -ECHILD.
 */
typedef struct weirpool_gate weirpool_gate;

/* At most so many permits out, and so many of these not started; 0: no such bound. Errors: -ENOMEM. */
WEIRPOOL_API int weirpool_gate_open(weirpool_gate **gate, uint64_t tasks, uint64_t unstarted);

/* Frees the gate. No other thread may be inside or call any function on it, and no ticket may be left. */
WEIRPOOL_API int weirpool_gate_close(weirpool_gate *gate);

/*
 * Obtains a permit by `deadline`; never overtakes a producer that waits already, unless it is WEIRPOOL_OVER_BOUND.
 * Errors: -EAGAIN, -ETIMEDOUT, -EINTR (a signal came: the place in line is given up), -ESHUTDOWN, -ECHILD.
 */
WEIRPOOL_API int weirpool_gate_admit(weirpool_gate *gate, enum weirpool_admission admission, int64_t deadline);

/* A permit's task was started: once a permit. */
WEIRPOOL_API int weirpool_gate_start(weirpool_gate *gate);

/* A permit comes back; `started`: weirpool_gate_start() was called for it. */
WEIRPOOL_API int weirpool_gate_return(weirpool_gate *gate, bool started);

/*
 * A place in line, as weirpool_queue(), for a caller that keeps it over several waits, or (`bell`: an eventfd, 0: none)
 * does not wait here at all. Errors: -ESHUTDOWN, -ENOMEM, -ECHILD.
 */
WEIRPOOL_API int weirpool_gate_queue(weirpool_gate *gate, int bell, weirpool_ticket **ticket);

/* As weirpool_await(): 0 is a permit, or -ESHUTDOWN. -EAGAIN, -ETIMEDOUT, -EINTR, -ECHILD: the ticket lives on. */
WEIRPOOL_API int weirpool_gate_await(weirpool_gate *gate, weirpool_ticket *ticket, int64_t deadline);

/* As weirpool_leave(): 0; 1 is a permit; -ESHUTDOWN. -ECHILD: the ticket is the parent's. */
WEIRPOOL_API int weirpool_gate_leave(weirpool_gate *gate, weirpool_ticket *ticket);

/* Admits nobody any more: those who wait, and later ones, get -ESHUTDOWN. Permits that are out return as ever. */
WEIRPOOL_API int weirpool_gate_shut(weirpool_gate *gate);

/* Fills in what concerns permits: the bound, outstanding, waiting, running, the peak, and producers. Else 0. */
WEIRPOOL_API int weirpool_gate_stats(weirpool_gate *gate, struct weirpool_stats *stats);

/* ---- The worker -------------------------------------------------------------------------------------------------- */

typedef struct weirpool_worker weirpool_worker;

struct weirpool_claimed {
    const void *payload;            /* valid until weirpool_finish() */
    size_t size;
};

/*
 * Attaches this process to the pool. -ESTALE: the badge lets nobody in any more, so leave without a word; -EPROTO: not a
 * segment of this version; -ENOMEM. The descriptors stay the caller's.
 */
WEIRPOOL_API int weirpool_attach(weirpool_worker **worker, const struct weirpool_channel *channel, uint32_t badge);

/*
 * Claims a task, by `deadline`. -ESHUTDOWN: leave now, with WEIRPOOL_LEAVES; -EOWNERDEAD: the parent is gone;
 * -EAGAIN, -ETIMEDOUT, -EINTR (a signal came); -ECHILD: in a fork of the worker; -EPROTO: its payload lies outside the
 * arena, so end this process: the shared memory is corrupt.
 */
WEIRPOOL_API int weirpool_claim(weirpool_worker *worker, struct weirpool_claimed *claimed, int64_t deadline);

/* Claims nothing until `deadline`, or until the pool needs no worker any more: for one that was interrupted. */
WEIRPOOL_API void weirpool_hold_back(weirpool_worker *worker, int64_t deadline);

/*
 * Finishes the claimed task. Waits while a large result finds no room. -EOWNERDEAD or -ESHUTDOWN: nobody wants it;
 * -ECANCELED: it was stopped, and this process is about to be killed: end it; -ECHILD: in a fork of the worker.
 */
WEIRPOOL_API int weirpool_finish(weirpool_worker *worker, int status, const struct iovec *parts, int count);

enum weirpool_standing {
    WEIRPOOL_UP,                    /* ready to claim */
    WEIRPOOL_LEAVES,                /* about to exit as planned: its end is no death */
    WEIRPOOL_INIT_FAILED,           /* could not set itself up: its end breaks the pool */
};

/* Tells the parent how this worker stands. */
WEIRPOOL_API void weirpool_announce(weirpool_worker *worker, enum weirpool_standing standing);

/* Unmaps the pool's memory and frees `worker`, also in a fork of it. The descriptors stay open. */
WEIRPOOL_API void weirpool_detach(weirpool_worker *worker);

#ifdef __cplusplus
}
#endif
#endif
