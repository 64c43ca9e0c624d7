/* Submitting: a permit, then the payload, then the queue. */
#include <errno.h>
#include <stdlib.h>

#include "pool.h"

/* It would never find a place in the arena. */
static bool is_too_large(const struct weirpool *pool, size_t size)
{
    return size > WP_INLINE_PAYLOAD && size > pool->arena.size;
}

/* ---- waiting in line ---- */

static int make_ticket(const struct iovec *parts, int count, void *user, unsigned interest, weirpool_ticket **out)
{
    weirpool_ticket *ticket = calloc(1, sizeof *ticket);
    if (ticket != NULL && parts != NULL) {
        ticket->task = wp_task_new(user, interest, wp_parts_size(parts, count));
    }
    *out = ticket;
    if (ticket == NULL || (parts != NULL && ticket->task == NULL)) {
        return -ENOMEM;
    }
    return parts != NULL ? wp_task_keep(ticket->task, parts, count) : 0;
}

/* With its task, unless that was published. */
static void free_ticket(weirpool_ticket *ticket, bool published)
{
    if (ticket != NULL && ticket->task != NULL && !published) {
        wp_task_free(ticket->task);
    }
    free(ticket);
}

/* Lock held. */
static int join_line(struct weirpool *pool, weirpool_ticket *ticket)
{
    if (pool->gate.closed != 0) {
        return pool->gate.closed;
    }
    ticket->since = wp_os_now();
    wp_gate_queue(&pool->gate, ticket);
    wp_flow(pool); /* room may have been made since the caller looked */
    return 0;
}

int weirpool_queue(weirpool *pool, const struct iovec *parts, int count, void *user, unsigned interest,
                   weirpool_task **task, weirpool_ticket **out)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    size_t size = parts != NULL ? wp_parts_size(parts, count) : 0;
    if (size > WEIRPOOL_PARK_LIMIT || is_too_large(pool, size)) {
        return -EMSGSIZE;
    }
    weirpool_ticket *ticket;
    rc = make_ticket(parts, count, user, interest, &ticket);
    if (rc == 0) {
        if (task != NULL) {
            *task = ticket->task; /* before anybody can take it */
        }
        wp_lock(pool);
        rc = join_line(pool, ticket);
        wp_unlock(pool);
    }
    if (rc != 0) {
        free_ticket(ticket, false);
        return rc;
    }
    *out = ticket;
    return 0;
}

/* Lock held. The ticket is settled: its outcome, and its end. */
static int end_ticket(struct weirpool *pool, weirpool_ticket *ticket)
{
    int outcome = ticket->outcome;
    pool->gate.blocked_ns += (uint64_t)(wp_os_now() - ticket->since);
    free_ticket(ticket, outcome == 0);
    return outcome;
}

int weirpool_await(weirpool *pool, weirpool_ticket *ticket, int64_t deadline)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    rc = wp_sleep_until_settled(pool, &ticket->word, deadline);
    if (rc == 0) {
        rc = end_ticket(pool, ticket);
    }
    wp_unlock(pool);
    return rc;
}

int weirpool_leave(weirpool *pool, weirpool_ticket *ticket)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    if (wp_is_settled(wp_load_acquire(&ticket->word))) {
        rc = end_ticket(pool, ticket);
        rc = rc == 0 ? 1 : rc;
    } else {
        wp_gate_withdraw(&pool->gate, ticket);
        ticket->outcome = -ECANCELED;
        (void)end_ticket(pool, ticket);
    }
    wp_unlock(pool);
    return rc;
}

static int queue_and_wait(struct weirpool *pool, const struct iovec *parts, int count, void *user, unsigned interest,
                          weirpool_task **task, int64_t deadline)
{
    weirpool_ticket *ticket;
    int rc = weirpool_queue(pool, parts, count, user, interest, task, &ticket);
    if (rc != 0) {
        return rc;
    }
    rc = weirpool_await(pool, ticket, deadline);
    if (rc == -EAGAIN || rc == -ETIMEDOUT || rc == -EINTR) {
        int left = weirpool_leave(pool, ticket);
        rc = left == 0 ? rc : left == 1 ? 0 : left;
    }
    return rc;
}

/* ---- permits ---- */

