/* What the owner of a task or a pool may ask of it: where it stands, to wait for it, to take it back, to end. */
#include <errno.h>

#include "pool.h"

/* ---- tasks ---- */

/* Lock held. */
static enum weirpool_phase phase_of(const struct weirpool *pool, const struct weirpool_task *task)
{
    if (task->place != WP_IN_SLOT) {
        return WEIRPOOL_WAITING;
    }
    uint64_t state = wp_load_acquire(&wp_slot_at(&pool->segment, task->position)->state);
    return wp_state_tag(state) == WP_QUEUED ? WEIRPOOL_WAITING : WEIRPOOL_RUNNING;
}

enum weirpool_phase weirpool_phase(weirpool *pool, weirpool_task *task)
{
    if (wp_is_settled(wp_load_acquire(&task->word))) {
        return WEIRPOOL_TAKEN;
    }
    if (wp_check_owner(pool) != 0) {
        return WEIRPOOL_WAITING;
    }
    wp_lock(pool);
    bool taken = wp_is_settled(wp_load_acquire(&task->word));
    enum weirpool_phase phase = taken ? WEIRPOOL_TAKEN : phase_of(pool, task);
    wp_unlock(pool);
    return phase;
}

int weirpool_wait(weirpool *pool, weirpool_task *task, int64_t deadline)
{
    if (wp_is_settled(wp_load_acquire(&task->word))) {
        return 0;
    }
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    rc = wp_sleep_until_settled(pool, &task->word, deadline);
    wp_unlock(pool);
    return rc;
}

void weirpool_told(weirpool *pool, weirpool_task *task)
{
    if (wp_check_owner(pool) != 0) {
        return;
    }
    wp_lock(pool);
    if (task->holding) {
        task->holding = false;
        pool->held--;
        wp_gate_return(&pool->gate, task->size);
        wp_flow(pool);
    }
    wp_unlock(pool);
}

bool wp_cancel_unstarted(struct weirpool *pool, struct weirpool_task *task)
{
    if (task->place == WP_NOWHERE) {
        return false;
    }
    if (task->streaming) { /* it runs, whatever its slot says now */
        return false;
    }
    if (task->place == WP_IN_SLOT && !wp_table_cancel(&pool->table, task->position)) {
        return false;
    }
    wp_dequeue(pool, task);
    wp_end_task(pool, task, -ECANCELED);
    return true;
}

/* `told`: the caller tells the task itself, so it goes into no list. */
static int cancel(struct weirpool *pool, struct weirpool_task *task, bool told)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    rc = wp_cancel_unstarted(pool, task) ? 0 : -EBUSY;
    if (rc == 0 && told) {
        wp_unlist_for_telling(pool, task);
    }
    wp_flow(pool);
    wp_unlock(pool);
    return rc;
}

int weirpool_cancel(weirpool *pool, weirpool_task *task)
{
    return cancel(pool, task, false);
}

int weirpool_withdraw(weirpool *pool, weirpool_task *task)
{
    return cancel(pool, task, true);
}

static bool has_started(const struct weirpool *pool)
{
    return pool->executed > 0 || pool->retried > 0 || wp_count_running(pool) > 0;
}

/*
 * Lock held. The table, then the overflow. While some are spared nothing has ended yet, so that no slot was used twice:
 * the order of slots is then that of submission.
 */
static void cancel_all_but(struct weirpool *pool, uint64_t spare)
{
    for (uint32_t index = 0; index < pool->segment.slots; index++) {
        struct weirpool_task *task = pool->table.tasks[index];
        if (task != NULL && spare > 0) {
            spare--;
        } else if (task != NULL) {
            wp_cancel_unstarted(pool, task);
        }
    }
    struct wp_link *link = pool->overflow.next;
    while (link != &pool->overflow) {
        struct weirpool_task *task = wp_container_of(link, struct weirpool_task, link);
        link = link->next;
        if (spare > 0) {
            spare--;
        } else {
            wp_cancel_unstarted(pool, task);
        }
    }
}

int weirpool_cancel_waiting(weirpool *pool, uint64_t spare)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    cancel_all_but(pool, has_started(pool) ? 0 : spare);
    wp_flow(pool);
    wp_unlock(pool);
    return 0;
}

/* ---- the pool ---- */

int weirpool_shutdown(weirpool *pool)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    if (pool->course == WP_OPEN) {
        pool->course = WP_CLOSING;
        wp_close_gate(pool, -ESHUTDOWN);
        wp_flow(pool);
    }
    wp_unlock(pool);
    return 0;
}

int weirpool_break(weirpool *pool)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    wp_take_all_done(pool);
    rc = pool->course == WP_BROKEN ? -EALREADY : 0;
    wp_break(pool, WP_NO_WORKER, WEIRPOOL_FAULT_ASKED);
    wp_unlock(pool);
    return rc;
}

enum weirpool_fault weirpool_fault(weirpool *pool)
{
    if (wp_check_owner(pool) != 0) {
        return WEIRPOOL_FAULT_NONE;
    }
    wp_lock(pool);
    enum weirpool_fault fault = pool->fault;
    wp_unlock(pool);
    return fault;
}
