/*
 * What a pool has measured: of every task that a worker ran, how long it waited and ran, and how long its worker had
 * been idle before it. Filled where results are taken. What a slot says of times is brought into order first: a worker
 * may have written anything there.
 */
#ifndef WP_TIMES_H
#define WP_TIMES_H

#include "adapt.h"
#include "histogram.h"
#include "recent.h"

struct weirpool;
struct weirpool_task;

/* All fields: pool lock. */
struct wp_times {
    struct wp_histogram waited;
    struct wp_histogram ran;
    struct wp_histogram lagged; /* from a worker's finish to its next start, while something waited */
    struct wp_recent recent;
    uint64_t completed;
    uint64_t failed; /* the handler said so, or the task was lost */
    uint64_t cancelled;
    uint64_t workers_died;
    int64_t now; /* when the taker began this batch; or when a task was accepted since */
    struct wp_adapt adapt;
    struct wp_measure measure; /* since the bound was looked at last */
    int64_t measuring_since;
    uint32_t borrowed; /* how many accepted tasks have that time */
    int64_t full_at; /* when a producer was last admitted that had waited */
};

/* ---- All with the pool lock held ---- */

/* The pool has the task, with a permit for it. */
void wp_note_accepted(struct weirpool *pool, struct weirpool_task *task);

/* A producer that waited is being admitted. */
void wp_note_blocked(struct weirpool *pool);

/* A taker begins. It has seen the done bits of what it is about to take, so that no true time is later. */
void wp_note_taking(struct weirpool *pool);

/* `worker` ran the task, whose slot is not free yet. */
void wp_note_run(struct weirpool *pool, const struct weirpool_task *task, uint32_t worker);

/* The bound is to find itself, from now on. */
void wp_adapt_begin(struct weirpool *pool, uint32_t workers);

/* After taking, before wp_flow(): sets the gate's bound, if it is adaptive and enough was measured. */
void wp_adapt_bound(struct weirpool *pool);

/* Reads the clock for stats, and counts workers' lives up to it. */
void wp_note_now(struct weirpool *pool);

/* Since when the task in this slot runs: `now` at the latest. Its state says that it does. */
int64_t wp_running_since(const struct weirpool *pool, uint32_t index);

/* The task has ended, with its `error` and `status`. */
void wp_note_end(struct weirpool *pool, const struct weirpool_task *task);

#endif