/* Lock held. */
static int admit_now(struct weirpool *pool, enum weirpool_admission admission)
{
    if (pool->gate.closed != 0) {
        return pool->gate.closed;
    }
    if (admission == WEIRPOOL_OVER_BOUND) {
        wp_gate_force(&pool->gate);
    } else if (!wp_gate_try(&pool->gate)) {
        return -EAGAIN;
    }
    pool->unpublished++;
    return 0;
}

int weirpool_admit(weirpool *pool, enum weirpool_admission admission, int64_t deadline)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    rc = admit_now(pool, admission);
    wp_unlock(pool);
    if (rc == -EAGAIN && deadline > 0) {
        rc = queue_and_wait(pool, NULL, 0, NULL, 0, NULL, deadline);
    }
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    rc = wp_is_worker_wanted(pool);
    wp_unlock(pool);
    return rc;
}

/* Lock held. */
static void give_back_permit(struct weirpool *pool)
{
    pool->unpublished--;
    wp_gate_return(&pool->gate);
    wp_flow(pool);
}

void weirpool_forgo(weirpool *pool)
{
    if (wp_check_owner(pool) == 0) {
        wp_lock(pool);
        give_back_permit(pool);
        wp_unlock(pool);
    }
}

/* ---- payloads ---- */

/*
 * Copies a large payload into the arena, without the lock. No room there, or others wait for room: the task will keep a
 * private copy.
 */
static int place_large(struct weirpool *pool, struct weirpool_task *task, const struct iovec *parts, int count)
{
    if (task->size <= WP_INLINE_PAYLOAD) {
        return 0;
    }
    if (is_too_large(pool, task->size)) {
        return -EMSGSIZE;
    }
    wp_lock(pool);
    struct wp_extent *extent = pool->unplaced == 0 ? wp_arena_alloc(&pool->arena, task->size) : NULL;
    wp_unlock(pool);
    if (extent == NULL) {
        return wp_task_keep(task, parts, count);
    }
    task->extent = extent;
    return wp_arena_write(&pool->arena, extent, parts, count);
}

static int enqueue_admitted(struct weirpool *pool, struct weirpool_task *task, const struct iovec *parts, int count)
{
    int rc = pool->course == WP_BROKEN ? -EPIPE : wp_enqueue(pool, task, parts, count);
    if (rc == 0) {
        pool->unpublished--;
        pool->submitted++;
    }
    return rc;
}

/* Lock held. A task that was never enqueued: nobody else knows it. */
static void discard(struct weirpool *pool, struct weirpool_task *task)
{
    if (task != NULL && task->extent != NULL) {
        wp_arena_free(&pool->arena, task->extent);
    }
    if (task != NULL) {
        wp_task_free(task);
    }
}

int weirpool_publish(weirpool *pool, const struct iovec *parts, int count, void *user, unsigned interest,
                     weirpool_task **out)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    struct weirpool_task *task = wp_task_new(user, interest, wp_parts_size(parts, count));
    rc = task == NULL ? -ENOMEM : place_large(pool, task, parts, count);
    wp_lock(pool);
    if (rc == 0) {
        if (out != NULL) {
            *out = task;
        }
        rc = enqueue_admitted(pool, task, parts, count);
    }
    if (rc != 0) {
        discard(pool, task);
        give_back_permit(pool);
    }
    wp_unlock(pool);
    return rc;
}

/* The permit first, the copy afterwards. */
static int submit_with_permit(weirpool *pool, const struct iovec *payload, void *user, int64_t deadline,
                              weirpool_task **task)
{
    int rc = weirpool_admit(pool, WEIRPOOL_IN_BOUND, deadline);
    return rc < 0 ? rc : weirpool_publish(pool, payload, 1, user, WEIRPOOL_WATCHED, task);
}

int weirpool_submit(weirpool *pool, const void *data, size_t size, void *user, int64_t deadline, weirpool_task **task)
{
    struct iovec payload = {.iov_base = (void *)data, .iov_len = size};
    int rc = submit_with_permit(pool, &payload, user, WEIRPOOL_NOW, task);
    if (rc != -EAGAIN || deadline <= 0) {
        return rc;
    }
    if (size > WEIRPOOL_PARK_LIMIT) {
        return submit_with_permit(pool, &payload, user, deadline, task);
    }
    return queue_and_wait(pool, &payload, 1, user, WEIRPOOL_WATCHED, task, deadline);
}
