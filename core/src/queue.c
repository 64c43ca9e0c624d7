/* The way of a task through the parent: into the table, or the overflow until there is room, and to its end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "crash.h"
#include "pool.h"

/* Writes the kept payload into the arena. -EAGAIN: there is no room at the moment. */
static int move_to_arena(struct weirpool *pool, struct weirpool_task *task, const struct iovec *parts, int count)
{
    task->extent = wp_arena_alloc(&pool->arena, task->size);
    if (task->extent == NULL) {
        return pool->arena.used > 0 ? -EAGAIN : -ENOMEM;
    }
    int rc = wp_arena_write(&pool->arena, task->extent, parts, count);
    if (rc != 0) {
        wp_arena_free(&pool->arena, task->extent);
        task->extent = NULL;
    }
    return rc;
}

static void fill_slot(struct wp_slot *slot, const struct weirpool_task *task, const struct iovec *parts, int count)
{
    wp_store_relaxed(&slot->payload_size, task->size);
    if (task->extent != NULL) {
        wp_store_relaxed(&slot->payload_at, wp_extent_at(task->extent));
    } else {
        wp_parts_copy(slot->payload, parts, count);
    }
}

/* -EAGAIN: no room in table or arena. Otherwise as move_to_arena(). */
static int try_publish(struct weirpool *pool, struct weirpool_task *task, const struct iovec *parts, int count)
{
    struct iovec kept = {.iov_base = task->bytes, .iov_len = task->size};
    if (task->bytes != NULL) {
        parts = &kept;
        count = 1;
    }
    if (wp_table_is_full(&pool->table)) {
        return -EAGAIN;
    }
    if (task->size > WP_INLINE_PAYLOAD && task->extent == NULL) {
        int rc = move_to_arena(pool, task, parts, count);
        if (rc != 0) {
            return rc;
        }
    }
    task->position = wp_table_reserve(&pool->table, task);
    task->place = WP_IN_SLOT;
    fill_slot(wp_slot_at(&pool->segment, task->position), task, parts, count);
    wp_limit_begins(pool, task);
    wp_table_publish(&pool->table, task->position);
    wp_wake_one(&pool->segment);
    free(task->bytes);
    task->bytes = NULL;
    return 0;
}

/* May it go ahead of those who wait for a place in the arena? Behind them it would hold what they need, for ever. */
static bool overtakes(const struct weirpool *pool, const struct weirpool_task *task)
{
    return task->extent != NULL && pool->unplaced > 0;
}

static void enter_overflow(struct weirpool *pool, struct weirpool_task *task, bool first)
{
    wp_list_append(first ? pool->overflow.next : &pool->overflow, &task->link);
    task->place = WP_IN_OVERFLOW;
    task->unplaced = task->size > WP_INLINE_PAYLOAD && task->extent == NULL;
    pool->unplaced += task->unplaced;
    pool->overflowing++;
}

static void leave_overflow(struct weirpool *pool, struct weirpool_task *task)
{
    wp_list_remove(&task->link);
    pool->unplaced -= task->unplaced;
    pool->overflowing--;
}

int wp_enqueue(struct weirpool *pool, struct weirpool_task *task, const struct iovec *parts, int count)
{
    wp_note_accepted(pool, task);
    bool is_next = wp_list_is_empty(&pool->overflow) || overtakes(pool, task);
    int rc = is_next ? try_publish(pool, task, parts, count) : -EAGAIN;
    if (rc != -EAGAIN) {
        return rc;
    }
    if (task->bytes == NULL && task->extent == NULL && wp_task_keep(task, parts, count) != 0) {
        return -ENOMEM;
    }
    enter_overflow(pool, task, overtakes(pool, task));
    return 0;
}

void wp_dequeue(struct weirpool *pool, struct weirpool_task *task)
{
    if (task->place == WP_IN_OVERFLOW) {
        leave_overflow(pool, task);
    } else if (task->place == WP_IN_SLOT) {
        wp_table_free(&pool->table, task->position);
        wp_limit_ends(pool, task);
    }
    task->place = WP_NOWHERE;
}

/* What was in its slot has to be kept: the slot is given up, since a position never recurs. */
static int keep_payload(struct weirpool *pool, struct weirpool_task *task)
{
    struct wp_slot *slot = wp_slot_at(&pool->segment, task->position);
    struct iovec payload = {.iov_base = slot->payload, .iov_len = task->size}; /* the size as we know it */
    return task->extent != NULL ? 0 : wp_task_keep(task, &payload, 1);
}

