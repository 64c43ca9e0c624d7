/*
 * The one description of shared memory. Everything in it has a fixed width and is found by offset, never by pointer:
 * each process maps it where it likes.
 *
 *     header | worker records | done bits | slots | streams | arena
 *
 * The tables say for each field who writes it, what protects it and which order its accesses need. "pool lock" is the
 * parent's private mutex; workers take no lock, so that none can die holding one. What the parent reads of a field that
 * workers write it checks before use; and as a broken worker may write at any moment, each such field is atomic, so that
 * what was checked is what is used.
 */
#ifndef WP_LAYOUT_H
#define WP_LAYOUT_H

#include <assert.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "weirpool_worker.h"

#define WP_MAGIC UINT64_C(0x6c6f6f7072696577) /* "weirpool" in memory */
#define WP_FORMAT 4u

#define WP_CACHE_LINE 64
#define WP_PAGE 4096u

#define WP_MIN_SLOTS 256u
#define WP_MAX_SLOTS 65536u
#define WP_WORKER_WORDS (WEIRPOOL_MAX_WORKERS / 64)

#define WP_INLINE_PAYLOAD ((uint32_t)WEIRPOOL_INLINE_PAYLOAD)
#define WP_INLINE_RESULT ((uint32_t)WEIRPOOL_INLINE_RESULT)
#define WP_STREAM_BYTES (UINT64_C(1) << 20)

/* Whom a worker rings when it has finished a task. */
enum wp_addressee { WP_NOBODY = 0, WP_COLLECTOR = 1, WP_HELPER = 2 };

/* FINISH: leave when nothing is queued. HALT: claim nothing more. */
enum wp_stop { WP_RUN = 0, WP_FINISH = 1, WP_HALT = 2 };

/*
 * field            writer                     protection   order
 * magic..total     parent, before any worker  -            read-only afterwards
 * head             workers                    CAS +1       acquire; only ever helped from p to p + 1
 * tail             parent                     pool lock    seq_cst, against `parked` (wp_table_publish, wp_park)
 * waking           whoever wakes, the woken   CAS          seq_cst, against a record's `parked`
 * addressee        parent                     pool lock    seq_cst, against the done bits (wp_address, ring)
 * stop             parent                     pool lock    seq_cst, against `parked`
 * helper_bell      workers, parent            fetch_add    seq_cst; a futex
 * parked[]         its worker, its repair     fetch_or/and seq_cst, against `tail` and `stop`
 * streaming[]      its worker sets,           fetch_or     seq_cst, against `addressee`
 *                  parent clears              exchange
 * want_starts      parent                     pool lock    seq_cst, against a slot's state (tell_start, worker.c)
 * started          workers set, parent clears store        seq_cst, against `addressee`
 */
struct wp_header {
    uint64_t magic;
    uint32_t format;
    uint32_t slots;
    uint32_t workers;
    uint32_t unused;
    uint64_t records_at;
    uint64_t done_at;
    uint64_t slots_at;
    uint64_t streams_at;
    uint64_t arena_at;
    uint64_t total;
    alignas(WP_CACHE_LINE) _Atomic uint64_t head;
    alignas(WP_CACHE_LINE) _Atomic uint64_t tail;
    alignas(WP_CACHE_LINE) _Atomic uint64_t waking;
    alignas(WP_CACHE_LINE) _Atomic uint32_t addressee;
    _Atomic uint32_t stop;
    _Atomic uint32_t want_starts;
    alignas(WP_CACHE_LINE) _Atomic uint32_t helper_bell;
    _Atomic uint32_t started;
    alignas(WP_CACHE_LINE) _Atomic uint64_t parked[WP_WORKER_WORDS];
    _Atomic uint64_t streaming[WP_WORKER_WORDS];
};

/*
 * How a worker stands, in its record. VACANT: no process has this number. STARTING comes with the badge of the one
 * process that may attach; who attaches takes that away, so that it is one, and never one that was given up.
 */
enum wp_standing { WP_VACANT = 0, WP_STARTING, WP_ATTACHED, WP_UP, WP_LEAVES, WP_INIT_FAILED };

#define WP_BADGE_SHIFT 16

/* What a worker shows when it attaches: its number, and which of those it is that had this number one after another. */
static inline uint32_t wp_badge(uint32_t worker, uint16_t reservation)
{
    return (uint32_t)reservation << WP_BADGE_SHIFT | worker;
}

static inline uint32_t wp_badge_worker(uint32_t badge)
{
    return badge & ((UINT32_C(1) << WP_BADGE_SHIFT) - 1);
}

/* The standing of whom the badge lets in. */
static inline uint32_t wp_starting_with(uint32_t badge)
{
    return badge >> WP_BADGE_SHIFT << WP_BADGE_SHIFT | WP_STARTING;
}

/*
 * field       writer                       protection        order
 * standing    parent, VACANT to STARTING   pool lock         release, to the acquire of take_number()
 *             its worker, STARTING to      CAS against       acq_rel
 *             ATTACHED (take_number);      each other
 *             the parent, STARTING to
 *             LEAVES (revoke)
 *             its worker, once ATTACHED    its own           release/acquire (weirpool_announce, bury)
 *             parent to VACANT             after its death   release
 * parked      its worker to 1              store             seq_cst; the futex on which the worker sleeps
 *             its waker to 0               CAS; exchange in
 *                                          wp_wake_all
 *             itself, its repair to 0      store
 */
