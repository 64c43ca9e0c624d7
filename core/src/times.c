#include "times.h"

#include <errno.h>

#include "pool.h"

#define COUNT_WORKERS_NS INT64_C(50000000) /* how often takers count the workers that live */
#define MEASURE_NS INT64_C(50000000) /* how long it takes at least to see what a bound does */
#define LONG_QUEUE 16u /* outstanding tasks a worker */
#define MOST_BORROWED 8u

struct run {
    int64_t started;
    int64_t finished;
    int64_t free_since; /* 0: this was its worker's first task */
};

static int64_t within(int64_t low, uint64_t value, int64_t high)
{
    int64_t checked = value > (uint64_t)high ? high : (int64_t)value;
    return checked < low ? low : checked;
}

/*
 * The clock for a task that is accepted. Behind a long queue one reading does for several: it is no older than the last
 * taking, which is a small part of the time that they will wait.
 */
static int64_t read_clock(struct weirpool *pool)
{
    struct wp_times *times = &pool->times;
    if (times->borrowed >= MOST_BORROWED || pool->gate.outstanding < LONG_QUEUE * (uint64_t)pool->segment.workers) {
        times->borrowed = 0;
        times->now = wp_os_now();
    }
    times->borrowed++;
    return times->now;
}

void wp_note_accepted(struct weirpool *pool, struct weirpool_task *task)
{
    task->accepted = read_clock(pool);
    task->full_at = pool->times.full_at;
}

void wp_note_blocked(struct weirpool *pool)
{
    pool->times.full_at = pool->times.now; /* of the taker that made room: not before its workers had finished */
}

static uint32_t count_workers_up(const struct weirpool *pool)
{
    uint32_t up = 0;
    for (uint32_t worker = 0; worker < pool->segment.workers; worker++) {
        up += wp_load_relaxed(&pool->segment.records[worker].standing) == WP_UP;
    }
    return up;
}

static void count_lives(struct weirpool *pool)
{
    wp_recent_lived(&pool->times.recent, count_workers_up(pool), pool->times.now);
}

static void begin_measure(struct wp_times *times)
{
    times->measure = (struct wp_measure){.slack = UINT64_MAX};
    times->measuring_since = times->now;
}

/* What workers may count on while this taker works. `head` is theirs, so it may say anything. */
static uint64_t count_queued(const struct weirpool *pool)
{
    uint64_t head = wp_load_relaxed(&pool->segment.header->head);
    uint64_t queued = head < pool->table.tail ? pool->table.tail - head : 0;
    return (queued < pool->table.used ? queued : pool->table.used) + pool->overflowing;
}

static void look_at_queue(struct weirpool *pool)
{
    struct wp_measure *measure = &pool->times.measure;
    uint64_t queued = count_queued(pool);
    measure->slack = queued < measure->slack ? queued : measure->slack;
    /* Where another bound holds producers up, more tasks would not help. */
    measure->contended |= pool->gate.blocked > 0 && pool->gate.outstanding >= pool->gate.bound.tasks;
}

void wp_adapt_begin(struct weirpool *pool, uint32_t workers)
{
    wp_adapt_init(&pool->times.adapt, workers);
    pool->times.now = wp_os_now();
    begin_measure(&pool->times);
    pool->gate.bound.tasks = pool->times.adapt.bound;
}

void wp_adapt_bound(struct weirpool *pool)
{
    struct wp_times *times = &pool->times;
    bool enough =
        times->measure.tasks >= 2 * (uint64_t)times->adapt.workers && times->now - times->measuring_since >= MEASURE_NS;
    if (times->adapt.workers > 0 && enough) {
        wp_adapt_step(&times->adapt, &times->measure);
        pool->gate.bound.tasks = times->adapt.bound;
        begin_measure(times);
    }
}

void wp_note_taking(struct weirpool *pool)
{
    pool->times.now = wp_os_now();
    pool->times.borrowed = 0;
    if (pool->times.adapt.workers > 0) {
        look_at_queue(pool);
    }
    if (pool->times.now - pool->times.recent.counted >= COUNT_WORKERS_NS) {
        count_lives(pool);
    }
}

void wp_note_now(struct weirpool *pool)
{
    pool->times.now = wp_os_now();
    pool->times.borrowed = 0;
    count_lives(pool);
}

int64_t wp_running_since(const struct weirpool *pool, uint32_t index)
{
    const struct weirpool_task *task = pool->table.tasks[index];
    const struct wp_slot *slot = &pool->segment.slot[index];
    uint64_t started = wp_load_relaxed(&slot->started);
    if (started < (uint64_t)task->accepted) {
        return pool->times.now; /* its worker has just claimed it: this is of the task before it */
    }
    return within(0, started, pool->times.now);
}

/* accepted <= started <= finished <= now, and free_since <= started. */
static struct run run_of(const struct weirpool *pool, const struct weirpool_task *task)
{
    const struct wp_slot *slot = wp_slot_at(&pool->segment, task->position);
    struct run run;
    run.started = within(task->accepted, wp_load_relaxed(&slot->started), pool->times.now);
    run.finished = within(run.started, wp_load_relaxed(&slot->finished), pool->times.now);
    run.free_since = within(0, wp_load_relaxed(&slot->free_since), run.started);
    return run;
}

/* A worker was free, and a task or a producer waited: the refill lag. If no task did, a larger bound may shorten it. */
static void note_lag(struct wp_times *times, const struct weirpool_task *task, const struct run *run)
{
    bool queued = task->accepted <= run->free_since;
    if (run->free_since != 0 && (queued || task->full_at >= run->free_since)) {
        wp_histogram_add(&times->lagged, run->started - run->free_since);
        times->measure.dry_ns += queued ? 0 : (uint64_t)(run->started - run->free_since);
    }
}

void wp_note_run(struct weirpool *pool, const struct weirpool_task *task, uint32_t worker)
{
    struct wp_times *times = &pool->times;
    struct wp_member *member = &pool->members[worker];
    struct run run = run_of(pool, task);
    wp_histogram_add(&times->waited, run.started - task->accepted);
    wp_histogram_add(&times->ran, run.finished - run.started);
    wp_recent_ran(&times->recent, run.started, run.finished);
    member->tasks++;
    member->busy_ns += (uint64_t)(run.finished - run.started);
    times->measure.tasks++;
    times->measure.busy_ns += (uint64_t)(run.finished - run.started);
    note_lag(times, task, &run);
}

void wp_note_end(struct weirpool *pool, const struct weirpool_task *task)
{
    struct wp_times *times = &pool->times;
    if (task->error == -ECANCELED) {
        times->cancelled++;
    } else if (task->error != 0 || task->status != 0) {
        times->failed++;
    } else {
        times->completed++;
    }
}
