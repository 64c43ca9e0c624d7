/*
 * Which tasks have been started, for the bound on those that have not. Workers claim positions in their order, so a
 * cursor finds it out. While a producer waits for a start, workers say when they claim: `want_starts` asks them to, and
 * `started` is how they do, before they ring.
 */
#include "pool.h"

static void note_start_at(struct weirpool *pool, uint64_t position)
{
    struct weirpool_task *task = pool->table.tasks[wp_index_of(&pool->segment, position)];
    if (task != NULL && task->position == position) {
        wp_started(pool, task);
    }
}

void wp_note_starts(struct weirpool *pool)
{
    struct wp_header *header = pool->segment.header;
    if (wp_load_seq_cst(&header->started) != 0) {
        wp_store_seq_cst(&header->started, 0); /* before the slots are looked at: a later claim sets it again */
    }
    while (pool->starts_seen < pool->table.tail) {
        /* seq_cst: against `want_starts`, see wp_ask_for_starts(). */
        uint64_t state = wp_load_seq_cst(&wp_slot_at(&pool->segment, pool->starts_seen)->state);
        if (state == wp_state(pool->starts_seen, 0, WP_QUEUED)) {
            return;
        }
        note_start_at(pool, pool->starts_seen++);
    }
}

void wp_ask_for_starts(struct weirpool *pool)
{
    uint32_t wanted = pool->gate.bound.unstarted != 0 && !wp_list_is_empty(&pool->gate.waiting);
    _Atomic uint32_t *want_starts = &pool->segment.header->want_starts;
    if (wp_load_relaxed(want_starts) != wanted) {
        /* seq_cst against a slot's state: a claim that does not see this is seen by wp_note_starts() (tell_start). */
        wp_store_seq_cst(want_starts, wanted);
    }
}