struct wp_record {
    alignas(WP_CACHE_LINE) _Atomic uint32_t standing;
    _Atomic uint32_t parked;
};

/*
 * A slot's state word: position (44 bits), worker (16), tag (4). It is the only truth about a task; bits, bells and
 * `head` are hints. A position never recurs, so a compare-and-swap on the word cannot be fooled by reuse.
 */
enum wp_tag { WP_FREE = 0, WP_QUEUED = 1, WP_RUNNING = 2, WP_DONE = 3, WP_CONDEMNED = 4 };

static inline uint64_t wp_state(uint64_t position, uint32_t worker, enum wp_tag tag)
{
    return position << 20 | (uint64_t)worker << 4 | (uint64_t)tag;
}

static inline uint64_t wp_state_position(uint64_t state)
{
    return state >> 20;
}

static inline uint32_t wp_state_worker(uint64_t state)
{
    return (uint32_t)(state >> 4) & 0xffffu;
}

static inline enum wp_tag wp_state_tag(uint64_t state)
{
    return (enum wp_tag)(state & 0xfu);
}

/* A worker has the task, and has not finished it. */
static inline bool wp_state_runs(uint64_t state)
{
    return wp_state_tag(state) == WP_RUNNING || wp_state_tag(state) == WP_CONDEMNED;
}

/*
 * The done bits, one a slot, lie before the slots: set with fetch_or by its worker (wp_table_finish), and by the parent
 * when a worker has died and once a second (wp_mark_done_slots), and cleared by the parent with an exchange; seq_cst,
 * against `addressee`.
 *
 * field             writer                        protection    order
 * state             FREE, QUEUED: parent          pool lock     stored; QUEUED is released by `tail` to the claim
 *                   QUEUED to FREE: parent        CAS           against a claim (wp_table_cancel)
 *                   RUNNING: who claims           CAS           acquires what `tail` released; seq_cst,
 *                                                               against `want_starts`
 *                   DONE: its worker              CAS           releases (wp_table_finish) to try_slot
 *                   CONDEMNED: parent             CAS           from RUNNING, against DONE (wp_table_condemn): the
 *                                                               task's worker is being killed
 * payload*          parent while FREE             state         published with QUEUED
 * started           who claimed it; the parent    atomic        relaxed: the parent also reads it of a task that runs,
 *                   to 0 before a limited task                  and of the one before it in this slot
 * finished,         its worker while RUNNING or   state         published with DONE
 * free_since,       CONDEMNED
 * status, result*
 *
 * Times are nanoseconds of CLOCK_MONOTONIC. When the parent published a task it knows by itself.
 */
struct wp_slot {
    alignas(WP_CACHE_LINE) _Atomic uint64_t state;
    _Atomic uint64_t payload_size;
    _Atomic uint64_t payload_at; /* in the arena, when it does not fit inline */
    _Atomic uint64_t result_size; /* more than fits inline: it came through the worker's stream */
    _Atomic int32_t status;
    uint32_t unused;
    unsigned char payload[WP_INLINE_PAYLOAD]; /* of a small task it is in the first cache line */
    _Atomic uint64_t started;
    _Atomic uint64_t finished;
    _Atomic uint64_t free_since; /* when its worker had finished the task before this one; 0: there was none */
    unsigned char result[WP_INLINE_RESULT];
};

/*
 * A ring of bytes from one worker to the parent: large results, each behind a wp_stream_head. Counters never wrap.
 *
 * field        writer      protection           order
 * written      its worker  -                    release to the parent's acquire (bytes before the counter)
 * drained      parent      the stream's drainer seq_cst, against `starved`; releases the room to the worker
 * starved      its worker; hand-over at death   seq_cst, against `drained`: the worker waits for room
 *              parent to 0
 * room_bell    parent      fetch_add            seq_cst; a futex on which the worker waits for room
 */
struct wp_stream {
    alignas(WP_CACHE_LINE) _Atomic uint64_t written;
    _Atomic uint32_t starved;
    alignas(WP_CACHE_LINE) _Atomic uint64_t drained;
    _Atomic uint32_t room_bell;
    alignas(WP_CACHE_LINE) unsigned char ring[WP_STREAM_BYTES];
};

/* Before a result, in the ring: written by its worker, released by `written`; task_of_head (take.c) checks it. */
struct wp_stream_head {
    uint64_t position;
    uint64_t size;
};

static_assert(sizeof(struct wp_slot) == 512, "a slot is 512 bytes");
static_assert(offsetof(struct wp_slot, started) / WP_CACHE_LINE == offsetof(struct wp_slot, result) / WP_CACHE_LINE,
              "a small result comes with its times in one cache line");
static_assert(sizeof(struct wp_record) == WP_CACHE_LINE, "a record is a cache line");
static_assert(sizeof(struct wp_header) <= WP_PAGE, "the header is within a page");
static_assert(WP_STREAM_BYTES % WP_PAGE == 0, "streams are whole pages");
static_assert(WEIRPOOL_MAX_WORKERS <= 1u << 12, "a worker fits 12 bits of `waking` and 16 of a state and of a badge");

#endif
