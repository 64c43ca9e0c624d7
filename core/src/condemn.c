/*
 * Stopping a task that runs. The parent's compare-and-swap from RUNNING to CONDEMNED comes first: from then on the
 * worker can neither finish the task nor claim another one, so that the kill that follows hits this task and no other.
 * Where the swap fails the task has finished. The task ends when its worker has (repair.c): until then that may be
 * reading the payload.
 */
#include <errno.h>

#include "crash.h"
#include "pool.h"

#define POLL_NS INT64_C(1000000) /* for a process that nobody watches yet, or that another thread is burying */

void wp_kill_if_stopped(struct weirpool *pool, uint32_t worker)
{
    const struct wp_member *member = &pool->members[worker];
    if (member->stopped && member->process >= 0) {
        wp_os_process_kill(member->process, member->pid);
    }
}

static uint32_t runner_of(const struct weirpool *pool, const struct weirpool_task *task)
{
    uint32_t worker = wp_state_worker(wp_load_acquire(&wp_slot_at(&pool->segment, task->position)->state));
    bool exists = worker < pool->segment.workers && pool->members[worker].reserved && !pool->members[worker].gone;
    return exists ? worker : WP_NO_WORKER;
}

bool wp_condemn(struct weirpool *pool, struct weirpool_task *task)
{
    uint32_t worker = runner_of(pool, task);
    if (worker == WP_NO_WORKER || !wp_table_condemn(&pool->table, task->position, worker)) {
        return false;
    }
    task->condemned = true;
    task->runner = worker;
    pool->stopped++;
    pool->members[worker].stopped = true;
    WP_CRASH("after_condemned");
    wp_kill_if_stopped(pool, worker);
    WP_CRASH("after_kill");
    return true;
}

/* Lock held at entry and exit. It does not depend on who else sees to workers: the collector may be in user code. */
static void wait_for_end_of(struct weirpool *pool, struct weirpool_task *task)
{
    uint32_t worker = task->runner;
    int process = wp_os_dup(pool->members[worker].process); /* on an error: polls */
    while (!wp_is_settled(wp_load_acquire(&task->word))) {
        wp_unlock(pool);
        bool ended = wp_os_process_wait(process, wp_os_now() + (process >= 0 ? WP_LOOK_NS : POLL_NS));
        wp_lock(pool);
        wp_worker_ended(pool, worker);
        if (ended) {
            wp_os_close(process);
            process = -1;
        }
    }
    wp_os_close(process);
}

/* Lock held at entry and exit. */
static void wait_for_other_caller(struct weirpool *pool, struct weirpool_task *task)
{
    while (wp_sleep_until_settled(pool, &task->word, WEIRPOOL_FOREVER) == -EINTR) {
    }
}

/* Lock held at entry and exit. */
static int stop_running(struct weirpool *pool, struct weirpool_task *task)
{
    if (task->place != WP_IN_SLOT) {
        return -EBUSY;
    }
    if (task->forced) {
        wait_for_other_caller(pool, task);
        return -EALREADY;
    }
    if (!task->condemned && !wp_condemn(pool, task)) {
        return -EBUSY;
    }
    task->forced = true;
    wait_for_end_of(pool, task);
    return 0;
}

int weirpool_stop(weirpool *pool, weirpool_task *task)
{
    int rc = wp_check_owner(pool);
    if (rc == 0 && !pool->replaces) {
        rc = -EINVAL;
    }
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    if (wp_cancel_unstarted(pool, task)) {
        wp_unlist_for_telling(pool, task);
    } else {
        rc = stop_running(pool, task);
    }
    wp_flow(pool);
    wp_unlock(pool);
    return rc;
}
