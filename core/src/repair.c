/* What happens when a worker ends: one function for exit, kill and recycling, and the end of the whole pool. */
#include <errno.h>

#include "crash.h"
#include "pool.h"

static bool is_of(const struct weirpool *pool, uint32_t index, uint32_t worker, enum wp_tag tag)
{
    const struct weirpool_task *task = pool->table.tasks[index];
    uint64_t state = wp_load_acquire(&pool->segment.slot[index].state);
    return task != NULL && wp_state_position(state) == task->position && wp_state_worker(state) == worker &&
           wp_state_tag(state) == tag;
}

/* Of a condemned task we know it by ourselves: it has to end, whatever became of its slot. */
static bool is_run_by(const struct weirpool *pool, uint32_t index, uint32_t worker)
{
    const struct weirpool_task *task = pool->table.tasks[index];
    if (task != NULL && task->condemned) {
        return task->runner == worker;
    }
    return is_of(pool, index, worker, WP_RUNNING) || is_of(pool, index, worker, WP_CONDEMNED);
}

static bool has_running_task(const struct weirpool *pool, uint32_t worker)
{
    for (uint32_t index = 0; index < pool->segment.slots; index++) {
        if (is_run_by(pool, index, worker)) {
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

/* How a worker ended. */
struct end {
    uint32_t standing;
    bool stopped; /* it was killed by us */
};

/* Delivers what the dead worker has done; it counts as a worker no more. Releases the lock meanwhile. */
static struct end bury(struct weirpool *pool, uint32_t worker)
{
    struct wp_record *record = &pool->segment.records[worker];
    struct end end = {.stopped = pool->members[worker].stopped};
    WP_CRASH("before_repair");
    pool->members[worker].counted = false; /* before the lock is released: no other thread buries it */
    wp_unpark_dead(&pool->segment, worker);
    wp_mark_done_slots(pool); /* it may have been killed between DONE and its bit */
    WP_CRASH("after_done_marked");
    wp_take_all_done(pool);
    WP_CRASH("after_done_taken");
    end.standing = wp_load_acquire(&record->standing); /* pairs with the release in weirpool_announce() */
    wp_store_release(&record->standing, WP_VACANT);
    pool->live--;
    return end;
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
    task->received = 0;
}

/* ---- a death that breaks nothing ---- */

/* An attempt is lost, and with it the task if no other is left. */
static void lose_attempt(struct weirpool *pool, struct weirpool_task *task, const struct wp_member *runner)
{
    drop_partial_result(task);
    task->attempts++;
    if (!task->forced && task->attempts <= task->retries) {
        wp_put_back(pool, task);
        return;
    }
    if (!task->condemned) {
        blame(task, runner);
    }
    wp_dequeue(pool, task);
    wp_end_task(pool, task, task->forced ? -ECANCELED : task->condemned ? -ETIME : -EOWNERDEAD);
}

static void lose_attempts(struct weirpool *pool, uint32_t worker)
{
    for (uint32_t index = 0; index < pool->segment.slots; index++) {
        if (is_run_by(pool, index, worker)) {
            WP_CRASH("before_loss");
            lose_attempt(pool, pool->table.tasks[index], &pool->members[worker]);
        }
    }
    WP_CRASH("after_loss");
    wp_flow(pool);
}

/* What the buried worker left in its stream is part of a lost result. It was drained, so that nobody is at it now. */
static void clear_stream(struct weirpool *pool, uint32_t worker)
{
    struct wp_member *member = &pool->members[worker];
    member->receiving = NULL;
    member->owed = NULL;
    wp_stream_clear(&pool->segment.streams[worker], &member->cursor);
    WP_CRASH("after_stream_cleared");
}

/* That it ended costs the worker's task, unless it breaks the pool. */
static void survive(struct weirpool *pool, uint32_t worker, const struct end *end)
{
    if (pool->course == WP_BROKEN) {
        return;
    }
    clear_stream(pool, worker);
    pool->times.workers_died += !end->stopped;
    pool->deaths_in_a_row += !end->stopped;
    if (end->standing == WP_INIT_FAILED) {
        wp_break(pool, worker, WEIRPOOL_FAULT_INIT_FAILED);
    } else if (pool->deaths_in_a_row >= WEIRPOOL_DEATHS_IN_A_ROW) {
        wp_break(pool, worker, WEIRPOOL_FAULT_DEATHS_IN_A_ROW);
    } else {
        lose_attempts(pool, worker);
    }
}

/* ---- a worker has ended ---- */

/* The worker, which is buried, has not left as planned. */
static void mourn(struct weirpool *pool, uint32_t worker, const struct end *end)
{
    if (pool->replaces) {
        survive(pool, worker, end);
        return;
    }
    pool->times.workers_died += pool->course != WP_BROKEN; /* those of a broken pool are killed */
    wp_break(pool, worker, end->standing == WP_INIT_FAILED ? WEIRPOOL_FAULT_INIT_FAILED : WEIRPOOL_FAULT_DEATH);
}

void wp_worker_ended(struct weirpool *pool, uint32_t worker)
{
    struct wp_member *member = &pool->members[worker];
    bool known = member->reserved && member->process >= 0;
    if (!known || !wp_os_process_ended(member->process)) {
        return; /* another thread has seen to it, and there may be a successor already */
    }
    forget_process(pool, member);
    struct end end = bury(pool, worker);
    /* In the midst of a result it does not leave, whatever it says: a successor would go on with that result. */
    bool planned = end.standing == WP_LEAVES && !has_running_task(pool, worker) && member->receiving == NULL;
    if (!planned) {
        mourn(pool, worker, &end);
    }
    member->gone = true;
    if (planned || pool->course != WP_BROKEN) {
        member->has_left = true; /* its number stays reserved until weirpool_worker_vacate() */
        pool->departures++;
        wp_ring_collector(pool);
        WP_CRASH("after_departure");
        wp_look(&pool->segment); /* it may have been on its way to work */
    }
    if (planned) {
        wp_audit(pool); /* it may have been sent away by somebody else, as its successors would be */
    }
}

void wp_worker_failed(struct weirpool *pool, uint32_t worker)
{
    struct wp_member *member = &pool->members[worker];
    forget_process(pool, member);
    struct end end = {.standing = WP_STARTING, .stopped = member->stopped};
    if (member->counted) { /* else wp_worker_ended() was quicker */
        end = bury(pool, worker);
    }
    if (has_running_task(pool, worker)) {
        mourn(pool, worker, &end);
    }
    pool->departures -= member->has_left;
    member->has_left = false;
    member->reserved = false;
    wp_look(&pool->segment); /* it may have been on its way to work */
}

/* ---- the pool breaks ---- */

/* The dead worker that ran the task in slot `index`; NULL if nobody runs it, or its worker lives. */
static const struct wp_member *dead_runner(struct weirpool *pool, uint32_t index, uint32_t culprit)
{
    uint32_t worker = wp_state_worker(wp_load_acquire(&pool->segment.slot[index].state));
    if (worker >= pool->segment.workers || !is_run_by(pool, index, worker)) {
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
        int error = runner != NULL ? -EOWNERDEAD : -EPIPE;
        if (task->condemned) {
            error = task->forced ? -ECANCELED : -ETIME;
        } else if (runner != NULL) {
            blame(task, runner);
        }
        task->attempts += runner != NULL || task->condemned;
        drop_partial_result(task);
        wp_dequeue(pool, task);
        wp_end_task(pool, task, error);
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

void wp_break(struct weirpool *pool, uint32_t culprit, enum weirpool_fault fault)
{
    if (pool->course == WP_BROKEN) {
        return;
    }
    pool->course = WP_BROKEN;
    pool->fault = fault;
    wp_close_gate(pool, -EPIPE);
    WP_CRASH("after_gate_closed");
    wp_store_seq_cst(&pool->segment.header->stop, WP_HALT);
    wp_wake_all(&pool->segment);
    wp_wait_for_drainers(pool);
    WP_CRASH("after_halt");
    for (uint32_t worker = 0; worker < pool->segment.workers; worker++) {
        pool->members[worker].receiving = NULL;
        pool->members[worker].owed = NULL;
    }
    end_slots(pool, culprit);
    end_overflow(pool);
    WP_CRASH("after_all_ended");
    pool->broke_unreported = true;
    wp_ring_collector(pool);
}
