/*
 * Taking results: from done slots, and out of the workers' streams. Any thread may do it. It needs no interpreter and
 * runs no user code.
 *
 * A streamed result begins while its slot says RUNNING. Its head makes the task `streaming`, and its worker's member
 * `receiving` it; pieces of the body add to `received`, and the last one ends `receiving`. If the slot is seen DONE
 * before that, the member has it `owed`. Whichever comes second, DONE or the last byte, calls finish().
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "crash.h"
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

static bool has_bit(const uint64_t *words, uint32_t bit)
{
    return (words[bit / 64] >> (bit % 64) & 1) != 0;
}

/* ---- done slots ---- */

static void finish(struct weirpool *pool, struct weirpool_task *task, uint32_t worker, int32_t status)
{
    struct wp_member *member = &pool->members[worker];
    bool lost = task->result == NULL && task->result_size > 0;
    task->status = status;
    task->attempts++;
    pool->deaths_in_a_row = 0;
    member->owed = member->owed == task ? NULL : member->owed;
    pool->executed++;
    wp_note_run(pool, task, worker);
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
    if (worker >= pool->segment.workers || task->condemned) {
        wp_break(pool, WP_NO_WORKER, WEIRPOOL_FAULT_CORRUPT);
        return;
    }
    uint64_t size = wp_load_relaxed(&slot->result_size);
    if (size <= WP_INLINE_RESULT) {
        if (task->streaming) {
            wp_break(pool, WP_NO_WORKER, WEIRPOOL_FAULT_CORRUPT);
            return;
        }
        copy_inline_result(task, slot, size);
    } else if (!task->streaming || task->received < task->result_size) {
        pool->members[worker].owed = task;
        set_bit(pool->to_drain, worker);
        return;
    }
    finish(pool, task, worker, wp_load_relaxed(&slot->status));
}

/* The bits are hints: a worker may be stopped or killed between DONE and its bit, and others may write over it. */
void wp_mark_done_slots(struct weirpool *pool)
{
    for (uint32_t index = 0; index < pool->segment.slots; index++) {
        if (wp_state_tag(wp_load_relaxed(&pool->segment.slot[index].state)) == WP_DONE) { /* try_slot() acquires */
            wp_fetch_or_seq_cst(&pool->segment.done[index / 64], UINT64_C(1) << (index % 64));
        }
    }
}

static void take_done_slots(struct weirpool *pool)
{
    bool began = false;
    for (uint32_t word = 0; word * 64 < pool->segment.slots; word++) {
        _Atomic uint64_t *done = &pool->segment.done[word];
        if (wp_load_seq_cst(done) == 0) { /* against `addressee`, see wp_address() */
            continue;
        }
        uint64_t bits = wp_exchange_seq_cst(done, 0);
        WP_CRASH("after_bits_taken");
        if (!began) {
            wp_note_taking(pool);
            began = true;
        }
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
        if (wp_load_seq_cst(streaming) != 0) {
            pool->to_drain[word] |= wp_exchange_seq_cst(streaming, 0);
        }
    }
}

/* The first worker in [from, to) with something to drain that no other thread drains already, or WP_NO_WORKER. */
static uint32_t first_to_drain(const struct weirpool *pool, uint32_t from, uint32_t to)
{
    for (uint32_t worker = from; worker < to; worker++) {
        if (pool->to_drain[worker / 64] == 0) {
            worker |= 63; /* none in this word */
        } else if (has_bit(pool->to_drain, worker) && !pool->members[worker].draining) {
            return worker;
        }
    }
    return WP_NO_WORKER;
}

/* In turn, so that a worker that streams without end does not keep others waiting. */
static uint32_t next_to_drain(struct weirpool *pool)
{
    uint32_t worker = first_to_drain(pool, pool->drain_next, pool->segment.workers);
    if (worker == WP_NO_WORKER) {
        worker = first_to_drain(pool, 0, pool->drain_next);
    }
    if (worker != WP_NO_WORKER) {
        pool->drain_next = worker + 1;
    }
    return worker;
}

/* The task that a stream's head names, if that worker has it and no stream brought its head before. */
static struct weirpool_task *task_of_head(struct weirpool *pool, uint32_t worker, const struct wp_stream_head *head)
{
    struct weirpool_task *task = pool->table.tasks[wp_index_of(&pool->segment, head->position)];
    if (task == NULL || task->position != head->position || task->streaming || head->size <= WP_INLINE_RESULT) {
        return NULL;
    }
    uint64_t state = wp_load_acquire(&wp_slot_at(&pool->segment, head->position)->state);
    bool its_own = wp_state_worker(state) == worker && wp_state_position(state) == head->position;
    bool started = wp_state_runs(state) || wp_state_tag(state) == WP_DONE;
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
    if (task->result != NULL) {
        wp_os_use_large_pages(task->result, head.size);
    }
    member->receiving = task;
    return true;
}

