/* A worker: claims a task, delivers its result, and notices when it is no longer wanted. It takes no lock. */
#include "worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "crash.h"
#include "fork.h"
#include "os/os.h"
#include "park.h"
#include "spin.h"
#include "stream.h"
#include "table.h"
#include "task.h"

struct weirpool_worker {
    struct wp_segment segment;
    struct weirpool_channel channel;
    uint32_t number;
    unsigned generation; /* of forks */
    int64_t looked_at; /* when it last looked whether the parent lives */
    struct wp_spin spin;
    struct wp_slot *slot; /* the claimed one, or NULL */
    uint64_t position;
    int64_t free_since; /* when it had finished the task before; 0: it had none */
    bool just_finished; /* `free_since` is the time still, as far as a claim is concerned */
};

/* ---- attaching ---- */

/* The one step that a process which comes too late, or twice, must not come past: it wrote nothing before. */
static bool take_number(const struct wp_segment *segment, uint32_t badge)
{
    uint32_t starting = wp_starting_with(badge);
    return wp_cas_acq_rel(&segment->records[wp_badge_worker(badge)].standing, &starting, WP_ATTACHED);
}

int wp_worker_open(weirpool_worker **out, const struct wp_segment *segment, const struct weirpool_channel *channel,
                   uint32_t badge)
{
    uint32_t number = wp_badge_worker(badge);
    if (number >= segment->workers) {
        return -EPROTO;
    }
    weirpool_worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL) {
        return -ENOMEM;
    }
    if (!take_number(segment, badge)) {
        free(worker);
        return -ESTALE;
    }
    worker->segment = *segment;
    worker->channel = *channel;
    worker->number = number;
    worker->generation = wp_fork_generation();
    worker->looked_at = wp_os_now();
    /* One core is left to the parent; the workers that are woken first use the others. */
    worker->spin.allowed = number + 1 < wp_os_cores();
    *out = worker;
    return 0;
}

int weirpool_attach(weirpool_worker **worker, const struct weirpool_channel *channel, uint32_t badge)
{
    struct wp_segment segment;
    WP_CRASH("before_attach");
    int rc = wp_segment_attach(&segment, channel->segment);
    if (rc != 0) {
        return rc;
    }
    WP_CRASH("after_map");
    rc = wp_worker_open(worker, &segment, channel, badge);
    WP_CRASH("after_attach");
    if (rc != 0) {
        wp_segment_unmap(&segment);
    }
    return rc;
}

void weirpool_detach(weirpool_worker *worker)
{
    wp_segment_unmap(&worker->segment);
    free(worker);
}

void weirpool_announce(weirpool_worker *worker, enum weirpool_standing standing)
{
    static const uint32_t shared[] = {
        [WEIRPOOL_UP] = WP_UP,
        [WEIRPOOL_LEAVES] = WP_LEAVES,
        [WEIRPOOL_INIT_FAILED] = WP_INIT_FAILED,
    };
    WP_CRASH(standing == WEIRPOOL_UP ? "before_up" : "before_leaves");
    /* Pairs with the acquire in bury(), repair.c. */
    wp_store_release(&worker->segment.records[worker->number].standing, shared[standing]);
    WP_CRASH(standing == WEIRPOOL_UP ? "after_up" : "after_leaves");
}

/* ---- ringing ---- */

/* Wakes whoever of the parent's threads asked for it. */
static void ring(weirpool_worker *worker)
{
    struct wp_header *header = worker->segment.header;
    /* seq_cst: the done or streaming bit, or `started`, was set before; see wp_address(). */
    switch (wp_load_seq_cst(&header->addressee)) {
    case WP_COLLECTOR:
        wp_os_bell_ring(worker->channel.doorbell);
        break;
    case WP_HELPER:
        wp_fetch_add_seq_cst(&header->helper_bell, 1);
        WP_CRASH("after_helper_bell");
        wp_os_futex_wake(&header->helper_bell, 1, WP_SHARED);
        break;
    default: /* the parent looks before it sleeps */
        break;
    }
}

/* ---- claiming ---- */

static bool is_halted(const weirpool_worker *worker)
{
    return wp_load_seq_cst(&worker->segment.header->stop) == WP_HALT;
}

/* The look once a second. getppid() would lie where a fork server stands between. */
static bool is_orphan(weirpool_worker *worker, int64_t now)
{
    if (now - worker->looked_at < WP_LOOK_NS) {
        return false;
    }
    worker->looked_at = now;
    return wp_os_process_ended(worker->channel.parent);
}

