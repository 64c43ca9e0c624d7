#include "park.h"

#include <errno.h>

#include "crash.h"
#include "os/os.h"
#include "stream.h"
#include "table.h"

#define ON_ITS_WAY_NS UINT64_C(100000)
#define WORKER_BITS 12
#define TIME_MASK ((UINT64_C(1) << (64 - WORKER_BITS)) - 1)

/* `waking`: the time of the wake-up above the worker's number. Never 0, which says that nobody is on its way. */
static uint64_t waking_word(uint32_t worker)
{
    uint64_t now = ((uint64_t)wp_os_now() | 1) & TIME_MASK;
    return now << WORKER_BITS | worker;
}

static uint32_t waking_worker(uint64_t word)
{
    return (uint32_t)word & ((1u << WORKER_BITS) - 1);
}

static bool is_on_its_way(uint64_t word)
{
    if (word == 0) {
        return false;
    }
    uint64_t age = ((uint64_t)wp_os_now() - (word >> WORKER_BITS)) & TIME_MASK;
    return age < ON_ITS_WAY_NS;
}

/* Worker `me` is awake, or dead: nobody need wait for its arrival. */
static void arrive(const struct wp_segment *segment, uint32_t me)
{
    _Atomic uint64_t *waking = &segment->header->waking;
    uint64_t word = wp_load_seq_cst(waking);
    if (word != 0 && waking_worker(word) == me) {
        wp_cas_seq_cst(waking, &word, 0);
    }
}

/* In this order, so that a waker either fails to claim our wake-up or has its `waking` cleared by us. */
static void leave_parking(const struct wp_segment *segment, uint32_t me)
{
    wp_store_seq_cst(&segment->records[me].parked, 0);
    WP_CRASH("after_unparked");
    wp_fetch_and_seq_cst(&segment->header->parked[me / 64], ~(UINT64_C(1) << (me % 64)));
    WP_CRASH("after_unparked_bit");
    arrive(segment, me);
}

void wp_start_search(const struct wp_segment *segment, uint32_t me)
{
    uint64_t nobody = 0;
    (void)wp_cas_seq_cst(&segment->header->waking, &nobody, waking_word(me)); /* another one on its way will do */
    WP_CRASH("after_search_began");
}

void wp_stop_search(const struct wp_segment *segment, uint32_t me)
{
    WP_CRASH("before_search_ended");
    arrive(segment, me);
    WP_CRASH("after_search_ended");
}

int wp_park(const struct wp_segment *segment, uint32_t me, int64_t deadline)
{
    struct wp_record *record = &segment->records[me];
    wp_store_seq_cst(&record->parked, 1);
    WP_CRASH("after_parked");
    wp_fetch_or_seq_cst(&segment->header->parked[me / 64], UINT64_C(1) << (me % 64));
    WP_CRASH("after_parked_bit");
    /* Look again: whoever published before seeing our bit relies on it (wp_table_publish, wp_wake_all). */
    int rc = 0;
    if (!wp_table_has_work(segment) && wp_load_seq_cst(&segment->header->stop) == WP_RUN) {
        WP_CRASH("before_sleep");
        rc = wp_os_futex_wait(&record->parked, 1, deadline, WP_SHARED);
        WP_CRASH("after_sleep");
    }
    leave_parking(segment, me);
    return rc;
}

/* A search for somebody to wake: what `waking` was when seen last, and whether our mark stood there in vain. */
struct search {
    uint64_t seen;
    bool misled;
};

/* It was awake, about to sleep, or is dead: the next one has to come. */
static void unmark(const struct wp_segment *segment, struct search *search, uint64_t mine)
{
    _Atomic uint64_t *waking = &segment->header->waking;
    search->misled = true;
    if (wp_cas_seq_cst(waking, &mine, 0)) {
        search->seen = 0;
    } else {
        search->seen = wp_load_seq_cst(waking);
    }
}

/* Returns whether a worker is on its way now. */
static bool wake(const struct wp_segment *segment, uint32_t worker, struct search *search)
{
    _Atomic uint32_t *parked = &segment->records[worker].parked;
    if (wp_load_seq_cst(parked) == 0) { /* awake; or a waker that had got so far was stopped or killed */
        return wp_os_futex_wake(parked, 1, WP_SHARED) > 0;
    }
    WP_CRASH("before_waking");
    uint64_t mine = waking_word(worker);
    if (!wp_cas_seq_cst(&segment->header->waking, &search->seen, mine)) {
        return is_on_its_way(search->seen); /* somebody else's wake-up came first */
    }
    WP_CRASH("after_waking");
    uint32_t asleep = 1;
    bool slept = wp_cas_seq_cst(parked, &asleep, 0);
    WP_CRASH("after_waking_word");
    if (slept && wp_os_futex_wake(parked, 1, WP_SHARED) > 0) {
        return true;
    }
    unmark(segment, search, mine);
    return false;
}

/* Returns whether a worker is on its way now. */
static bool wake_any(const struct wp_segment *segment, struct search *search)
{
    for (uint32_t word = 0; word * 64 < segment->workers; word++) {
        uint64_t asleep = wp_load_seq_cst(&segment->header->parked[word]);
        while (asleep != 0) {
            uint32_t worker = word * 64 + (uint32_t)__builtin_ctzll(asleep);
            if (worker >= segment->workers || wake(segment, worker, search)) {
                return true;
            }
            asleep &= asleep - 1;
        }
    }
    return false;
}

/*
 * While our mark stood there in vain another waker may have relied on it, and one who lay down meanwhile is not among
 * those that we saw: look again. In vain a mark stands only for one whose `parked` it cleared, or who cleared it just
 * then: more rounds than there are workers are somebody's scribbling.
 */
void wp_wake_one(const struct wp_segment *segment)
{
    struct search search = {.seen = wp_load_seq_cst(&segment->header->waking)};
    bool over = is_on_its_way(search.seen);
    for (uint32_t round = 0; !over && round <= segment->workers; round++) {
        search.misled = false;
        over = wake_any(segment, &search) || !search.misled;
    }
}

static bool is_marked(const struct wp_segment *segment, uint32_t worker)
{
    return (wp_load_seq_cst(&segment->header->parked[worker / 64]) >> (worker % 64) & 1) != 0;
}

void wp_wake_all(const struct wp_segment *segment)
{
    for (uint32_t worker = 0; worker < segment->workers; worker++) {
        _Atomic uint32_t *parked = &segment->records[worker].parked;
        bool slept = wp_exchange_seq_cst(parked, 0) != 0;
        if (slept || is_marked(segment, worker)) { /* 0 and asleep: its waker was stopped or killed */
            wp_os_futex_wake(parked, 1, WP_SHARED);
        }
        wp_stream_rouse(&segment->streams[worker]); /* not parked, but perhaps asleep over a full ring */
    }
}

void wp_unpark_dead(const struct wp_segment *segment, uint32_t gone)
{
    leave_parking(segment, gone);
    wp_store_seq_cst(&segment->header->waking, 0); /* it may have died before it woke the one that it named */
}

void wp_look(const struct wp_segment *segment)
{
    if (wp_table_has_work(segment)) {
        wp_wake_one(segment);
    }
}
