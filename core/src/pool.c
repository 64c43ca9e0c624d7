/* Opening and closing a pool. */
#include "pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crew.h"
#include "fork.h"
#include "program.h"

#define DEFAULT_SLOTS 1024u
#define MAX_ARENA (UINT64_C(1) << 40)

int64_t weirpool_deadline(int64_t ns)
{
    int64_t now = wp_os_now();
    return ns > WEIRPOOL_FOREVER - now ? WEIRPOOL_FOREVER : now + ns;
}

int wp_check_owner(const struct weirpool *pool)
{
    return wp_forked_since(pool->generation) ? -ECHILD : 0;
}

/* Enough slots that workers find work while the parent is busy; more are no use, the overflow holds the rest. */
static uint32_t slots_for(uint32_t workers, uint64_t bound)
{
    uint64_t wanted = bound == 0 ? DEFAULT_SLOTS : bound;
    wanted = wanted < 4u * workers ? 4u * workers : wanted;
    uint32_t slots = WP_MIN_SLOTS;
    while (slots < wanted && slots < WP_MAX_SLOTS) {
        slots *= 2;
    }
    return slots;
}

static uint64_t arena_for(uint64_t wanted)
{
    uint64_t size = wanted != 0 ? wanted : wp_os_physical_memory();
    size = size < MAX_ARENA ? size : MAX_ARENA;
    return (size + WP_PAGE - 1) / WP_PAGE * WP_PAGE;
}

static void init_private(struct weirpool *pool, const struct wp_bounds *bound, uint32_t workers)
{
    pthread_mutex_init(&pool->lock, NULL);
    pool->generation = wp_fork_generation();
    pool->doorbell = pool->parent = pool->watch = pool->alarm = -1;
    pool->alarm_at = WEIRPOOL_FOREVER;
    pool->segment.fd = -1;
    pool->helper_spin.allowed = wp_os_cores() > 1;
    wp_recent_init(&pool->times.recent, wp_os_now());
    wp_gate_init(&pool->gate, bound, workers);
    wp_list_init(&pool->overflow);
    wp_list_init(&pool->limited);
    wp_list_init(&pool->watched);
    wp_list_init(&pool->unwatched);
    wp_list_init(&pool->sleepers);
}

static int open_descriptors(struct weirpool *pool)
{
    pool->doorbell = wp_os_bell_create();
    pool->watch = wp_os_watch_create();
    pool->parent = wp_os_process_open(getpid());
    const int fds[] = {pool->doorbell, pool->watch, pool->parent};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (fds[i] < 0) {
            return fds[i] == -EPERM ? -ENOSYS : fds[i];
        }
    }
    return wp_os_watch_add(pool->watch, pool->doorbell, WP_NO_WORKER);
}

static int open_alarm(struct weirpool *pool)
{
    pool->alarm = wp_os_alarm_create();
    return pool->alarm < 0 ? pool->alarm : wp_os_watch_add(pool->watch, pool->alarm, WP_ALARM);
}

/* Where a sandbox refuses what every sleep of a worker is, opening the pool says so: the word has another value. */
static int try_futex(const struct weirpool *pool)
{
    return wp_os_futex_wait(&pool->segment.header->addressee, UINT32_MAX, WEIRPOOL_FOREVER, WP_SHARED);
}

static int make_members(struct weirpool *pool, uint32_t workers)
{
    pool->members = calloc(workers, sizeof *pool->members);
    pool->to_drain = calloc(WP_WORKER_WORDS, sizeof *pool->to_drain);
    if (pool->members == NULL || pool->to_drain == NULL) {
        return -ENOMEM;
    }
    for (uint32_t worker = 0; worker < workers; worker++) {
        pool->members[worker].process = -1;
    }
    return 0;
}