static int view_payload(const weirpool_worker *worker, struct weirpool_claimed *claimed)
{
    const struct wp_slot *slot = worker->slot;
    claimed->size = wp_load_relaxed(&slot->payload_size);
    claimed->payload = slot->payload;
    if (claimed->size > WP_INLINE_PAYLOAD) {
        uint64_t at = wp_load_relaxed(&slot->payload_at);
        if (at > worker->segment.arena_size || claimed->size > worker->segment.arena_size - at) {
            return -EPROTO;
        }
        claimed->payload = worker->segment.arena + at;
    }
    return 0;
}

/* When the claim began is when the task starts: a reading of the clock is saved that way. */
static void note_start(const weirpool_worker *worker, int64_t now)
{
    wp_store_relaxed(&worker->slot->started, (uint64_t)now);
    wp_store_relaxed(&worker->slot->free_since, (uint64_t)worker->free_since);
}

/* A producer waits until tasks are started. seq_cst: it sees our claim, or we see that it waits (wp_ask_for_starts). */
static void tell_start(weirpool_worker *worker)
{
    struct wp_header *header = worker->segment.header;
    if (wp_load_seq_cst(&header->want_starts) != 0) {
        WP_CRASH("before_started");
        wp_store_seq_cst(&header->started, 1);
        WP_CRASH("after_started");
        ring(worker);
    }
}

static int claim_now(weirpool_worker *worker, struct weirpool_claimed *claimed, int64_t now)
{
    if (is_halted(worker)) {
        return -ESHUTDOWN;
    }
    if (is_orphan(worker, now)) {
        return -EOWNERDEAD;
    }
    uint32_t stop = wp_load_seq_cst(&worker->segment.header->stop); /* before the queue is seen empty */
    if (!wp_table_claim(&worker->segment, worker->number, &worker->position)) {
        return stop == WP_RUN ? -EAGAIN : -ESHUTDOWN;
    }
    worker->slot = wp_slot_at(&worker->segment, worker->position);
    note_start(worker, now);
    WP_CRASH("after_note_start");
    tell_start(worker);
    WP_CRASH("after_tell_start");
    wp_look(&worker->segment); /* more work: one more worker */
    WP_CRASH("after_look");
    return view_payload(worker, claimed);
}

static bool has_news(const void *segment)
{
    const struct wp_segment *s = segment;
    return wp_table_has_work(s) || wp_load_seq_cst(&s->header->stop) != WP_RUN;
}

static bool spin_for_work(weirpool_worker *worker)
{
    if (!wp_spin_pays(&worker->spin)) {
        return false;
    }
    wp_start_search(&worker->segment, worker->number);
    bool found = wp_spin(&worker->spin, has_news, &worker->segment);
    wp_stop_search(&worker->segment, worker->number);
    return found;
}

/* Waits for news at most until the look is due. 0: look again; -EINTR. */
static int wait_for_work(weirpool_worker *worker, int64_t now, int64_t deadline)
{
    if (spin_for_work(worker)) {
        return 0;
    }
    int64_t look = now + WP_LOOK_NS;
    int rc = wp_park(&worker->segment, worker->number, look < deadline ? look : deadline);
    wp_spin_slept(&worker->spin, wp_os_now() - now);
    return rc == -EINTR ? rc : 0;
}

int weirpool_claim(weirpool_worker *worker, struct weirpool_claimed *claimed, int64_t deadline)
{
    if (wp_forked_since(worker->generation)) {
        return -ECHILD;
    }
    int64_t now = worker->just_finished ? worker->free_since : wp_os_now();
    worker->just_finished = false;
    int rc;
    while ((rc = claim_now(worker, claimed, now)) == -EAGAIN) {
        now = wp_os_now();
        if (now >= deadline) {
            return deadline <= 0 ? -EAGAIN : -ETIMEDOUT;
        }
        rc = wait_for_work(worker, now, deadline);
        if (rc != 0) {
            return rc;
        }
        now = wp_os_now();
    }
    return rc;
}

#define NAP_NS (WP_LOOK_NS / 100)

void weirpool_hold_back(weirpool_worker *worker, int64_t deadline)
{
    struct wp_segment *segment = &worker->segment;
    worker->just_finished = false;
    int64_t now = wp_os_now();
    while (now < deadline && wp_load_seq_cst(&segment->header->stop) == WP_RUN && !is_orphan(worker, now)) {
        /* Nobody wakes us: we are not parked. */
        (void)wp_os_futex_wait(&segment->records[worker->number].parked, 0, now + NAP_NS, WP_SHARED);
        now = wp_os_now();
    }
}

/* ---- finishing ---- */

