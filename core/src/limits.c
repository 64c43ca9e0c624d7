/*
 * Limits: how long one attempt at a task may run. The parent looks, by an alarm in the collector's watch that is set to
 * the earliest moment at which any task could be over its limit: a queued one might be claimed now, and of one that
 * runs it is known when it started. So nothing depends on a worker's help, and a pool without limited tasks does
 * nothing.
 */
#include "pool.h"

/* Looks are not closer to each other: a limit of a nanosecond would have the collector do nothing else. */
#define GRAIN_NS INT64_C(1000000)

/* How far a look may walk along the list for the sake of later ones. */
#define STEPS_A_LOOK 256u

static void set_alarm(struct weirpool *pool, int64_t at)
{
    pool->alarm_at = at;
    wp_os_alarm_set(pool->alarm, at);
}

void wp_limit_begins(struct weirpool *pool, struct weirpool_task *task)
{
    if (task->limit_ns == 0) {
        return;
    }
    int64_t now = wp_os_now();
    task->published = now;
    task->seen_running = 0;
    /* Released with the slot by wp_table_publish(): a time that is found here is of this attempt, or a lie. */
    wp_store_relaxed(&wp_slot_at(&pool->segment, task->position)->started, 0);
    bool alone = wp_list_is_empty(&pool->limited);
    pool->shortest_limit = alone ? task->limit_ns : wp_sooner(pool->shortest_limit, task->limit_ns);
    wp_list_append(&pool->limited, &task->limit_link);
    pool->limited_count++;
    int64_t first = now + (task->limit_ns > GRAIN_NS ? task->limit_ns : GRAIN_NS);
    if (first < pool->alarm_at) {
        set_alarm(pool, first);
    }
}

void wp_limit_ends(struct weirpool *pool, struct weirpool_task *task)
{
    if (task->limit_ns != 0) {
        wp_list_remove(&task->limit_link);
        pool->limited_count--;
    }
}

/* As its worker says, within what we know by ourselves: it has run when we saw it first. */
static int64_t start_of(const struct weirpool *pool, struct weirpool_task *task, int64_t now)
{
    if (task->seen_running == 0) {
        task->seen_running = now;
    }
    uint64_t said = wp_load_relaxed(&wp_slot_at(&pool->segment, task->position)->started);
    if (said == 0 || said > (uint64_t)task->seen_running) {
        return task->seen_running; /* it has not come to say it, or lies */
    }
    return said < (uint64_t)task->published ? task->published : (int64_t)said;
}

/* Stops the task if it is over its limit. Returns when it will be; WEIRPOOL_FOREVER: never. */
static int64_t enforce(struct weirpool *pool, struct weirpool_task *task, int64_t now)
{
    uint64_t state = wp_load_acquire(&wp_slot_at(&pool->segment, task->position)->state);
    if (wp_state_tag(state) != WP_RUNNING || task->condemned) {
        return WEIRPOOL_FOREVER;
    }
    int64_t end = start_of(pool, task, now) + task->limit_ns;
    if (end > now) {
        return end;
    }
    (void)wp_condemn(pool, task); /* if it cannot be, it has just finished */
    return WEIRPOOL_FOREVER;
}

static bool is_queued(const struct weirpool *pool, const struct weirpool_task *task)
{
    return wp_load_acquire(&wp_slot_at(&pool->segment, task->position)->state) ==
           wp_state(task->position, 0, WP_QUEUED);
}

/*
 * At most the shortest limit of the tasks that are queued, from `first` on. It may be too short, and then a look finds
 * nothing; it is found anew once the looks have earned as many steps as there are limited tasks.
 */
static int64_t find_shortest(struct weirpool *pool, const struct wp_link *first)
{
    pool->steps_earned += STEPS_A_LOOK;
    if (pool->steps_earned >= pool->limited_count) {
        pool->steps_earned = 0;
        pool->shortest_limit = WEIRPOOL_FOREVER;
        for (const struct wp_link *link = first; link != &pool->limited; link = link->next) {
            const struct weirpool_task *task = wp_container_of(link, struct weirpool_task, limit_link);
            pool->shortest_limit = wp_sooner(pool->shortest_limit, task->limit_ns);
        }
    }
    return pool->shortest_limit;
}

void wp_enforce_limits(struct weirpool *pool)
{
    int64_t now = wp_os_now();
    int64_t next = WEIRPOOL_FOREVER;
    for (struct wp_link *link = pool->limited.next; link != &pool->limited; link = link->next) {
        struct weirpool_task *task = wp_container_of(link, struct weirpool_task, limit_link);
        if (is_queued(pool, task)) { /* and so is all that was published later */
            next = wp_sooner(next, now + find_shortest(pool, link));
            break;
        }
        next = wp_sooner(next, enforce(pool, task, now));
    }
    set_alarm(pool, next > now + GRAIN_NS ? next : now + GRAIN_NS);
}
