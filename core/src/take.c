/*
 * Taking results: from done slots, and out of the workers' streams. Any thread may do it. It needs no interpreter and
 * runs no user code.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"

#define DRAIN_AT_ONCE ((size_t)256 * 1024)

static void set_bit(uint64_t *words, uint32_t bit)
{
    words[bit / 64] |= UINT64_C(1) << (bit % 64);
}

static void clear_bit(uint64_t *words, uint32_t bit)
{
    words[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
}

/* ---- done slots ---- */

static void finish(struct weirpool *pool, struct weirpool_task *task, int32_t status)
{
    task->status = status;
    bool lost = task->result == NULL && task->result_size > 0;
    wp_dequeue(pool, task);
    wp_end_task(pool, task, lost ? -ENOMEM : 0);
}

static void copy_inline_result(struct weirpool_task *task, const struct wp_slot *slot, size_t size)
{
    task->result_size = size;
    task->result = size > 0 ? malloc(size) : NULL;
    if (task->result != NULL) {
        memcpy(task->result, slot->result, size);
    }
}

/*
 * Slot `index` may be done. If its result is still in its worker's stream, that stream is marked for draining, and the
 * drainer comes back here. Anything that does not fit what this side knows is not believed.
 */
static void try_slot(struct weirpool *pool, uint32_t index)
{
    struct weirpool_task *task = pool->table.tasks[index];
    struct wp_slot *slot = &pool->segment.slot[index];
    uint64_t state = wp_load_acquire(&slot->state); /* pairs with the release in wp_table_finish() */
    if (task == NULL || wp_state_tag(state) != WP_DONE || wp_state_position(state) != task->position) {
        return;
    }
    uint32_t worker = wp_state_worker(state);
    if (worker >= pool->segment.workers) {
        wp_break(pool, WP_NO_WORKER);
        return;
    }
    uint64_t size = slot->result_size;
    if (size <= WP_INLINE_RESULT) {
        if (task->streaming) {
            wp_break(pool, WP_NO_WORKER);
            return;
        }
        copy_inline_result(task, slot, size);
    } else if (!task->streaming || task->received < task->result_size) {
        set_bit(pool->to_drain, worker);
        return;
    }
    finish(pool, task, slot->status);
}

static void take_done_slots(struct weirpool *pool)
{
    for (uint32_t word = 0; word * 64 < pool->segment.slots; word++) {
        _Atomic uint64_t *done = &pool->segment.done[word];
        if (wp_load_relaxed(done) == 0) {
            continue;
        }
        /* seq_cst against `addressee`, see wp_address(). */
        uint64_t bits = wp_exchange_seq_cst(done, 0);
        for (; bits != 0 && pool->course != WP_BROKEN; bits &= bits - 1) {
            try_slot(pool, word * 64 + (uint32_t)__builtin_ctzll(bits));
        }
    }
}

/* ---- streams ---- */

static void note_streaming_workers(struct weirpool *pool)
{
    for (uint32_t word = 0; word * 64 < pool->segment.workers; word++) {
        _Atomic uint64_t *streaming = &pool->segment.header->streaming[word];
        if (wp_load_relaxed(streaming) != 0) {
            pool->to_drain[word] |= wp_exchange_seq_cst(streaming, 0);
        }
    }
}

/* The worker with something to drain that no other thread drains already, or WP_NO_WORKER. */
static uint32_t next_to_drain(struct weirpool *pool)
{
    for (uint32_t word = 0; word * 64 < pool->segment.workers; word++) {
        for (uint64_t bits = pool->to_drain[word]; bits != 0; bits &= bits - 1) {
            uint32_t worker = word * 64 + (uint32_t)__builtin_ctzll(bits);
            if (worker < pool->segment.workers && !pool->members[worker].draining) {
                return worker;
            }
        }
    }
    return WP_NO_WORKER;
}

/* The task that a stream's head names, if that worker has it and no stream brought its head before. */
static struct weirpool_task *task_of_head(struct weirpool *pool, uint32_t worker, const struct wp_stream_head *head)
{
    struct weirpool_task *task = pool->table.tasks[head->position & (pool->segment.slots - 1)];
    if (task == NULL || task->position != head->position || task->streaming || head->size <= WP_INLINE_RESULT) {
        return NULL;
    }
    uint64_t state = wp_load_acquire(&wp_slot_at(&pool->segment, head->position)->state);
    bool its_own = wp_state_worker(state) == worker && wp_state_position(state) == head->position;
    bool started = wp_state_tag(state) == WP_RUNNING || wp_state_tag(state) == WP_DONE;
    return its_own && started ? task : NULL;
}

