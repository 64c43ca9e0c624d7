/* Submitting: a permit, then the payload, then the queue. */
#include <errno.h>
#include <stdlib.h>

#include "pool.h"

bool wp_is_too_large(const struct weirpool *pool, size_t size)
{
    return size > WP_INLINE_PAYLOAD && size > pool->arena.size;
}

bool wp_can_grant(const struct weirpool *pool, const struct weirpool_request *request)
{
    return pool->replaces || (request->retries == 0 && request->limit_ns == 0);
}

/* ---- permits ---- */

/* Lock held. */
static int admit_now(struct weirpool *pool, enum weirpool_admission admission, size_t bytes)
{
    if (pool->gate.closed != 0) {
        return pool->gate.closed;
    }
    if (wp_gate_lacks_starts(&pool->gate)) {
        wp_flow(pool); /* some may have been started */
    }
    if (admission == WEIRPOOL_OVER_BOUND) {
        wp_gate_force(&pool->gate, bytes);
    } else if (!wp_gate_try(&pool->gate, bytes)) {
        return -EAGAIN;
    }
    pool->unpublished++;
    return 0;
}

int weirpool_admit(weirpool *pool, enum weirpool_admission admission, size_t bytes, int64_t deadline)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    rc = admit_now(pool, admission, bytes);
    wp_unlock(pool);
    if (rc == -EAGAIN && deadline > 0) {
        const struct weirpool_request request = {.weighed = bytes};
        rc = wp_queue_and_wait(pool, &request, NULL, deadline);
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
static int weigh_now(struct weirpool *pool, enum weirpool_admission admission, size_t bytes)
{
    if (pool->gate.closed != 0) {
        return pool->gate.closed;
    }
    if (admission == WEIRPOOL_OVER_BOUND) {
        wp_gate_force_weigh(&pool->gate, bytes);
        return 0;
    }
    return wp_gate_try_weigh(&pool->gate, bytes) ? 0 : -EAGAIN;
}

int weirpool_weigh(weirpool *pool, enum weirpool_admission admission, size_t bytes)
{
    int rc = wp_check_owner(pool);
    if (rc == 0) {
        wp_lock(pool);
        rc = weigh_now(pool, admission, bytes);
        wp_unlock(pool);
    }
    return rc;
}

/* Lock held. */
static void give_back_permit(struct weirpool *pool, size_t weighed)
{
    pool->unpublished--;
    wp_gate_start(&pool->gate);
    wp_gate_return(&pool->gate, weighed);
    wp_flow(pool);
}

void weirpool_forgo(weirpool *pool, size_t weighed)
{
    if (wp_check_owner(pool) == 0) {
        wp_lock(pool);
        give_back_permit(pool, weighed);
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
    if (wp_is_too_large(pool, task->size)) {
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

static int make_task(struct weirpool *pool, const struct weirpool_request *request, struct weirpool_task **task)
{
    if (!wp_can_grant(pool, request)) {
        return -EINVAL;
    }
    *task = wp_task_new(request, wp_parts_size(request->parts, request->count));
    return *task == NULL ? -ENOMEM : place_large(pool, *task, request->parts, request->count);
}

static int enqueue_admitted(struct weirpool *pool, struct weirpool_task *task, const struct weirpool_request *request)
{
    int rc = pool->course == WP_BROKEN ? -EPIPE : wp_enqueue(pool, task, request->parts, request->count);
    if (rc == 0) {
        wp_gate_reweigh(&pool->gate, request->weighed, task->size);
        pool->unpublished--;
        pool->submitted++;
        if (task->size < request->weighed) {
            wp_flow(pool); /* what it does not need may do for somebody who waits */
        }
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

int weirpool_publish(weirpool *pool, const struct weirpool_request *request, weirpool_task **out)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    struct weirpool_task *task = NULL;
    rc = make_task(pool, request, &task);
    wp_lock(pool);
    if (rc == 0) {
        if (out != NULL) {
            *out = task;
        }
        rc = enqueue_admitted(pool, task, request);
    }
    if (rc != 0) {
        discard(pool, task);
        give_back_permit(pool, request->weighed);
    }
    wp_unlock(pool);
    return rc;
}

/* The permit first, the copy afterwards. */
static int submit_with_permit(weirpool *pool, const struct weirpool_request *request, int64_t deadline,
                              weirpool_task **task)
{
    int rc = weirpool_admit(pool, WEIRPOOL_IN_BOUND, request->weighed, deadline);
    return rc < 0 ? rc : weirpool_publish(pool, request, task);
}

static int submit(weirpool *pool, const struct weirpool_request *request, int64_t deadline, weirpool_task **task)
{
    int rc = submit_with_permit(pool, request, WEIRPOOL_NOW, task);
    if (rc != -EAGAIN || deadline <= 0) {
        return rc;
    }
    if (request->weighed > WEIRPOOL_PARK_LIMIT) {
        return submit_with_permit(pool, request, deadline, task);
    }
    return wp_queue_and_wait(pool, request, task, deadline);
}

int weirpool_submit_with(weirpool *pool, const void *data, size_t size, const struct weirpool_task_options *given,
                         weirpool_task **task)
{
    static const struct weirpool_task_options nothing = {.size = sizeof nothing};
    const struct weirpool_task_options *options = given != NULL ? given : &nothing;
    struct iovec payload = {.iov_base = (void *)data, .iov_len = size};
    const struct weirpool_request request = {
        .parts = &payload,
        .count = 1,
        .user = options->user,
        .interest = WEIRPOOL_WATCHED,
        .weighed = size,
        .retries = options->retries,
        .limit_ns = options->limit_ns,
    };
    if (options->size < sizeof *options || !wp_can_grant(pool, &request)) {
        return -EINVAL;
    }
    return submit(pool, &request, options->deadline, task);
}

int weirpool_submit(weirpool *pool, const void *data, size_t size, void *user, int64_t deadline, weirpool_task **task)
{
    const struct weirpool_task_options options = {.size = sizeof options, .user = user, .deadline = deadline};
    return weirpool_submit_with(pool, data, size, &options, task);
}
