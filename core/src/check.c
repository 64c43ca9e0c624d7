/* The invariants of a pool as code. */
#include <errno.h>
#include <stdio.h>

#include "pool.h"

static uint64_t count_tasks(const struct weirpool *pool)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < pool->segment.slots; i++) {
        n += pool->table.tasks[i] != NULL;
    }
    return n;
}

static uint64_t count_links(const struct wp_link *head)
{
    uint64_t n = 0;
    for (const struct wp_link *link = head->next; link != head; link = link->next) {
        n++;
    }
    return n;
}

/* ---- what no worker may have written ---- */

static enum wp_stop stop_of(const struct weirpool *pool)
{
    return pool->drained_reported ? WP_FINISH : WP_RUN;
}

/* What the parent wrote for all workers, who would stop, go on for ever, or map something else. */
static const char *find_fault_in_header(const struct weirpool *pool)
{
    const struct wp_header *header = pool->segment.header;
    if (!wp_segment_is_intact(&pool->segment)) {
        return "the segment's header is another";
    }
    if (wp_load_relaxed(&header->tail) != pool->table.tail || wp_load_acquire(&header->head) > pool->table.tail) {
        return "the queue's ends were moved";
    }
    return wp_load_relaxed(&header->stop) != stop_of(pool) ? "workers were told to stop by somebody else" : NULL;
}

/* A position below head that is still queued would never be claimed. */
static const char *find_fault_in_state(const struct weirpool *pool, uint32_t index, uint64_t state, uint64_t head)
{
    const struct weirpool_task *task = pool->table.tasks[index];
    uint32_t worker = wp_state_worker(state);
    if (task == NULL) {
        return wp_state_tag(state) != WP_FREE ? "a slot without a task is in use" : NULL;
    }
    if (wp_state_position(state) != task->position) {
        return "a slot has another position than its task";
    }
    if (wp_state_tag(state) == WP_QUEUED) {
        return worker != 0 || task->position < head ? "a queued task was passed over" : NULL;
    }
    if (!wp_state_runs(state) && wp_state_tag(state) != WP_DONE) {
        return "a task's slot is neither queued nor claimed";
    }
    bool exists = worker < pool->segment.workers && pool->members[worker].reserved && !pool->members[worker].gone;
    return exists ? NULL : "a task is run by a worker that there is not";
}

/*
 * The slot's worker has this task, and has another too, or sleeps as if it had none: so the task would never end. Both
 * was so at one moment if the first reading holds after the second one, as no state of a task comes back.
 */
static bool is_lie(const struct weirpool *pool, uint32_t index, uint64_t state)
{
    uint32_t worker = wp_state_worker(state);
    struct wp_member *member = &pool->members[worker];
    uint32_t before = member->seen_at;
    member->seen_at = index;
    if (before != WP_NO_SLOT) {
        uint64_t other = wp_load_acquire(&pool->segment.slot[before].state);
        if (wp_state_runs(other) && wp_state_worker(other) == worker) {
            return true;
        }
    }
    return wp_load_seq_cst(&pool->segment.records[worker].parked) == 1 &&
           wp_load_acquire(&pool->segment.slot[index].state) == state;
}

static const char *find_fault_in_slots(const struct weirpool *pool)
{
    uint64_t head = wp_load_acquire(&pool->segment.header->head); /* before the slots: it only grows */
    for (uint32_t worker = 0; worker < pool->segment.workers; worker++) {
        pool->members[worker].seen_at = WP_NO_SLOT;
    }
    for (uint32_t index = 0; index < pool->segment.slots; index++) {
        uint64_t state = wp_load_acquire(&pool->segment.slot[index].state);
        const char *fault = find_fault_in_state(pool, index, state, head);
        if (fault == NULL && wp_state_runs(state) && is_lie(pool, index, state)) {
            fault = "a task is run by a worker that does something else";
        }
        if (fault != NULL) {
            return fault;
        }
    }
    return NULL;
}