/* Lock held. Starts receiving if a head has come. False: the stream is corrupt. */
static bool receive_head(struct weirpool *pool, uint32_t worker, size_t *available)
{
    struct wp_member *member = &pool->members[worker];
    struct wp_stream *stream = &pool->segment.streams[worker];
    struct wp_stream_head head;
    if (member->receiving != NULL || *available < sizeof head) {
        return true;
    }
    wp_stream_read(stream, &member->cursor, &head, sizeof head);
    *available -= sizeof head;
    struct weirpool_task *task = task_of_head(pool, worker, &head);
    if (task == NULL) {
        return false;
    }
    task->streaming = true;
    task->result_size = head.size;
    task->result = malloc(head.size); /* NULL: the body is discarded, and this task alone fails */
    member->receiving = task;
    return true;
}

/* Lock released, `draining` ours: copies a piece of the body. */
static void receive_body(struct wp_stream *stream, struct wp_member *member, size_t available)
{
    struct weirpool_task *task = member->receiving;
    size_t left = task->result_size - task->received;
    size_t n = available < left ? available : left;
    n = n < DRAIN_AT_ONCE ? n : DRAIN_AT_ONCE;
    wp_stream_read(stream, &member->cursor, task->result != NULL ? task->result + task->received : NULL, n);
    wp_stream_give_room(stream, &member->cursor);
    task->received += n;
}

/* Lock held. The body is complete: its slot may have been seen done before. */
static void complete_body(struct weirpool *pool, struct wp_member *member)
{
    struct weirpool_task *task = member->receiving;
    if (task != NULL && task->received == task->result_size) {
        member->receiving = NULL;
        try_slot(pool, (uint32_t)(task->position & (pool->segment.slots - 1)));
    }
}

/* Has the worker said DONE of the task whose body it did not send? */
static bool is_cut_short(const struct weirpool *pool, const struct wp_member *member)
{
    if (member->receiving == NULL) {
        return false;
    }
    const struct wp_slot *slot = wp_slot_at(&pool->segment, member->receiving->position);
    return wp_state_tag(wp_load_acquire(&slot->state)) == WP_DONE;
}

/* One turn at one stream. Lock held at entry and exit. */
static void drain(struct weirpool *pool, uint32_t worker)
{
    struct wp_member *member = &pool->members[worker];
    struct wp_stream *stream = &pool->segment.streams[worker];
    size_t available;
    bool cut_short = is_cut_short(pool, member); /* first: what was sent before DONE is available after it */
    bool sound = wp_stream_available(stream, &member->cursor, &available);
    sound = sound && receive_head(pool, worker, &available);
    if (!sound || (available == 0 && cut_short)) {
        wp_break(pool, WP_NO_WORKER);
        return;
    }
    if (member->receiving == NULL || available == 0) {
        clear_bit(pool->to_drain, worker);
        return;
    }
    member->draining = true;
    wp_unlock(pool);
    receive_body(stream, member, available);
    wp_lock(pool);
    member->draining = false;
    if (pool->course != WP_BROKEN) {
        complete_body(pool, member);
    }
}

void wp_take(struct weirpool *pool)
{
    while (pool->course != WP_BROKEN) {
        take_done_slots(pool);
        note_streaming_workers(pool);
        wp_flow(pool);
        uint32_t worker = next_to_drain(pool);
        if (worker == WP_NO_WORKER) {
            return;
        }
        drain(pool, worker);
    }
}

static bool is_anyone_draining(const struct weirpool *pool)
{
    for (uint32_t worker = 0; worker < pool->segment.workers; worker++) {
        if (pool->members[worker].draining) {
            return true;
        }
    }
    return false;
}

void wp_settle_drainers(struct weirpool *pool)
{
    while (is_anyone_draining(pool)) {
        wp_unlock(pool);
        sched_yield();
        wp_lock(pool);
    }
}
