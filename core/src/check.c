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

/* A position below head that is still queued would never be claimed. `head` is read first: it only grows. */
static bool is_any_stranded(const struct weirpool *pool)
{
    uint64_t head = wp_load_acquire(&pool->segment.header->head);
    for (uint32_t i = 0; i < pool->segment.slots; i++) {
        uint64_t state = wp_load_acquire(&pool->segment.slot[i].state);
        if (wp_state_tag(state) == WP_QUEUED && wp_state_position(state) < head) {
            return true;
        }
    }
    return head > pool->table.tail;
}

void wp_audit(struct weirpool *pool)
{
    if (pool->course != WP_BROKEN && is_any_stranded(pool)) {
        wp_break(pool, WP_NO_WORKER, WEIRPOOL_FAULT_CORRUPT);
    }
}

static bool is_any_limit_unknown(const struct weirpool *pool)
{
    uint64_t limited = 0;
    for (uint32_t i = 0; i < pool->segment.slots; i++) {
        limited += pool->table.tasks[i] != NULL && pool->table.tasks[i]->limit_ns != 0;
    }
    return count_links(&pool->limited) != limited || (limited > 0 && pool->alarm < 0);
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
    return is_any_stranded(pool) ? "a queued task was passed over" : NULL;
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