void wp_put_back(struct weirpool *pool, struct weirpool_task *task)
{
    int rc = keep_payload(pool, task);
    WP_CRASH("after_payload_kept");
    wp_dequeue(pool, task);
    WP_CRASH("after_slot_given_up");
    if (rc != 0) {
        wp_end_task(pool, task, rc);
        return;
    }
    task->condemned = false;
    pool->retried++;
    wp_note_accepted(pool, task);
    enter_overflow(pool, task, true);
    WP_CRASH("after_put_back");
}

static void drop_payload(struct weirpool *pool, struct weirpool_task *task)
{
    /* Of a broken pool a worker may still be reading: the extent goes with the arena. */
    if (task->extent != NULL && pool->course != WP_BROKEN) {
        wp_arena_free(&pool->arena, task->extent);
    }
    task->extent = NULL;
    free(task->bytes);
    task->bytes = NULL;
}

void wp_started(struct weirpool *pool, struct weirpool_task *task)
{
    if (!task->started) {
        task->started = true;
        wp_gate_start(&pool->gate);
    }
}

static void list_for_telling(struct weirpool *pool, struct weirpool_task *task, uint32_t interest)
{
    task->watched = (interest & (WEIRPOOL_WATCHED | WEIRPOOL_HOLDS)) != 0;
    if (task->watched) {
        wp_list_append(&pool->watched, &task->link);
    } else {
        wp_list_append(&pool->unwatched, &task->link);
        wp_store_relaxed(&pool->unwatched_count, wp_load_relaxed(&pool->unwatched_count) + 1);
    }
}

void wp_unlist_for_telling(struct weirpool *pool, struct weirpool_task *task)
{
    wp_list_remove(&task->link);
    if (!task->watched) {
        wp_store_relaxed(&pool->unwatched_count, wp_load_relaxed(&pool->unwatched_count) - 1);
    }
}

void wp_end_task(struct weirpool *pool, struct weirpool_task *task, int error)
{
    drop_payload(pool, task);
    task->error = error;
    pool->finished++;
    wp_note_end(pool, task);
    wp_started(pool, task);
    uint32_t interest = wp_settle(pool, &task->word);
    task->holding = (interest & WEIRPOOL_HOLDS) != 0;
    if (task->holding) {
        pool->held++;
    } else {
        wp_gate_return(&pool->gate, task->size);
    }
    if (!task->forced) {
        list_for_telling(pool, task, interest);
    }
    WP_CRASH("after_end_of_task");
}

static void refill(struct weirpool *pool)
{
    while (!wp_list_is_empty(&pool->overflow)) {
        struct weirpool_task *task = wp_container_of(pool->overflow.next, struct weirpool_task, link);
        int rc = try_publish(pool, task, NULL, 0);
        if (rc == -EAGAIN) {
            return;
        }
        leave_overflow(pool, task);
        if (rc != 0) {
            task->place = WP_NOWHERE;
            wp_end_task(pool, task, rc);
        }
    }
}

static void admit(struct weirpool *pool, struct weirpool_ticket *ticket)
{
    ticket->outcome = 0;
    wp_note_blocked(pool);
    int outcome = 0;
    if (ticket->task != NULL) {
        outcome = wp_enqueue(pool, ticket->task, NULL, 0);
        pool->submitted += outcome == 0;
    } else {
        pool->unpublished += !ticket->permitted;
    }
    if (outcome != 0) {
        wp_gate_start(&pool->gate);
        wp_gate_return(&pool->gate, ticket->bytes);
    }
    wp_settle_ticket(pool, ticket, outcome);
}

static void admit_producers(struct weirpool *pool)
{
    struct weirpool_ticket *ticket;
    while ((ticket = wp_gate_admit_next(&pool->gate)) != NULL) {
        WP_CRASH("after_admission");
        admit(pool, ticket);
    }
}

void wp_flow(struct weirpool *pool)
{
    refill(pool);
    if (pool->gate.bound.unstarted != 0) {
        wp_ask_for_starts(pool); /* before they are counted: what is claimed in between is seen by one of the two */
        wp_note_starts(pool);
    }
    if (pool->gate.closed == 0) {
        admit_producers(pool);
    }
    bool drained = wp_is_drained(pool) && !pool->drained_reported;
    if (drained || !wp_list_is_empty(&pool->watched)) {
        wp_ring_collector(pool);
    }
}

void wp_close_gate(struct weirpool *pool, int reason)
{
    pool->gate.closed = reason;
    struct weirpool_ticket *ticket;
    while ((ticket = wp_gate_dismiss_next(&pool->gate)) != NULL) {
        wp_settle_ticket(pool, ticket, reason);
    }
}
