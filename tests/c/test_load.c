/* Many threads at one pool: producers, those who take results, large payloads in a small arena. */
#include <pthread.h>

#include "pool_rig.h"

/* ---- many producers ---- */

#define PRODUCERS 16

struct producer {
    pthread_t thread;
    uint64_t first;
    uint64_t count;
};

static size_t result_size_of(uint64_t id)
{
    struct dice dice = new_dice(1000000 + id);
    return roll(&dice, 40) == 0 ? roll(&dice, 3 * MIB) : roll(&dice, 2 * WP_INLINE_RESULT);
}

static size_t payload_size_of(uint64_t id)
{
    struct dice dice = new_dice(2000000 + id);
    return sizeof(struct order) + (roll(&dice, 40) == 0  ? roll(&dice, MIB)
                                   : roll(&dice, 8) == 0 ? roll(&dice, 9000)
                                                         : roll(&dice, 300));
}

static void *produce(void *argument)
{
    struct producer *me = argument;
    for (uint64_t id = me->first; id < me->first + me->count; id++) {
        struct order o = {.id = id, .result_size = result_size_of(id)};
        int64_t deadline = id % 2 == 0 ? WEIRPOOL_FOREVER : weirpool_deadline(PATIENCE_NS);
        CHECK_OK(give(rig.pool, &o, payload_size_of(id), deadline, NULL));
    }
    return NULL;
}

static void fetch_all(uint64_t total)
{
    for (uint64_t n = 0; n < total; n++) {
        struct weirpool_completion completion;
        CHECK_OK(next(rig.pool, &completion));
        check_answer(&completion, result_size_of((uintptr_t)completion.user));
        weirpool_release(rig.pool, completion.task);
        if (n % 64 == 0) {
            check_pool(rig.pool);
        }
    }
}

static void run_producers(uint64_t each)
{
    struct producer producers[PRODUCERS];
    for (uint64_t i = 0; i < PRODUCERS; i++) {
        producers[i] = (struct producer){.first = i * each, .count = each};
        CHECK_OK(pthread_create(&producers[i].thread, NULL, produce, &producers[i]));
    }
    fetch_all(PRODUCERS * each);
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(producers[i].thread, NULL);
    }
    for (uint64_t id = 0; id < PRODUCERS * each; id++) {
        CHECK_EQ(atomic_load(&board->runs[id]), 1);
    }
    CHECK_EQ(stats().outstanding, 0);
    CHECK_EQ(stats().blocked_producers, 0);
    CHECK_EQ(stats().submitted, PRODUCERS * each);
    CHECK_EQ(stats().finished, PRODUCERS * each);
}

static void test_many_producers(void)
{
    FOR_EACH_KIND(kind)
    {
        set_up(kind, 4, 6, 0);
        run_producers(SCALED(96));
        CHECK_EQ(stats().peak_outstanding, 6);
        tear_down();
    }
}

static void test_many_producers_without_bound(void)
{
    FOR_EACH_KIND(kind)
    {
        set_up(kind, 4, 0, 0);
        run_producers(SCALED(96));
        tear_down();
    }
}

/* ---- large results, and many threads that take them ---- */

struct owner {
    pthread_t thread;
    uint64_t id;
};

/* Submits and waits for its own tasks, as a language binding does: these threads are helpers, and drain streams. */
static void *own_tasks(void *argument)
{
    struct owner *me = argument;
    for (int i = 0; i < SCALED(24); i++) {
        struct order o = {.id = me->id, .result_size = 200000 + me->id * 300000};
        struct iovec part = {.iov_base = &o, .iov_len = sizeof o};
        struct weirpool_completion completion;
        weirpool_task *task;
        CHECK(weirpool_admit(rig.pool, WEIRPOOL_IN_BOUND, 0, WEIRPOOL_FOREVER) >= 0);
        CHECK_OK(weirpool_publish(
            rig.pool, &(struct weirpool_request){.parts = &part, .count = 1, .user = (void *)(uintptr_t)me->id},
            &task));
        CHECK_OK(weirpool_wait(rig.pool, task, weirpool_deadline(PATIENCE_NS)));
        CHECK_EQ(weirpool_phase(rig.pool, task), WEIRPOOL_TAKEN);
        weirpool_describe(task, &completion);
        check_answer(&completion, o.result_size);
        weirpool_drop_result(task);
    }
    return NULL;
}

