/*
 * The parent's side of a pool, all in private memory. One mutex, the pool lock, protects all of it: it is held for
 * short pieces of bookkeeping and small copies, never while sleeping or while user code runs. Larger copies (into the
 * arena, out of a stream) are made without it, except of a payload that had to wait for room in the arena.
 */
#ifndef WP_POOL_H
#define WP_POOL_H

#include <errno.h>
#include <pthread.h>

#include "arena.h"
#include "gate.h"
#include "os/os.h"
#include "park.h"
#include "segment.h"
#include "spin.h"
#include "stream.h"
#include "table.h"
#include "task.h"
#include "times.h"

enum wp_course { WP_OPEN, WP_CLOSING, WP_BROKEN };

/* One worker process as the parent sees it. */
struct wp_member {
    bool reserved;
    bool counted; /* in the pool's `live`: it starts or runs, whatever its record says */
    bool gone; /* its end was seen to: it has no task any more */
    bool own_child; /* the core started it and has to reap it */
    uint16_t reservation; /* how often the number was reserved; see wp_badge() */
    int pid;
    int process; /* readable when the process has ended; -1 */
    int exit_status; /* of an own child, once reaped */
    uint64_t tasks; /* that it has run */
    uint64_t busy_ns; /* with them */
    int64_t running_since; /* as stats.c saw it last */
    uint32_t seen_at; /* in which slot check.c saw its task */
    bool has_left; /* or has died, where that breaks nothing; not yet reported */
    bool stopped; /* the pool kills it, for the sake of a task: its end is no death */
    /* Its stream. `draining` makes one thread at a time the drainer, which works without the pool lock. */
    bool draining;
    struct wp_stream_cursor cursor;
    struct weirpool_task *receiving; /* whose result comes through the stream right now */
    struct weirpool_task *owed; /* a task that it said is done, and whose result has not come whole yet */
};

/* Somebody who sleeps until `word` is settled. On its stack. */
struct wp_sleeper {
    struct wp_link link;
    _Atomic uint32_t *word;
};

struct weirpool {
    pthread_mutex_t lock;
    unsigned generation; /* of forks */
    enum wp_course course;
    enum weirpool_fault fault; /* why it is WP_BROKEN */
    bool replaces; /* a worker's death costs only its task */
    uint32_t deaths_in_a_row; /* since a task finished */

    struct wp_segment segment;
    struct wp_table table;
    struct wp_arena arena;
    struct wp_gate gate;
    struct wp_link overflow;
    uint64_t overflowing; /* tasks in the overflow */
    uint64_t unplaced; /* of these, how many need a place in the arena */
    uint64_t unpublished; /* permits whose task is not in table or overflow yet */
    uint64_t starts_seen; /* tasks at positions below are known to have been started */
    struct wp_link limited; /* tasks with a limit, in slots: in the order of their positions */
    uint64_t limited_count;
    int64_t shortest_limit; /* of those that are queued there, or shorter */
    uint64_t steps_earned; /* towards finding it anew; see find_shortest() */
    int64_t alarm_at; /* when the first of them could be over it */
    uint64_t held; /* permits of taken tasks that are not told yet */
    uint64_t submitted;
    uint64_t finished; /* ended, however */
    uint64_t executed; /* ended by their workers */
    uint64_t retried; /* attempts that were put back */
    uint64_t stopped; /* attempts that were condemned */
    struct wp_times times;

    struct wp_program *program; /* that the core starts as workers; NULL */
    bool filling; /* a thread starts workers that are missing */
    int64_t fill_after; /* it failed: when that may be tried again; 0: it did not */

    struct wp_member *members;
    uint32_t departures; /* workers whose leaving is not yet reported */
    uint32_t live; /* workers that are starting or running: reserved, and not seen to have ended */
    uint64_t *to_drain; /* a bit a worker: its stream has something */
    uint32_t drain_next; /* the worker whose turn it is */

    struct wp_link watched; /* taken; the collector tells them */
    struct wp_link unwatched; /* taken; whoever has a moment tells them */
    _Atomic uint64_t unwatched_count;

