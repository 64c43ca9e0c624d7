/* Collecting: the thread that tells what was taken, and sleeps in an epoll when there is nothing to tell. */
#include <errno.h>

#include "crew.h"

/* How long a collector that is never idle may go without looking for dead workers. */
#define GLANCE_NS (WP_LOOK_NS / 20)

static int pop(struct wp_link *list, weirpool_task **tasks, int room)
{
    int n = 0;
    while (n < room && !wp_list_is_empty(list)) {
        tasks[n++] = wp_container_of(wp_list_pop(list), struct weirpool_task, link);
    }
    return n;
}

static int pop_unwatched(struct weirpool *pool, weirpool_task **tasks, int room)
{
    int n = pop(&pool->unwatched, tasks, room);
    wp_store_relaxed(&pool->unwatched_count, wp_load_relaxed(&pool->unwatched_count) - (uint64_t)n);
    return n;
}

static bool report_departure(struct weirpool *pool, struct weirpool_event *event)
{
    for (uint32_t worker = 0; pool->departures > 0 && worker < pool->segment.workers; worker++) {
        if (pool->members[worker].has_left) {
            pool->members[worker].has_left = false;
            pool->departures--;
            *event = (struct weirpool_event){.kind = WEIRPOOL_WORKER_LEFT, .worker = worker};
            return true;
        }
    }
    return false;
}

/* Nothing is outstanding and nothing more will come: no worker will be needed again. */
static void dismiss_workers(struct weirpool *pool)
{
    wp_store_seq_cst(&pool->segment.header->stop, WP_FINISH);
    wp_wake_all(&pool->segment);
}

static bool next_event(struct weirpool *pool, struct weirpool_event *event)
{
    if (pool->broke_unreported) {
        pool->broke_unreported = false;
        event->kind = WEIRPOOL_BROKE;
        return true;
    }
    if (wp_is_drained(pool) && !pool->drained_reported) {
        pool->drained_reported = true;
        dismiss_workers(pool);
        event->kind = WEIRPOOL_DRAINED;
        return true;
    }
    return report_departure(pool, event);
}

static bool has_news(const struct weirpool *pool)
{
    bool drained = wp_is_drained(pool) && !pool->drained_reported;
    return !wp_list_is_empty(&pool->watched) || pool->broke_unreported || drained;
}

/* The look once a second, also of a collector that is rung without end. */
static void look_when_due(struct weirpool *pool, int64_t now)
{
    if (now - pool->collector_looked >= WP_LOOK_NS) {
        pool->collector_looked = now;
        wp_look(&pool->segment);
        wp_audit(pool);
    }
}

/* With something to tell or to take all the time we never doze: dead workers must be seen all the same. */
static void glance_at_workers(struct weirpool *pool)
{
    int64_t now = wp_os_now();
    if (now - pool->saw_to_workers >= GLANCE_NS) {
        (void)wp_see_to_workers(pool, WEIRPOOL_NOW);
    }
    look_when_due(pool, now);
}

/* Whoever goes off to tell something leaves the rest of the streams to others. */
static void take_until_news(struct weirpool *pool, int64_t deadline)
{
    bool more = wp_take(pool);
    while (more && !has_news(pool) && wp_list_is_empty(&pool->unwatched) && wp_os_now() < deadline) {
        glance_at_workers(pool);
        more = wp_take(pool);
    }
    if (more) {
        wp_pass_on(pool);
    }
}

static void set_asleep(struct weirpool *pool, bool asleep)
{
    pool->collector_asleep = asleep;
    pool->collector_rung = false;
    wp_address(pool);
}

int wp_see_to_workers(struct weirpool *pool, int64_t deadline)
{
    uint32_t keys[16];
    wp_unlock(pool);
    int n = wp_os_watch_wait(pool->watch, keys, 16, deadline);
    wp_lock(pool);
    pool->saw_to_workers = wp_os_now();
    for (int i = 0; i < n; i++) {
        if (keys[i] == WP_ALARM) {
            wp_enforce_limits(pool);
        } else if (keys[i] != WP_NO_WORKER) {
            wp_worker_ended(pool, keys[i]);
        }
    }
    return n;
}