static int build(struct weirpool *pool, uint32_t workers, bool adaptive, uint64_t arena_bytes)
{
    uint32_t slots = slots_for(workers, adaptive ? wp_adapt_limit(workers) : pool->gate.bound.tasks);
    if (adaptive) {
        wp_adapt_begin(pool, workers);
    }
    int rc = wp_segment_create(&pool->segment, slots, workers, arena_for(arena_bytes));
    if (rc != 0) {
        pool->segment.fd = -1;
        return rc;
    }
    rc = try_futex(pool);
    if (rc == 0) {
        rc = wp_table_init(&pool->table, &pool->segment);
    }
    if (rc == 0) {
        rc = wp_arena_init(&pool->arena, pool->segment.fd, pool->segment.arena_at, pool->segment.arena_size);
    }
    if (rc == 0) {
        wp_arena_limit(&pool->arena, pool->gate.bound.bytes);
        rc = make_members(pool, workers);
    }
    if (rc == 0) {
        rc = open_descriptors(pool);
    }
    return rc == 0 && pool->replaces ? open_alarm(pool) : rc;
}

static void free_tasks(struct wp_link *list)
{
    struct wp_link *link;
    while ((link = wp_list_pop(list)) != NULL) {
        wp_task_free(wp_container_of(link, struct weirpool_task, link));
    }
}

static void free_slots(struct weirpool *pool)
{
    for (uint32_t i = 0; pool->table.tasks != NULL && i < pool->segment.slots; i++) {
        if (pool->table.tasks[i] != NULL) {
            wp_task_free(pool->table.tasks[i]);
        }
    }
}

static void demolish(struct weirpool *pool)
{
    free_slots(pool);
    free_tasks(&pool->overflow);
    free_tasks(&pool->watched);
    free_tasks(&pool->unwatched);
    for (uint32_t worker = 0; pool->members != NULL && worker < pool->segment.workers; worker++) {
        wp_os_close(pool->members[worker].process);
    }
    wp_program_free(pool->program);
    wp_table_fini(&pool->table);
    wp_arena_fini(&pool->arena);
    wp_segment_unmap(&pool->segment);
    wp_os_close(pool->segment.fd);
    wp_os_close(pool->doorbell);
    wp_os_close(pool->watch);
    wp_os_close(pool->alarm);
    wp_os_close(pool->parent);
    free(pool->members);
    free(pool->to_drain);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

static int check_options(const struct weirpool_options *options)
{
    if (options == NULL || options->size < offsetof(struct weirpool_options, arena_bytes)) {
        return -EINVAL;
    }
    if (options->workers > WEIRPOOL_MAX_WORKERS || (options->handler != NULL && options->program != NULL)) {
        return -EINVAL;
    }
    return 0;
}

static uint32_t count_workers(uint32_t wanted)
{
    uint32_t workers = wanted != 0 ? wanted : wp_os_cores();
    return workers < WEIRPOOL_MAX_WORKERS ? workers : WEIRPOOL_MAX_WORKERS;
}

int weirpool_open(weirpool **out, const struct weirpool_options *given)
{
    int rc = check_options(given);
    if (rc != 0) {
        return rc;
    }
    struct weirpool_options options = {.size = sizeof options};
    memcpy(&options, given, given->size < sizeof options ? given->size : sizeof options);
    if (options.adaptive > 1 || (options.adaptive == 1 && options.bound != 0)) {
        return -EINVAL;
    }
    if (options.replace > 1 || (options.replace == 1 && options.handler != NULL)) {
        return -EINVAL;
    }
    struct weirpool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) {
        return -ENOMEM;
    }
    uint32_t workers = count_workers(options.workers);
    const struct wp_bounds bound = {
        .tasks = options.bound,
        .unstarted = options.max_unstarted,
        .bytes = options.max_bytes,
    };
    init_private(pool, &bound, workers);
    pool->replaces = options.replace == 1;
    rc = build(pool, workers, options.adaptive == 1, options.arena_bytes);
    if (rc == 0) {
        rc = wp_crew_start(pool, &options);
    }
    if (rc != 0) {
        demolish(pool);
        return rc;
    }
    *out = pool;
    return 0;
}

int weirpool_close(weirpool *pool)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_crew_end(pool);
    demolish(pool);
    return 0;
}