/* What was told, by the collector; its owners may still look at it. */
struct told {
    _Atomic bool stop;
    uint64_t count;
    weirpool_task *tasks[10000];
};

static void *collect(void *argument)
{
    struct told *told = argument;
    weirpool_task *tasks[8];
    struct weirpool_event event;
    while (!atomic_load(&told->stop)) {
        int n = weirpool_collect(rig.pool, tasks, 8, &event, weirpool_deadline(1000000));
        CHECK(n >= 0 || n == -ETIMEDOUT);
        for (int i = 0; i < n; i++) {
            told->tasks[told->count++] = tasks[i];
        }
    }
    return NULL;
}

static void test_many_takers(void)
{
    enum { OWNERS = 6 };
    static struct told told;
    FOR_EACH_KIND(kind)
    {
        struct owner owners[OWNERS];
        pthread_t collector;
        set_up(kind, 4, 5, 0);
        atomic_store(&told.stop, false);
        told.count = 0;
        CHECK_OK(pthread_create(&collector, NULL, collect, &told));
        for (uint64_t i = 0; i < OWNERS; i++) {
            owners[i].id = i;
            CHECK_OK(pthread_create(&owners[i].thread, NULL, own_tasks, &owners[i]));
        }
        for (int i = 0; i < OWNERS; i++) {
            pthread_join(owners[i].thread, NULL);
        }
        atomic_store(&told.stop, true);
        pthread_join(collector, NULL);
        CHECK_EQ(outstanding(rig.pool), 0);
        while (told.count > 0) {
            weirpool_release(rig.pool, told.tasks[--told.count]);
        }
        tear_down(); /* frees those that nobody was told of */
    }
}

/* ---- a small arena: what does not fit waits as a private copy ---- */

#define SMALL_ARENA (256 * (size_t)1024)

static void test_arena_smaller_than_what_is_outstanding(void)
{
    FOR_EACH_KIND(kind)
    {
        set_up(kind, 3, 0, SMALL_ARENA);
        CHECK_EQ(rig.pool->arena.size, SMALL_ARENA);
        struct dice dice = new_dice(4);
        uint64_t total = SCALED(240);
        for (uint64_t id = 0; id < total; id++) {
            struct order o = {.id = id, .result_size = roll(&dice, 1000)};
            CHECK_OK(give(rig.pool, &o, sizeof o + roll(&dice, SMALL_ARENA - sizeof o), WEIRPOOL_NOW, NULL));
        }
        check_pool(rig.pool);
        for (uint64_t n = 0; n < total; n++) {
            struct weirpool_completion completion;
            CHECK_OK(next(rig.pool, &completion));
            CHECK_OK(completion.error);
            CHECK_EQ(completion.status, (uintptr_t)completion.user);
            weirpool_release(rig.pool, completion.task);
        }
        CHECK_EQ(rig.pool->arena.used, 0);
        tear_down();
    }
}

/*
 * `large` finds no room, and waits; `small` comes later and would have found room. If `small` took it now and then
 * waited behind `large`, neither could ever start.
 */
static void test_room_in_the_arena_is_not_held_by_who_waits(void)
{
    FOR_EACH_KIND(kind)
    {
        struct order first = {.id = 1, .verb = HOLD}, large = {.id = 2}, small = {.id = 3};
        set_up(kind, 1, 0, SMALL_ARENA);
        atomic_store(&board->hold, true);
        CHECK_OK(give(rig.pool, &first, SMALL_ARENA / 2, WEIRPOOL_NOW, NULL));
        CHECK_OK(give(rig.pool, &large, SMALL_ARENA - 8192, WEIRPOOL_NOW, NULL));
        CHECK_OK(give(rig.pool, &small, SMALL_ARENA / 4, WEIRPOOL_NOW, NULL));
        atomic_store(&board->hold, false);
        expect(rig.pool, 1, 0);
        expect(rig.pool, 2, 0);
        expect(rig.pool, 3, 0);
        tear_down();
    }
}