/* Lock held at entry and exit. 0: look again. At the deadline weirpool_fd() stays armed for a caller that polls it. */
static int doze(struct weirpool *pool, int64_t deadline)
{
    set_asleep(pool, true);
    take_until_news(pool, deadline); /* for workers that did not ring because we were awake */
    int64_t look = wp_os_now() + WP_LOOK_NS;
    int64_t until = has_news(pool) ? WEIRPOOL_NOW : wp_sooner(look, deadline);
    int n = wp_see_to_workers(pool, until);
    if (n > 0) {
        wp_os_bell_clear(pool->doorbell); /* a helper must not: somebody may poll weirpool_fd() for that ring */
    }
    look_when_due(pool, pool->saw_to_workers);
    if (n == 0 && !has_news(pool) && wp_os_now() >= deadline) {
        return wp_too_late(deadline);
    }
    set_asleep(pool, false);
    return n == -EINTR ? -EINTR : 0;
}

int weirpool_collect(weirpool *pool, weirpool_task **tasks, int room, struct weirpool_event *event, int64_t deadline)
{
    int n = room > 0 ? wp_check_owner(pool) : -EINVAL;
    if (n != 0) {
        return n;
    }
    wp_lock(pool);
    if (pool->collecting) {
        wp_unlock(pool);
        return -EBUSY;
    }
    pool->collecting = true;
    set_asleep(pool, false);
    event->kind = WEIRPOOL_NOTHING;
    glance_at_workers(pool);
    do {
        take_until_news(pool, deadline);
        n = pop(&pool->watched, tasks, room);
        n += pop_unwatched(pool, tasks + n, room - n);
    } while (n == 0 && !next_event(pool, event) && (n = doze(pool, deadline)) == 0);
    if (n > 0) {
        (void)report_departure(pool, event); /* or no worker would be replaced while others keep us busy */
    }
    pool->collecting = false;
    wp_unlock(pool);
    return n;
}

int weirpool_sweep(weirpool *pool, weirpool_task **tasks, int room)
{
    if (wp_load_relaxed(&pool->unwatched_count) == 0 || wp_check_owner(pool) != 0) {
        return 0;
    }
    wp_lock(pool);
    int n = pop_unwatched(pool, tasks, room);
    wp_unlock(pool);
    return n;
}

/* ---- The C face ---- */

/* Has everything been fetched, and will nothing more come? */
static int end_of(struct weirpool *pool)
{
    int rc = 0;
    wp_lock(pool);
    bool ending = pool->table.used > 0 || pool->overflowing > 0; /* a pool that breaks waits for its drainers first */
    if (!ending && wp_list_is_empty(&pool->watched) && wp_list_is_empty(&pool->unwatched)) {
        if (pool->course == WP_BROKEN && !pool->broke_unreported) {
            rc = -EPIPE;
        } else if (pool->drained_reported) {
            rc = -ESHUTDOWN;
        }
    }
    wp_unlock(pool);
    return rc;
}

/* Collects one task, and sees to the pool's own workers. As weirpool_collect(). */
static int collect_one(struct weirpool *pool, weirpool_task **task, int64_t deadline)
{
    struct weirpool_event event = {.kind = WEIRPOOL_NOTHING};
    int64_t again = wp_crew_fill(pool);
    int n = weirpool_collect(pool, task, 1, &event, again < deadline ? again : deadline);
    if (event.kind == WEIRPOOL_WORKER_LEFT && pool->program != NULL) {
        weirpool_worker_vacate(pool, event.worker);
    }
    return n == -ETIMEDOUT && again < deadline ? 0 : n;
}

int weirpool_next(weirpool *pool, struct weirpool_completion *completion, int64_t deadline)
{
    int rc = wp_check_owner(pool);
    while (rc == 0) {
        weirpool_task *task;
        rc = end_of(pool);
        int n = rc == 0 ? collect_one(pool, &task, deadline) : rc;
        if (n == 1) {
            weirpool_describe(task, completion);
            return 0;
        }
        rc = n;
    }
    return rc;
}

int weirpool_fd(const weirpool *pool)
{
    int rc = wp_check_owner(pool);
    return rc != 0 ? rc : pool->watch;
}