static const char *find_fault_in_segment(const struct weirpool *pool)
{
    const char *fault = find_fault_in_header(pool);
    return fault != NULL ? fault : find_fault_in_slots(pool);
}

/* Has a worker said so that has not ended? A thread that its initializer had begun may keep its process for ever. */
static bool has_initializer_failed(const struct weirpool *pool)
{
    for (uint32_t worker = 0; worker < pool->segment.workers; worker++) {
        uint32_t standing = wp_load_acquire(&pool->segment.records[worker].standing);
        if (pool->members[worker].counted && standing == WP_INIT_FAILED) {
            return true;
        }
    }
    return false;
}

void wp_audit(struct weirpool *pool)
{
    if (pool->course == WP_BROKEN) {
        return;
    }
    if (find_fault_in_segment(pool) != NULL) {
        wp_take_all_done(pool); /* which the scribbling may have nothing to do with */
        wp_break(pool, WP_NO_WORKER, WEIRPOOL_FAULT_CORRUPT);
    } else if (has_initializer_failed(pool)) {
        wp_take_all_done(pool);
        wp_break(pool, WP_NO_WORKER, WEIRPOOL_FAULT_INIT_FAILED);
    } else {
        wp_mark_done_slots(pool);
    }
}

/* ---- what the parent keeps ---- */

static bool is_any_limit_unknown(const struct weirpool *pool)
{
    uint64_t limited = 0;
    for (uint32_t i = 0; i < pool->segment.slots; i++) {
        limited += pool->table.tasks[i] != NULL && pool->table.tasks[i]->limit_ns != 0;
    }
    return count_links(&pool->limited) != limited || pool->limited_count != limited || (limited > 0 && pool->alarm < 0);
}

/* Nobody would end such a task. */
static bool is_any_spared(const struct weirpool *pool)
{
    for (uint32_t i = 0; i < pool->segment.slots; i++) {
        const struct weirpool_task *task = pool->table.tasks[i];
        if (task != NULL && task->condemned && !pool->members[task->runner].stopped) {
            return true;
        }
    }
    return false;
}

static const char *find_fault(const struct weirpool *pool)
{
    const struct wp_gate *gate = &pool->gate;
    if (count_tasks(pool) != pool->table.used) {
        return "the table's count differs from its tasks";
    }
    if (count_links(&pool->overflow) != pool->overflowing) {
        return "the overflow's count differs from its tasks";
    }
    if (gate->outstanding != pool->table.used + pool->overflowing + pool->unpublished + pool->held) {
        return "permits differ from the tasks that hold them";
    }
    if (count_links(&gate->waiting) + count_links(&gate->heavy) != gate->blocked) {
        return "the gate's count differs from the producers that wait";
    }
    if (gate->blocked > 0 && gate->closed != 0) {
        return "a producer waits at a closed gate";
    }
    if (gate->unstarted > gate->outstanding) {
        return "more tasks are unstarted than outstanding";
    }
    if (wp_gate_could_admit(gate)) {
        return "a producer waits although there is room";
    }
    if (count_links(&pool->unwatched) != wp_load_relaxed(&pool->unwatched_count)) {
        return "the count of unwatched tasks differs from the list";
    }
    if (is_any_limit_unknown(pool)) {
        return "limited tasks differ from the list of them";
    }
    if (is_any_spared(pool)) {
        return "a task is condemned and its worker is not";
    }
    if (!wp_arena_is_sound(&pool->arena)) {
        return "the arena's extents do not tile it";
    }
    return pool->course != WP_BROKEN ? find_fault_in_segment(pool) : NULL;
}

int weirpool_check(weirpool *pool, char *why, size_t room)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    const char *fault = find_fault(pool);
    wp_unlock(pool);
    if (why != NULL && room > 0) {
        snprintf(why, room, "%s", fault != NULL ? fault : "");
    }
    return fault != NULL ? -EUCLEAN : 0;
}
