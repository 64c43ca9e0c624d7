/* What a pool says of itself. */
#include "pool.h"

uint64_t wp_count_running(const struct weirpool *pool)
{
    uint64_t running = 0;
    for (uint32_t i = 0; i < pool->segment.slots; i++) {
        uint64_t state = wp_load_relaxed(&pool->segment.slot[i].state);
        running += pool->table.tasks[i] != NULL && (wp_state_runs(state) || wp_state_tag(state) == WP_DONE);
    }
    return running;
}

/* The worker that runs the task in slot `index`, or WP_NO_WORKER. */
static uint32_t runner_of(const struct weirpool *pool, uint32_t index)
{
    uint64_t state = wp_load_acquire(&pool->segment.slot[index].state);
    bool runs =
        pool->table.tasks[index] != NULL && wp_state_runs(state) && wp_state_worker(state) < pool->segment.workers;
    return runs ? wp_state_worker(state) : WP_NO_WORKER;
}

static struct weirpool_durations durations_of(const struct wp_histogram *histogram)
{
    return (struct weirpool_durations){
        .count = histogram->count,
        .sum = histogram->sum_ns,
        .p50 = wp_histogram_quantile(histogram, 0.50),
        .p95 = wp_histogram_quantile(histogram, 0.95),
        .p99 = wp_histogram_quantile(histogram, 0.99),
    };
}

/* Sets `running_since` of every worker: 0 if it runs nothing. It runs one task at most, whatever slots say. */
static void see_who_runs(struct weirpool *pool)
{
    for (uint32_t worker = 0; worker < pool->segment.workers; worker++) {
        pool->members[worker].running_since = 0;
    }
    for (uint32_t index = 0; index < pool->segment.slots; index++) {
        uint32_t worker = runner_of(pool, index);
        if (worker != WP_NO_WORKER) {
            pool->members[worker].running_since = wp_running_since(pool, index);
        }
    }
}

/* How long it has run its present task, as far as that was not before `since`. */
static uint64_t time_in_progress(const struct weirpool *pool, const struct wp_member *member, int64_t since)
{
    int64_t from = member->running_since > since ? member->running_since : since;
    return member->running_since != 0 ? (uint64_t)(pool->times.now - from) : 0;
}

static void describe_recent(const struct weirpool *pool, struct weirpool_stats *stats)
{
    struct wp_recent_sum sum = wp_recent_sum(&pool->times.recent, pool->times.now);
    for (uint32_t worker = 0; worker < pool->segment.workers; worker++) {
        sum.busy_ns += time_in_progress(pool, &pool->members[worker], sum.since);
    }
    double busy = (double)sum.busy_ns;
    double elapsed = (double)(pool->times.now - sum.since);
    stats->occupancy = sum.live_ns == 0 ? 0.0 : busy / (double)sum.live_ns;
    stats->occupancy = stats->occupancy > 1.0 ? 1.0 : stats->occupancy;
    stats->tasks_per_second = elapsed <= 0 ? 0.0 : (double)sum.tasks * 1e9 / elapsed;
}

static void describe(const struct weirpool *pool, struct weirpool_stats *stats)
{
    const struct wp_gate *gate = &pool->gate;
    const struct wp_times *times = &pool->times;
    uint64_t running = wp_count_running(pool) + pool->held;
    *stats = (struct weirpool_stats){
        .bound = gate->bound.tasks,
        .outstanding = gate->outstanding,
        .waiting = gate->outstanding - running,
        .running = running,
        .bytes_held = gate->held,
        .peak_outstanding = gate->peak,
        .admitted_over_bound = gate->over_bound,
        .blocked_producers = gate->blocked,
        .blocked_ns = gate->blocked_ns,
        .submitted = pool->submitted,
        .finished = pool->finished,
        .completed = times->completed,
        .failed = times->failed,
        .cancelled = times->cancelled,
        .retried = pool->retried,
        .stopped = pool->stopped,
        .workers_died = times->workers_died,
        .workers = pool->live,
        .wait = durations_of(&times->waited),
        .run = durations_of(&times->ran),
        .refill_lag = durations_of(&times->lagged),
        .segment_bytes = wp_os_memory_held(pool->segment.fd),
    };
    describe_recent(pool, stats);
}

int weirpool_stats(weirpool *pool, struct weirpool_stats *stats)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    wp_note_now(pool);
    see_who_runs(pool);
    describe(pool, stats);
    wp_unlock(pool);
    return 0;
}

/* ---- workers ---- */

static int list_workers(const struct weirpool *pool, struct weirpool_worker_stats *workers, uint32_t room)
{
    uint32_t count = 0;
    for (uint32_t worker = 0; worker < pool->segment.workers && count < room; worker++) {
        const struct wp_member *member = &pool->members[worker];
        if (member->reserved && member->process >= 0) {
            workers[count].pid = member->pid;
            workers[count].tasks = member->tasks;
            workers[count].busy_ns = member->busy_ns + time_in_progress(pool, member, 0);
            count++;
        }
    }
    return (int)count;
}

int weirpool_workers(weirpool *pool, struct weirpool_worker_stats *workers, uint32_t room)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    wp_note_now(pool);
    see_who_runs(pool);
    int count = list_workers(pool, workers, room);
    wp_unlock(pool);
    return count;
}