    bool collecting; /* a thread is in weirpool_collect() */
    bool collector_asleep; /* or has armed weirpool_fd() */
    bool collector_rung;
    int64_t saw_to_workers; /* when wp_see_to_workers() was there last */
    int64_t collector_looked; /* when a collector last looked around */
    struct wp_link sleepers;
    int64_t helper_looked; /* when a helper last looked around */
    uint32_t quiet_wanted; /* threads that want streams to be left alone */
    bool helper_asleep;
    struct wp_spin helper_spin; /* of whoever is helper */
    _Atomic uint32_t *helper_word; /* what the helper waits for; NULL: nobody is helper */

    bool broke_unreported;
    bool drained_reported;

    int doorbell;
    int parent; /* a pidfd of this process */
    int watch;
    int alarm; /* in the watch; -1 unless it replaces */
};

/* What else than a worker's number the watch reports. */
#define WP_NO_WORKER UINT32_MAX /* the doorbell */
#define WP_ALARM (UINT32_MAX - 1)
#define WP_NO_SLOT UINT32_MAX

/* Shut down, and everything has ended? */
static inline bool wp_is_drained(const struct weirpool *pool)
{
    return pool->course == WP_CLOSING && pool->gate.outstanding == 0;
}

static inline void wp_lock(struct weirpool *pool)
{
    pthread_mutex_lock(&pool->lock);
}

static inline void wp_unlock(struct weirpool *pool)
{
    pthread_mutex_unlock(&pool->lock);
}

/* -ECHILD in a fork of the process that owns the pool, else 0. */
int wp_check_owner(const struct weirpool *pool);

/* line.c: stands in line and waits; past the deadline leaves. Without the lock. */
int wp_queue_and_wait(struct weirpool *pool, const struct weirpool_request *request, weirpool_task **task,
                      int64_t deadline);

/* submit.c: retries and limits are for a pool that replaces its workers. Needs no lock. */
bool wp_can_grant(const struct weirpool *pool, const struct weirpool_request *request);

/* members.c: weirpool_worker_watch(); an own child is reaped when it has ended. */
int wp_watch_worker(struct weirpool *pool, uint32_t worker, int fd, int pid, bool own_child);

static inline int64_t wp_sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* What a deadline that has passed is called: a try, or a wait that was too long. */
static inline int wp_too_late(int64_t deadline)
{
    return deadline <= 0 ? -EAGAIN : -ETIMEDOUT;
}

/* ---- All below: with the pool lock held ---- */

/* queue.c: puts an admitted task, whose payload is in `parts` or kept with it, into the table or the overflow. */
int wp_enqueue(struct weirpool *pool, struct weirpool_task *task, const struct iovec *parts, int count);

/* queue.c: an attempt at a task in a slot was lost: the task waits again, before those in the overflow. */
void wp_put_back(struct weirpool *pool, struct weirpool_task *task);

/* queue.c: room was made: publishes from the overflow, admits waiting producers, rings for what is to be told. */
void wp_flow(struct weirpool *pool);

/* queue.c: a task was started, or has ended: it is unstarted no more. */
void wp_started(struct weirpool *pool, struct weirpool_task *task);

/* starts.c: counts which tasks workers have started, where that is bounded. */
void wp_note_starts(struct weirpool *pool);

/* starts.c: makes workers say that they have started a task, while a producer waits for that. */
void wp_ask_for_starts(struct weirpool *pool);

/* submit.c: such a payload would never find a place in the arena. */
bool wp_is_too_large(const struct weirpool *pool, size_t size);

/* line.c: the ticket's turn has come, or never will. */
void wp_settle_ticket(struct weirpool *pool, struct weirpool_ticket *ticket, int outcome);

/* queue.c: removes a task from table or overflow. */
void wp_dequeue(struct weirpool *pool, struct weirpool_task *task);

/* queue.c: a task that is in neither table nor overflow any more ends: its permit returns, whoever waits is woken. */
void wp_end_task(struct weirpool *pool, struct weirpool_task *task, int error);

/* queue.c: the caller tells an ended task itself. */
void wp_unlist_for_telling(struct weirpool *pool, struct weirpool_task *task);