/* Many threads at once: between finding room and queueing, others come and go. */
static void *produce_large(void *argument)
{
    struct producer *me = argument;
    struct dice dice = new_dice(500 + me->first);
    for (uint64_t id = me->first; id < me->first + me->count; id++) {
        struct order o = {.id = id};
        size_t size = sizeof o + roll(&dice, roll(&dice, 2) ? SMALL_ARENA - sizeof o : SMALL_ARENA / 8);
        CHECK_OK(give(rig.pool, &o, size, WEIRPOOL_FOREVER, NULL));
    }
    return NULL;
}

static void test_many_producers_in_a_small_arena(void)
{
    enum { COUNT = 6 };
    FOR_EACH_KIND(kind)
    {
        struct producer producers[COUNT];
        uint64_t each = SCALED(240);
        set_up(kind, 3, kind == THREADS ? 8 : 0, SMALL_ARENA);
        for (uint64_t i = 0; i < COUNT; i++) {
            producers[i] = (struct producer){.first = i * each, .count = each};
            CHECK_OK(pthread_create(&producers[i].thread, NULL, produce_large, &producers[i]));
        }
        for (uint64_t n = 0; n < COUNT * each; n++) {
            struct weirpool_completion completion;
            CHECK_OK(next(rig.pool, &completion));
            CHECK_OK(completion.error);
            CHECK_EQ(completion.status, (uintptr_t)completion.user);
            weirpool_release(rig.pool, completion.task);
        }
        for (int i = 0; i < COUNT; i++) {
            pthread_join(producers[i].thread, NULL);
        }
        CHECK_EQ(rig.pool->arena.used, 0);
        tear_down();
    }
}

static void test_larger_than_the_arena(void)
{
    struct order o = {.id = 1};
    set_up(THREADS, 0, 1, 2 * WP_PAGE);
    CHECK_RC(give(rig.pool, &o, 2 * WP_PAGE + 1, WEIRPOOL_NOW, NULL), -EMSGSIZE);
    CHECK_RC(give(rig.pool, &o, MIB, WEIRPOOL_FOREVER, NULL), -EMSGSIZE);
    CHECK_EQ(outstanding(rig.pool), 0);
    order(rig.pool, ANSWER, 1); /* the pool is full now: what would have to wait is refused as well */
    CHECK_RC(give(rig.pool, &o, 2 * WP_PAGE + 1, weirpool_deadline(10000000), NULL), -EMSGSIZE);
    CHECK_EQ(outstanding(rig.pool), 1);
    tear_down();
}

/* ---- memory ---- */

/* What has been taken is told: it does not pile up while workers keep streaming. */
static void *produce_until_shut_down(void *unused)
{
    struct order o = {.id = 1, .result_size = 2 * MIB};
    while (give(rig.pool, &o, sizeof o, WEIRPOOL_FOREVER, NULL) == 0) {
    }
    return unused;
}

static void test_results_are_told_while_others_stream(void)
{
    enum { COUNT = 8 };
    FOR_EACH_KIND(kind)
    {
        pthread_t threads[COUNT];
        uint64_t most = 0;
        set_up(kind, 4, 8, 0);
        for (int i = 0; i < COUNT; i++) {
            CHECK_OK(pthread_create(&threads[i], NULL, produce_until_shut_down, NULL));
        }
        int rc;
        for (uint64_t fetched = 1;; fetched++) {
            struct weirpool_completion completion;
            rc = next(rig.pool, &completion);
            if (rc != 0) {
                break;
            }
            weirpool_release(rig.pool, completion.task);
            struct weirpool_stats now = stats();
            uint64_t untold = now.finished - fetched;
            most = untold > most ? untold : most;
            if (fetched == (uint64_t)SCALED(160)) {
                CHECK_OK(weirpool_shutdown(rig.pool));
            }
        }
        CHECK_RC(rc, -ESHUTDOWN);
        for (int i = 0; i < COUNT; i++) {
            pthread_join(threads[i], NULL);
        }
        printf("    at most %" PRIu64 " results were taken and not told\n", most);
        tear_down();
    }
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN(test_many_producers);
    RUN(test_many_producers_without_bound);
    RUN(test_many_takers);
    RUN(test_arena_smaller_than_what_is_outstanding);
    RUN(test_room_in_the_arena_is_not_held_by_who_waits);
    RUN(test_many_producers_in_a_small_arena);
    RUN(test_larger_than_the_arena);
    RUN(test_results_are_told_while_others_stream);
    return check_end();
}
