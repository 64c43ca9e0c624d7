/*
 * The slot table, which is the queue. Position p lives in slot p mod N; workers claim positions in order.
 *
 * The parent's side knows by itself which slots are busy (`tasks`), whatever workers write into shared memory.
 */
#ifndef WP_TABLE_H
#define WP_TABLE_H

#include <stdbool.h>

#include "segment.h"

struct weirpool_task;

/*
 * field      writer   protection
 * tasks[i]   parent   pool lock; the task in slot i, NULL while the slot is free
 * tail       parent   pool lock; the next position
 * used       parent   pool lock; how many slots are busy
 */
struct wp_table {
    const struct wp_segment *segment;
    struct weirpool_task **tasks;
    uint64_t tail;
    uint32_t used;
};

/* ---- The parent: under the pool lock ---- */

int wp_table_init(struct wp_table *table, const struct wp_segment *segment);
void wp_table_fini(struct wp_table *table);

static inline bool wp_table_is_full(const struct wp_table *table)
{
    return table->used == table->segment->slots;
}

/* The next position whose slot is free; the table is not full. Positions of busy slots are skipped for good. */
uint64_t wp_table_reserve(struct wp_table *table, struct weirpool_task *task);

/* Makes the reserved position claimable: its payload is in the slot. */
void wp_table_publish(struct wp_table *table, uint64_t position);

/* Takes a position back unless a worker has claimed it. The slot stays busy until wp_table_free(). */
bool wp_table_cancel(struct wp_table *table, uint64_t position);

/* The task that `worker` runs there is not to finish any more; false if it has. The slot stays busy. */
bool wp_table_condemn(struct wp_table *table, uint64_t position, uint32_t worker);

void wp_table_free(struct wp_table *table, uint64_t position);

/* ---- Workers ---- */

/* Claims the oldest queued position for worker `me`; false if nothing is queued, or nothing within one turn of the table:
 * of a head or a tail that somebody scribbled over it would never come to an end. */
bool wp_table_claim(const struct wp_segment *segment, uint32_t me, uint64_t *position);

/* Is there something to claim? A hint. */
bool wp_table_has_work(const struct wp_segment *segment);

/* Publishes a result that lies in the slot: DONE, then the bit that makes the parent look. False, and nothing is done,
 * if the task was condemned. */
bool wp_table_finish(const struct wp_segment *segment, uint32_t me, uint64_t position);

#endif