/* queue.c: turns all waiting producers away, and whoever comes later. */
void wp_close_gate(struct weirpool *pool, int reason);

/* take.c: one turn: fetches what is done, and a piece of one stream. Returns whether there is more at once: workers may
 * stream without end, so whoever takes has to say when it is enough. May release the lock for a while. */
bool wp_take(struct weirpool *pool);

/* take.c: is there anything to take? Needs no lock. */
bool wp_has_results(const struct weirpool *pool);

/* take.c: sets the bit of every slot that is done, also where its worker did not come to that. */
void wp_mark_done_slots(struct weirpool *pool);

/* take.c: fetches all that is done at this moment, with the streams it takes. Releases the lock meanwhile. */
void wp_take_all_done(struct weirpool *pool);

/* take.c: waits until no thread drains a stream. Releases the lock meanwhile. */
void wp_wait_for_drainers(struct weirpool *pool);

/* ask.c: ends a task that no worker has started; it is in the lists of tasks to tell afterwards. False: it has been. */
bool wp_cancel_unstarted(struct weirpool *pool, struct weirpool_task *task);

/* condemn.c: a task that runs is not to finish any more, and its worker is killed: repair.c sees to the rest when that
 * has ended. False: it does not run, or has finished. */
bool wp_condemn(struct weirpool *pool, struct weirpool_task *task);

/* condemn.c: kills a worker that runs a condemned task, once its process is known. */
void wp_kill_if_stopped(struct weirpool *pool, uint32_t worker);

/* collect.c: waits for the doorbell, for ended workers and for tasks over their limits, and handles the latter two.
 * Returns how many there were, 0 at the deadline, -EINTR. Releases the lock meanwhile. */
int wp_see_to_workers(struct weirpool *pool, int64_t deadline);

/* repair.c: a worker's process has ended. Releases the lock meanwhile. */
void wp_worker_ended(struct weirpool *pool, uint32_t worker);

/* repair.c: a reserved worker could not be started, or not be watched. A process that attached has ended; one that did
 * not is turned away if it still comes. Releases the lock meanwhile. */
void wp_worker_failed(struct weirpool *pool, uint32_t worker);

/* limits.c: the task, which may have a limit, is about to be published in its slot; is out of it. */
void wp_limit_begins(struct weirpool *pool, struct weirpool_task *task);
void wp_limit_ends(struct weirpool *pool, struct weirpool_task *task);

/* limits.c: stops the tasks that are over their limits. */
void wp_enforce_limits(struct weirpool *pool);

/* stats.c: tasks that a worker has started, and whose results were not taken yet. */
uint64_t wp_count_running(const struct weirpool *pool);

/* check.c: breaks a pool whose shared memory a worker has scribbled over so that a task would not end, or workers would
 * go astray; and sets the bits of done slots that were lost. May release the lock. */
void wp_audit(struct weirpool *pool);

/* members.c: do outstanding tasks exceed workers, and may there be one more? */
bool wp_is_worker_wanted(const struct weirpool *pool);

/* repair.c: ends everything; `culprit` is the worker whose death did it, or WP_NO_WORKER. Releases the lock while
 * streams are being drained. */
void wp_break(struct weirpool *pool, uint32_t culprit, enum weirpool_fault fault);

/* roles.c: sleeps until *word is settled. 0, -EAGAIN, -ETIMEDOUT, -EINTR. Releases the lock meanwhile. */
int wp_sleep_until_settled(struct weirpool *pool, _Atomic uint32_t *word, int64_t deadline);

/* roles.c: settles a word and wakes who sleeps on it. Returns the word from before. */
uint32_t wp_settle(struct weirpool *pool, _Atomic uint32_t *word);

/* roles.c: says whom workers ring: the helper, else a sleeping collector, else nobody. */
void wp_address(struct weirpool *pool);

/* roles.c: makes a sleeping collector look, for what some other thread took. */
void wp_ring_collector(struct weirpool *pool);

/* roles.c: the caller stops taking although there is more: makes the helper, or a sleeping collector, go on. */
void wp_pass_on(struct weirpool *pool);

#endif
