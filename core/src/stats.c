/* What a pool says of itself. */
#include "pool.h"

uint64_t wp_count_running(const struct weirpool *pool)
{
    uint64_t running = 0;
    for (uint32_t i = 0; i < pool->segment.slots; i++) {
        enum wp_tag tag = wp_state_tag(wp_load_relaxed(&pool->segment.slot[i].state));
        running += pool->table.tasks[i] != NULL && (tag == WP_RUNNING || tag == WP_DONE);
    }
    return running;
}

int weirpool_stats(weirpool *pool, struct weirpool_stats *stats)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    const struct wp_gate *gate = &pool->gate;
    uint64_t running = wp_count_running(pool) + pool->held;
    *stats = (struct weirpool_stats){
        .bound = gate->bound,
        .outstanding = gate->outstanding,
        .waiting = gate->outstanding - running,
        .running = running,
        .peak_outstanding = gate->peak,
        .admitted_over_bound = gate->over_bound,
        .blocked_producers = gate->blocked,
        .blocked_ns = gate->blocked_ns,
        .submitted = pool->submitted,
        .finished = pool->finished,
        .workers = pool->live,
        .segment_bytes = wp_os_memory_held(pool->segment.fd),
    };
    wp_unlock(pool);
    return 0;
}