/* Lock released, `draining` ours: copies a piece of the body; returns its size. */
static size_t receive_body(struct wp_stream *stream, struct wp_member *member, size_t available)
{
    const struct weirpool_task *task = member->receiving;
    size_t left = task->result_size - task->received;
    size_t n = available < left ? available : left;
    n = n < DRAIN_AT_ONCE ? n : DRAIN_AT_ONCE;
    wp_stream_read(stream, &member->cursor, task->result != NULL ? task->result + task->received : NULL, n);
    wp_stream_give_room(stream, &member->cursor);
    return n;
}

/*
 * Lock held. A piece of the body is here; if it was the last, the slot may have been seen done before. Counted here and
 * not where it was copied: another thread must not find the result whole, and end the task, while we still use it.
 */
static void note_received(struct weirpool *pool, struct wp_member *member, size_t size)
{
    struct weirpool_task *task = member->receiving;
    task->received += size;
    if (task->received == task->result_size) {
        member->receiving = NULL;
        try_slot(pool, wp_index_of(&pool->segment, task->position));
    }
}

/* One turn at one stream. Lock held at entry and exit. */
static void drain(struct weirpool *pool, uint32_t worker)
{
    struct wp_member *member = &pool->members[worker];
    struct wp_stream *stream = &pool->segment.streams[worker];
    size_t available;
    bool sound = wp_stream_available(stream, &member->cursor, &available);
    sound = sound && receive_head(pool, worker, &available);
    bool empty = sound && (member->receiving == NULL || available == 0);
    /* What was sent before DONE was seen is available after it: a result that is owed now was never sent whole. */
    if (!sound || (empty && member->owed != NULL)) {
        wp_break(pool, WP_NO_WORKER, WEIRPOOL_FAULT_CORRUPT);
        return;
    }
    if (empty) {
        wp_stream_correct(stream, &member->cursor);
        clear_bit(pool->to_drain, worker);
        return;
    }
    member->draining = true;
    wp_unlock(pool);
    WP_CRASH("while_draining");
    size_t size = receive_body(stream, member, available);
    wp_lock(pool);
    member->draining = false;
    wp_note_taking(pool);
    if (pool->course != WP_BROKEN) {
        note_received(pool, member, size);
        wp_adapt_bound(pool);
        wp_flow(pool);
    }
}

bool wp_has_results(const struct weirpool *pool)
{
    const struct wp_segment *segment = &pool->segment;
    /* Unasked it is a worker's error, and would not be cleared: whoever waits would never sleep. */
    bool any = pool->gate.bound.unstarted != 0 && wp_load_seq_cst(&segment->header->started) != 0;
    for (uint32_t word = 0; !any && word * 64 < segment->slots; word++) {
        any = wp_load_seq_cst(&segment->done[word]) != 0;
    }
    for (uint32_t word = 0; !any && word * 64 < segment->workers; word++) {
        any = wp_load_seq_cst(&segment->header->streaming[word]) != 0;
    }
    return any;
}

bool wp_take(struct weirpool *pool)
{
    if (pool->course == WP_BROKEN) {
        return false;
    }
    take_done_slots(pool);
    wp_adapt_bound(pool);
    wp_flow(pool); /* before the lock is released: whoever waits gets the room that was made */
    note_streaming_workers(pool);
    uint32_t worker = pool->quiet_wanted > 0 ? WP_NO_WORKER : next_to_drain(pool);
    if (worker != WP_NO_WORKER) {
        drain(pool, worker);
    }
    return worker != WP_NO_WORKER && pool->course != WP_BROKEN;
}

/* Lets other threads go on. It polls: a drainer's turn is one short copy, and waiting for its end is rare. */
static void pause_for_drainers(struct weirpool *pool)
{
    wp_unlock(pool);
    sched_yield();
    wp_lock(pool);
}

/* Drains up to what the worker had written when its counter was `written`, or as far as there is something. */
static void drain_up_to(struct weirpool *pool, uint32_t worker, uint64_t written)
{
    const struct wp_member *member = &pool->members[worker];
    bool more = true;
    while (more && pool->course != WP_BROKEN) {
        if (member->draining) {
            pause_for_drainers(pool);
        } else if ((more = member->cursor.drained < written)) {
            set_bit(pool->to_drain, worker);
            drain(pool, worker);
            more = has_bit(pool->to_drain, worker);
        }
    }
}

void wp_take_all_done(struct weirpool *pool)
{
    pool->quiet_wanted++; /* other drainers stop between turns, or we might wait for them for long */
    take_done_slots(pool);
    wp_adapt_bound(pool);
    wp_flow(pool);
    for (uint32_t worker = 0; worker < pool->segment.workers; worker++) {
        drain_up_to(pool, worker, wp_load_acquire(&pool->segment.streams[worker].written));
    }
    pool->quiet_wanted--;
    if (pool->course != WP_BROKEN) {
        wp_pass_on(pool); /* what the others left */
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

void wp_wait_for_drainers(struct weirpool *pool)
{
    while (is_anyone_draining(pool)) {
        pause_for_drainers(pool);
    }
}
