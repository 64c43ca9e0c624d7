/* What happens when a worker ends: one function for exit, kill and recycling, and the end of the whole pool. */
#include <errno.h>

#include "pool.h"

static bool is_of(const struct weirpool *pool, uint32_t index, uint32_t worker, enum wp_tag tag)
{
    const struct weirpool_task *task = pool->table.tasks[index];
    uint64_t state = wp_load_acquire(&pool->segment.slot[index].state);
    return task != NULL && wp_state_position(state) == task->position && wp_state_worker(state) == worker &&
           wp_state_tag(state) == tag;
}

/* A worker that was killed between DONE and its bit has finished: set the bit for it. */
static void mark_done_slots(struct weirpool *pool, uint32_t worker)
{
    for (uint32_t index = 0; index < pool->segment.slots; index++) {
        if (is_of(pool, index, worker, WP_DONE)) {
            wp_fetch_or_seq_cst(&pool->segment.done[index / 64], UINT64_C(1) << (index % 64));
        }
    }
}

static bool has_running_task(const struct weirpool *pool, uint32_t worker)
{
    for (uint32_t index = 0; index < pool->segment.slots; index++) {
        if (is_of(pool, index, worker, WP_RUNNING)) {
            return true;
        }
    }
    return false;
}

static void forget_process(struct weirpool *pool, struct wp_member *member)
{
    if (member->process >= 0) {
        wp_os_watch_remove(pool->watch, member->process);
        if (member->own_child) {
            (void)wp_os_process_reap(member->pid, &member->exit_status);
        }
        wp_os_close(member->process);
        member->process = -1;
    }
}

/* Delivers what the dead worker has done. Returns how it stood; it counts as a worker no more. */
static uint32_t bury(struct weirpool *pool, uint32_t worker)
{
    struct wp_record *record = &pool->segment.records[worker];
    wp_unpark_dead(&pool->segment, worker);
    mark_done_slots(pool, worker);
    wp_take_all_done(pool);
    uint32_t standing = wp_load_acquire(&record->standing); /* pairs with the release in weirpool_announce() */
    wp_store_release(&record->standing, WP_VACANT);
    pool->live--;
    return standing;
}

void wp_worker_ended(struct weirpool *pool, uint32_t worker)
{
    struct wp_member *member = &pool->members[worker];
    bool known = member->reserved && member->process >= 0;
    if (!known || !wp_os_process_ended(member->process)) {
        return; /* another thread has seen to it, and there may be a successor already */
    }
    forget_process(pool, member);
    bool planned = bury(pool, worker) == WP_LEAVES && !has_running_task(pool, worker);
    if (planned) {
        member->has_left = true; /* its number stays reserved until weirpool_worker_vacate() */
        wp_look(&pool->segment); /* it may have been on its way to work */
    } else {
        pool->times.workers_died += pool->course != WP_BROKEN; /* those of a broken pool are killed */
        wp_break(pool, worker);
    }
}

void wp_worker_failed(struct weirpool *pool, uint32_t worker)
{
    struct wp_member *member = &pool->members[worker];
    bool seen =
        wp_load_acquire(&pool->segment.records[worker].standing) == WP_VACANT; /* wp_worker_ended() was quicker */
    forget_process(pool, member);
    if (!seen) {
        (void)bury(pool, worker);
    }
    if (has_running_task(pool, worker)) {
        wp_break(pool, worker);
    }
    member->has_left = false;
    member->reserved = false;
}

static void blame(struct weirpool_task *task, const struct wp_member *culprit)
{
    task->worker_pid = culprit->pid;
    task->worker_status = culprit->exit_status;
}

static void drop_partial_result(struct weirpool_task *task)
{
    weirpool_drop_result(task);
    task->streaming = false;
}

/* The dead worker that ran the task in slot `index`; NULL if nobody runs it, or its worker lives. */
static const struct wp_member *dead_runner(struct weirpool *pool, uint32_t index, uint32_t culprit)
{
    uint32_t worker = wp_state_worker(wp_load_acquire(&pool->segment.slot[index].state));
    if (worker >= pool->segment.workers || !is_of(pool, index, worker, WP_RUNNING)) {
        return NULL;
    }
    struct wp_member *member = &pool->members[worker];
    bool leaves = wp_load_acquire(&pool->segment.records[worker].standing) == WP_LEAVES; /* as it was told to */
    if (worker != culprit && (leaves || member->process < 0 || !wp_os_process_ended(member->process))) {
        return NULL;
    }
    forget_process(pool, member); /* an own child is reaped by this: how it ended is known */
    return member;
}

static void end_slots(struct weirpool *pool, uint32_t culprit)
{
    for (uint32_t index = 0; index < pool->segment.slots; index++) {
        struct weirpool_task *task = pool->table.tasks[index];
        if (task == NULL) {
            continue;
        }
        const struct wp_member *runner = dead_runner(pool, index, culprit);
        if (runner != NULL) {
            blame(task, runner);
        }
        drop_partial_result(task);
        wp_dequeue(pool, task);
        wp_end_task(pool, task, runner != NULL ? -EOWNERDEAD : -EPIPE);
    }
}

static void end_overflow(struct weirpool *pool)
{
    while (!wp_list_is_empty(&pool->overflow)) {
        struct weirpool_task *task = wp_container_of(pool->overflow.next, struct weirpool_task, link);
        wp_dequeue(pool, task);
        wp_end_task(pool, task, -EPIPE);
    }
}

void wp_break(struct weirpool *pool, uint32_t culprit)
{
    if (pool->course == WP_BROKEN) {
        return;
    }
    pool->course = WP_BROKEN;
    wp_close_gate(pool, -EPIPE);
    wp_store_seq_cst(&pool->segment.header->stop, WP_HALT);
    wp_wake_all(&pool->segment);
    wp_wait_for_drainers(pool);
    for (uint32_t worker = 0; worker < pool->segment.workers; worker++) {
        pool->members[worker].receiving = NULL;
        pool->members[worker].owed = NULL;
    }
    end_slots(pool, culprit);
    end_overflow(pool);
    pool->broke_unreported = true;
    wp_ring_collector(pool);
}
