/* What goes on in a pool while its processes are killed and stopped (crash_plan.h): bursts of tasks, each of which has to
 * end exactly once. */
#ifndef WP_TEST_CRASH_LOAD_H
#define WP_TEST_CRASH_LOAD_H

#include "crash_plan.h"

#define BOUND 8u
#define BURST 12u /* more than the bound: the producer waits at the gate in each */
#define AFTERWARDS 24u /* tasks that have to end while a worker is stopped */

static struct {
    enum work work;
    uint32_t retries;
    int status; /* of a worker that was killed, as an end says it */
    _Atomic uint64_t submitted;
    _Atomic uint64_t ended;
    uint64_t succeeded, lost, dropped, cancelled;
    _Atomic bool enough;
    _Atomic bool refused; /* the producer was: -EPIPE */
    bool seen[65536];
} load;

static inline uint64_t result_size_of(uint64_t id)
{
    return load.work == STREAMS ? WP_STREAM_BYTES + 100000 + id : id % 200;
}

/* The next task: its payload is to be freed. */
static inline unsigned char *next_payload(uint64_t id, size_t *size)
{
    struct order order = {.id = id, .result_size = result_size_of(id)};
    CHECK(id < 65536);
    *size = sizeof order + id % 300;
    return make_order(&order, *size);
}

/* Nothing runs but what stopped workers may hold. */
static inline bool is_quiet(void)
{
    return atomic_load(&load.ended) + hits() >= atomic_load(&load.submitted);
}

/* Some naps, until those that run sleep: a burst has to find them so, and on a busy machine one nap is too short. */
static inline void let_workers_sleep(void)
{
    check_nap();
    for (int naps = 0; naps < 50; naps++) {
        uint64_t asleep = wp_load_seq_cst(&rig.pool->segment.header->parked[0]);
        if ((uint32_t)__builtin_popcountll(asleep) + hits() >= rig.workers) {
            return;
        }
        check_nap();
    }
}

static inline void note_end(const struct weirpool_completion *completion)
{
    uint64_t id = (uintptr_t)completion->user;
    CHECK(!load.seen[id]);
    load.seen[id] = true;
    unsigned runs = atomic_load(&board->runs[id]);
    CHECK(runs <= completion->attempts + (completion->error == -EPIPE));
    CHECK(completion->attempts <= load.retries + 1);
    if (completion->error == 0) {
        check_answer(completion, result_size_of(id));
        CHECK(runs >= 1);
        load.succeeded++;
    } else if (completion->error == -EOWNERDEAD) {
        CHECK_EQ(completion->attempts, load.retries + 1);
        CHECK(completion->worker_pid > 0);
        CHECK_EQ(completion->worker_status, load.status);
        load.lost++;
    } else if (completion->error == -ECANCELED) {
        load.cancelled++;
    } else {
        CHECK_RC(completion->error, -EPIPE);
        load.dropped++;
    }
    weirpool_release(rig.pool, completion->task);
    atomic_fetch_add(&load.ended, 1);
}

/* The test's: fetches an end if there is one soon. 0, or what its pool's verb said. */
static int fetch(void);

#define FETCH_UNTIL(condition)                                                                                         \
    do {                                                                                                               \
        int64_t fetch_limit = check_now() + PATIENCE_NS;                                                               \
        while (!(condition)) {                                                                                         \
            int fetched = fetch();                                                                                     \
            CHECK(fetched == 0 || fetched == -ETIMEDOUT);                                                              \
            CHECK(check_now() < fetch_limit);                                                                          \
        }                                                                                                              \
    } while (0)

/* Opens the pool, which may start workers. The rest of the options is the test's. */
static inline void open_pool(enum work work, struct weirpool_options *options)
{
    plan->parent = getpid();
    check_main_pid = getpid();
    forks = 0;
    load.work = work;
    board = board_new();
    options->size = sizeof *options;
    options->bound = BOUND;
    options->context = options->handler != NULL ? board : NULL;
    options->max_unstarted = work == STARTS ? 2 : 0;
    rig = (struct rig){.workers = options->workers};
    CHECK_OK(weirpool_open(&rig.pool, options));
}

/* The others go on while some are stopped. */
static inline void go_on_without_them(void)
{
    FETCH_UNTIL(hits() == plan->victims);
    await_stopped();
    uint64_t now = atomic_load(&load.ended);
    if (plan->victims < rig.workers) {
        FETCH_UNTIL(atomic_load(&load.ended) >= now + AFTERWARDS);
    }
    check_pool(rig.pool);
}

static inline void check_accounts(void)
{
    CHECK_EQ(load.ended, load.submitted);
    CHECK_EQ(load.succeeded + load.lost + load.dropped + load.cancelled, load.submitted);
    CHECK_EQ(outstanding(rig.pool), 0);
    CHECK_EQ(blocked(rig.pool), 0);
    check_pool(rig.pool);
}

static inline void clean_up(void)
{
    CHECK_OK(weirpool_close(rig.pool));
    board_free(board);
    CHECK(!has_children());
}

#endif