/* The ring is full: the parent has to make room before the task is done. */
static void ask_for_draining(weirpool_worker *worker)
{
    uint64_t bit = UINT64_C(1) << (worker->number % 64);
    wp_fetch_or_seq_cst(&worker->segment.header->streaming[worker->number / 64], bit);
    WP_CRASH("after_streaming_bit");
    ring(worker);
}

static int send(weirpool_worker *worker, const void *data, size_t size)
{
    struct wp_stream *stream = &worker->segment.streams[worker->number];
    while (size > 0) {
        size_t n = wp_stream_write(stream, data, size);
        data = (const char *)data + n;
        size -= n;
        if (size == 0) {
            break;
        }
        WP_CRASH("at_full_ring");
        ask_for_draining(worker);
        if (is_halted(worker)) {
            return -ESHUTDOWN;
        }
        int64_t now = wp_os_now();
        if (is_orphan(worker, now)) {
            return -EOWNERDEAD;
        }
        (void)wp_stream_wait_for_room(stream, now + WP_LOOK_NS);
    }
    return 0;
}

static int send_through_stream(weirpool_worker *worker, const struct iovec *parts, int count, size_t size)
{
    struct wp_stream_head head = {.position = worker->position, .size = size};
    WP_CRASH("before_head");
    int rc = send(worker, &head, sizeof head);
    WP_CRASH("after_head");
    for (int i = 0; rc == 0 && i < count; i++) {
        rc = send(worker, parts[i].iov_base, parts[i].iov_len);
    }
    WP_CRASH("after_last_byte");
    return rc;
}

int wp_deliver(weirpool_worker *worker, const struct iovec *parts, int count)
{
    if (wp_forked_since(worker->generation)) {
        return -ECHILD;
    }
    size_t size = wp_parts_size(parts, count);
    wp_store_relaxed(&worker->slot->result_size, size);
    if (size > WP_INLINE_RESULT) {
        return send_through_stream(worker, parts, count, size);
    }
    WP_CRASH("before_result");
    wp_parts_copy(worker->slot->result, parts, count);
    WP_CRASH("after_result");
    return 0;
}

int wp_complete(weirpool_worker *worker, int status)
{
    if (wp_forked_since(worker->generation)) {
        return -ECHILD;
    }
    worker->free_since = wp_os_now();
    wp_store_relaxed(&worker->slot->finished, (uint64_t)worker->free_since);
    wp_store_relaxed(&worker->slot->status, status);
    worker->slot = NULL;
    WP_CRASH("before_done");
    if (!wp_table_finish(&worker->segment, worker->number, worker->position)) {
        return is_halted(worker) ? -ESHUTDOWN : -ECANCELED; /* a pool that breaks takes all tasks back */
    }
    worker->just_finished = true;
    WP_CRASH("before_ring");
    ring(worker);
    WP_CRASH("after_ring");
    return 0;
}

int weirpool_finish(weirpool_worker *worker, int status, const struct iovec *parts, int count)
{
    int rc = wp_deliver(worker, parts, count);
    return rc == 0 ? wp_complete(worker, status) : rc;
}

/* ---- the C face's loop ---- */

struct weirpool_reply {
    weirpool_worker *worker;
    bool answered;
    int error;
};

int weirpool_answer(weirpool_reply *reply, const void *data, size_t size)
{
    if (reply->answered) {
        return -EALREADY;
    }
    struct iovec part = {.iov_base = (void *)data, .iov_len = size};
    reply->answered = true;
    reply->error = wp_deliver(reply->worker, &part, 1);
    return reply->error;
}

static int handle(weirpool_worker *worker, const struct weirpool_claimed *task, weirpool_handler *handler,
                  void *context)
{
    weirpool_reply reply = {.worker = worker};
    int status = handler(task->payload, task->size, &reply, context);
    if (!reply.answered) {
        (void)weirpool_answer(&reply, "", 0);
    }
    return reply.error == 0 ? wp_complete(worker, status) : reply.error;
}

int wp_serve(weirpool_worker *worker, weirpool_handler *handler, void *context)
{
    int rc = 0;
    weirpool_announce(worker, WEIRPOOL_UP);
    while (rc == 0 || rc == -EINTR) {
        struct weirpool_claimed task;
        rc = weirpool_claim(worker, &task, WEIRPOOL_FOREVER);
        if (rc == 0) {
            rc = handle(worker, &task, handler, context);
        }
    }
    if (rc == -ESHUTDOWN) {
        weirpool_announce(worker, WEIRPOOL_LEAVES);
    }
    return rc == -ESHUTDOWN ? 0 : rc;
}
