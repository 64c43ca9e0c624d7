#include "table.h"

#include <errno.h>
#include <stdlib.h>

#include "crash.h"

int wp_table_init(struct wp_table *table, const struct wp_segment *segment)
{
    *table = (struct wp_table){.segment = segment};
    table->tasks = calloc(segment->slots, sizeof *table->tasks);
    return table->tasks != NULL ? 0 : -ENOMEM;
}

void wp_table_fini(struct wp_table *table)
{
    free(table->tasks);
    table->tasks = NULL;
}

uint64_t wp_table_reserve(struct wp_table *table, struct weirpool_task *task)
{
    uint64_t position = table->tail;
    while (table->tasks[wp_index_of(table->segment, position)] != NULL) {
        position++;
    }
    table->tasks[wp_index_of(table->segment, position)] = task;
    table->used++;
    return position;
}

void wp_table_publish(struct wp_table *table, uint64_t position)
{
    struct wp_slot *slot = wp_slot_at(table->segment, position);
    wp_store_relaxed(&slot->state, wp_state(position, 0, WP_QUEUED));
    WP_CRASH("after_queued");
    table->tail = position + 1;
    /* Releases the slot to wp_table_claim(); seq_cst against `parked`: either we see a worker asleep or it sees us. */
    wp_store_seq_cst(&table->segment->header->tail, table->tail);
    WP_CRASH("after_tail");
}

bool wp_table_cancel(struct wp_table *table, uint64_t position)
{
    struct wp_slot *slot = wp_slot_at(table->segment, position);
    uint64_t queued = wp_state(position, 0, WP_QUEUED);
    return wp_cas_acq_rel(&slot->state, &queued, wp_state(position, 0, WP_FREE));
}

bool wp_table_condemn(struct wp_table *table, uint64_t position, uint32_t worker)
{
    struct wp_slot *slot = wp_slot_at(table->segment, position);
    uint64_t running = wp_state(position, worker, WP_RUNNING);
    return wp_cas_acq_rel(&slot->state, &running, wp_state(position, worker, WP_CONDEMNED));
}

void wp_table_free(struct wp_table *table, uint64_t position)
{
    struct wp_slot *slot = wp_slot_at(table->segment, position);
    wp_store_relaxed(&slot->state, wp_state(position, 0, WP_FREE));
    WP_CRASH("after_free");
    table->tasks[wp_index_of(table->segment, position)] = NULL;
    table->used--;
}

bool wp_table_claim(const struct wp_segment *segment, uint32_t me, uint64_t *position)
{
    struct wp_header *header = segment->header;
    for (uint32_t turn = 0; turn < segment->slots; turn++) {
        uint64_t head = wp_load_acquire(&header->head);
        if (head >= wp_load_seq_cst(&header->tail)) { /* acquires the slots that wp_table_publish() released */
            return false;
        }
        struct wp_slot *slot = wp_slot_at(segment, head);
        uint64_t queued = wp_state(head, 0, WP_QUEUED);
        WP_CRASH("before_claim");
        bool won = wp_cas_seq_cst(&slot->state, &queued, wp_state(head, me, WP_RUNNING));
        WP_CRASH(won ? "after_claim" : "after_lost_claim");
        /* Help whoever won: a claimer that was stopped or killed right here holds nobody up. */
        uint64_t expected = head;
        wp_cas_acq_rel(&header->head, &expected, head + 1);
        WP_CRASH(won ? "after_help" : "after_vain_help");
        if (won) {
            *position = head;
            return true;
        }
    }
    return false;
}

bool wp_table_has_work(const struct wp_segment *segment)
{
    uint64_t head = wp_load_acquire(&segment->header->head);
    return head < wp_load_seq_cst(&segment->header->tail);
}

bool wp_table_finish(const struct wp_segment *segment, uint32_t me, uint64_t position)
{
    struct wp_slot *slot = wp_slot_at(segment, position);
    uint32_t index = wp_index_of(segment, position);
    uint64_t running = wp_state(position, me, WP_RUNNING);
    if (!wp_cas_acq_rel(&slot->state, &running, wp_state(position, me, WP_DONE))) { /* pairs with try_slot() */
        return false;
    }
    WP_CRASH("after_done");
    wp_fetch_or_seq_cst(&segment->done[index / 64], UINT64_C(1) << (index % 64));
    WP_CRASH("after_done_bit");
    return true;
}
