/*
 * Sleeping and waking. The sleepers of these tests have no deadline where that is possible: nothing masks a wake-up
 * that got lost, the test would see a task that is never done.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include "os/os.h"
#include "park.h"
#include "table_rig.h"

#define WORKERS 70 /* more than one word of bits */
#define FOREVER INT64_MAX

static void set_up(void)
{
    set_up_table(512, WORKERS);
}

static bool is_marked(uint32_t worker)
{
    return (wp_load_seq_cst(&segment.header->parked[worker / 64]) >> (worker % 64) & 1) != 0;
}

/* ---- one sleeper ---- */

/* A thread that parks once, as worker `number`. */
struct sleeper {
    pthread_t thread;
    uint32_t number;
    _Atomic bool returned;
    int rc;
};

static void *sleep_once(void *argument)
{
    struct sleeper *me = argument;
    me->rc = wp_park(&segment, me->number, FOREVER);
    atomic_store(&me->returned, true);
    return NULL;
}

/* In the kernel, asleep, as far as can be told from outside: parked, and in state S. */
static void start_sleeper(struct sleeper *sleeper, uint32_t number)
{
    *sleeper = (struct sleeper){.number = number};
    CHECK_OK(pthread_create(&sleeper->thread, NULL, sleep_once, sleeper));
    AWAIT(is_marked(number) && wp_load_seq_cst(&segment.records[number].parked) == 1);
}

/* Wakes until it is awake: a waker that comes between "parked" and the sleep itself wakes nobody, and says so. */
static void wake_and_join(struct sleeper *sleeper)
{
    AWAIT((wp_wake_all(&segment), atomic_load(&sleeper->returned)));
    pthread_join(sleeper->thread, NULL);
}

/* As a record looks whose worker was killed in its sleep. */
static void feign_asleep(uint32_t worker)
{
    wp_store_seq_cst(&segment.records[worker].parked, 1);
    wp_fetch_or_seq_cst(&segment.header->parked[worker / 64], UINT64_C(1) << (worker % 64));
}

static void test_park_looks_again(void)
{
    set_up();
    publish();
    CHECK_OK(wp_park(&segment, 3, FOREVER)); /* there is work: no sleep */
    CHECK(!is_marked(3));
    uint64_t position;
    CHECK(wp_table_claim(&segment, 3, &position));
    wp_store_seq_cst(&segment.header->stop, WP_FINISH);
    CHECK_OK(wp_park(&segment, 3, FOREVER)); /* it is to leave: no sleep */
    CHECK(!is_marked(3));
    CHECK_EQ(wp_load_seq_cst(&segment.records[3].parked), 0);
    tear_down();
}

static void test_park_deadline(void)
{
    set_up();
    int64_t deadline = wp_os_now() + 2000000;
    CHECK_RC(wp_park(&segment, 0, deadline), -ETIMEDOUT);
    CHECK(wp_os_now() >= deadline);
    CHECK_RC(wp_park(&segment, 0, 1), -ETIMEDOUT);
    CHECK(!is_marked(0));
    tear_down();
}

static void ignore_signal(int signal)
{
    (void)signal;
}

static void test_park_interrupted(void)
{
    set_up();
    struct sigaction action = {.sa_handler = ignore_signal};
    sigaction(SIGUSR1, &action, NULL);
    struct sleeper sleeper;
    start_sleeper(&sleeper, 5);
    AWAIT((pthread_kill(sleeper.thread, SIGUSR1), atomic_load(&sleeper.returned)));
    pthread_join(sleeper.thread, NULL);
    CHECK_RC(sleeper.rc, -EINTR);
    CHECK(!is_marked(5));
    tear_down();
}

static void test_wake_one(void)
{
    set_up();
    struct sleeper sleeper;
    start_sleeper(&sleeper, 66);
    publish();
    AWAIT((wp_wake_one(&segment), atomic_load(&sleeper.returned)));
    pthread_join(sleeper.thread, NULL);
    CHECK_OK(sleeper.rc);
    CHECK_EQ(wp_load_seq_cst(&segment.header->waking), 0); /* it has arrived */
    CHECK(!is_marked(66));
    tear_down();
}

/* Workers 0, 2 and 65 were killed asleep: who wakes goes on to 69, who really sleeps. */
static void test_wake_goes_past_the_dead(void)
{
    set_up();
    struct sleeper sleeper;
    start_sleeper(&sleeper, 69);
    feign_asleep(0);
    feign_asleep(2);
    feign_asleep(65);
    publish();
    AWAIT((wp_wake_one(&segment), atomic_load(&sleeper.returned)));
    pthread_join(sleeper.thread, NULL);
    CHECK_OK(sleeper.rc);
    tear_down();
}

/* The word that says that `worker` was woken at `time` and is on its way. */
static uint64_t on_its_way_since(int64_t time, uint32_t worker)
{
    return ((uint64_t)time | 1) << 12 | worker;
}

static void test_nobody_else_is_woken_while_one_is_on_its_way(void)
{
    set_up();
    struct sleeper sleeper;
    start_sleeper(&sleeper, 1);
    publish();
    bool seen = false;
    while (!seen) { /* until this thread was not interrupted for longer than a wake-up counts */
        int64_t now = wp_os_now();
        wp_store_seq_cst(&segment.header->waking, on_its_way_since(now, 0));
        wp_wake_one(&segment);
        bool untouched = wp_load_seq_cst(&segment.records[1].parked) == 1;
        seen = wp_os_now() - now < 90000;
        CHECK(!seen || untouched);
        if (atomic_load(&sleeper.returned)) {
            break;
        }
    }
    wake_and_join(&sleeper);
    tear_down();
}

static void test_waking_expires(void)
{
    set_up();
    struct sleeper sleeper;
    start_sleeper(&sleeper, 1);
    publish();
    uint64_t stale = on_its_way_since(wp_os_now() - 1000000, 0);
    AWAIT((wp_store_seq_cst(&segment.header->waking, stale), wp_wake_one(&segment), atomic_load(&sleeper.returned)));
    pthread_join(sleeper.thread, NULL);
    tear_down();
}

static void test_unpark_dead(void)
{
    set_up();
    feign_asleep(64);
    uint64_t other = on_its_way_since(wp_os_now(), 3);
    wp_store_seq_cst(&segment.header->waking, other);
    wp_unpark_dead(&segment, 64);
    CHECK(!is_marked(64));
    CHECK_EQ(wp_load_seq_cst(&segment.records[64].parked), 0);
    CHECK_EQ(wp_load_seq_cst(&segment.header->waking), 0); /* the dead one may have named it */
    tear_down();
}

static void test_look(void)
{
    set_up();
    struct sleeper sleeper;
    start_sleeper(&sleeper, 4);
    wp_look(&segment); /* nothing queued: lets it sleep */
    CHECK_EQ(wp_load_seq_cst(&segment.records[4].parked), 1);
    publish();
    AWAIT((wp_look(&segment), atomic_load(&sleeper.returned)));
    pthread_join(sleeper.thread, NULL);
    tear_down();
}

static void test_wake_all(void)
{
    static struct sleeper sleepers[WORKERS];
    set_up();
    for (int round = 0; round < 5; round++) {
        wp_store_seq_cst(&segment.header->stop, WP_RUN);
        for (uint32_t i = 0; i < WORKERS; i++) {
            start_sleeper(&sleepers[i], i);
        }
        wp_store_seq_cst(&segment.header->stop, WP_HALT);
        wp_wake_all(&segment); /* once: it has to be enough */
        for (uint32_t i = 0; i < WORKERS; i++) {
            AWAIT(atomic_load(&sleepers[i].returned));
            pthread_join(sleepers[i].thread, NULL);
            CHECK(!is_marked(i));
        }
    }
    tear_down();
}

/* ---- no wake-up is lost ---- */

#define CREW 6

/* A worker as worker.c has it, without its look once a second. */
static void work(const struct wp_segment *view, uint32_t me, struct dice *dice)
{
    for (;;) {
        uint64_t position;
        if (wp_table_claim(view, me, &position)) {
            wp_look(view);
            for (volatile uint64_t pause = roll(dice, 2000); pause > 0; pause--) {
            }
            wp_table_finish(view, me, position);
        } else if (wp_load_seq_cst(&view->header->stop) != WP_RUN) {
            return;
        } else {
            CHECK_OK(wp_park(view, me, FOREVER));
        }
    }
}

static uint64_t reap_done(void)
{
    uint64_t n = 0;
    for (uint32_t word = 0; word < segment.slots / 64; word++) {
        for (uint64_t bits = wp_exchange_seq_cst(&segment.done[word], 0); bits != 0; bits &= bits - 1) {
            uint64_t state = wp_load_acquire(&segment.slot[word * 64 + (uint32_t)__builtin_ctzll(bits)].state);
            wp_table_free(&table, wp_state_position(state));
            n++;
        }
    }
    return n;
}

/* Bursts of one to a few tasks, each waited for to its end: the crew falls asleep between them, in every way it can. */
static void feed_in_bursts(uint64_t rounds)
{
    struct dice dice = new_dice(7);
    uint64_t published = 0;
    for (uint64_t round = 0; round < rounds; round++) {
        uint64_t burst = 1 + (roll(&dice, 2) ? 0 : roll(&dice, 2 * CREW));
        for (uint64_t i = 0; i < burst; i++) {
            publish();
            wp_wake_one(&segment);
        }
        published += burst;
        int64_t limit = check_now() + PATIENCE_NS;
        uint64_t done = 0;
        while (done < burst) {
            done += reap_done();
            if (check_now() > limit) {
                check_failed(__FILE__, __LINE__, "every task is done", "a wake-up got lost");
            }
            if (roll(&dice, 4) == 0) {
                sched_yield();
            }
        }
        for (volatile uint64_t pause = roll(&dice, 3000); pause > 0; pause--) {
        }
    }
    wp_store_seq_cst(&segment.header->stop, WP_FINISH);
    wp_wake_all(&segment);
    printf("    %" PRIu64 " tasks in %" PRIu64 " bursts\n", published, rounds);
}

static void *crew_thread(void *number)
{
    struct dice dice = new_dice(100 + (uintptr_t)number);
    work(&segment, (uint32_t)(uintptr_t)number, &dice);
    return NULL;
}

static void test_no_lost_wake_up_threads(void)
{
    set_up();
    pthread_t threads[CREW];
    for (uintptr_t i = 0; i < CREW; i++) {
        CHECK_OK(pthread_create(&threads[i], NULL, crew_thread, (void *)(i * 13))); /* in both words of bits */
    }
    feed_in_bursts(SCALED(16000));
    for (int i = 0; i < CREW; i++) {
        pthread_join(threads[i], NULL);
    }
    tear_down();
}

static void test_no_lost_wake_up_processes(void)
{
    set_up();
    fflush(NULL);
    pid_t pids[CREW];
    for (uint32_t i = 0; i < CREW; i++) {
        pids[i] = fork();
        CHECK_SYS(pids[i]);
        if (pids[i] == 0) {
            struct wp_segment view;
            struct dice dice = new_dice(200 + i);
            CHECK_OK(wp_segment_attach(&view, segment.fd));
            work(&view, i * 13, &dice);
            _exit(0);
        }
    }
    feed_in_bursts(SCALED(16000));
    for (int i = 0; i < CREW; i++) {
        int status;
        CHECK_EQ(waitpid(pids[i], &status, 0), pids[i]);
        CHECK_EQ(status, 0);
    }
    tear_down();
}

/* ---- a worker that looks for work without sleeping ---- */

static bool somebody_is_on_its_way(void)
{
    return wp_load_seq_cst(&segment.header->waking) != 0;
}

/* Nobody is woken while it looks: it will come by itself. */
static void test_a_searcher_counts_as_on_its_way(void)
{
    struct sleeper sleeper;
    set_up();
    start_sleeper(&sleeper, 3);
    wp_start_search(&segment, 5);
    CHECK(somebody_is_on_its_way());
    wp_stop_search(&segment, 5);
    CHECK(!somebody_is_on_its_way());
    publish();
    AWAIT((wp_wake_one(&segment), atomic_load(&sleeper.returned)));
    pthread_join(sleeper.thread, NULL);
    tear_down();
}

/* It counts for 100 us only, however it ended. */
static void test_a_searcher_that_was_stopped_stalls_nobody(void)
{
    struct sleeper sleeper;
    set_up();
    start_sleeper(&sleeper, 3);
    wp_start_search(&segment, 5);
    publish();
    AWAIT((wp_wake_one(&segment), atomic_load(&sleeper.returned)));
    pthread_join(sleeper.thread, NULL);
    tear_down();
}

/* Two may look at a time; the one that did not get its name in does not take the other's out. */
static void test_two_searchers(void)
{
    set_up();
    wp_start_search(&segment, 5);
    wp_start_search(&segment, 6);
    wp_stop_search(&segment, 6);
    CHECK(somebody_is_on_its_way());
    wp_stop_search(&segment, 5);
    CHECK(!somebody_is_on_its_way());
    wp_start_search(&segment, 6);
    wp_unpark_dead(&segment, 6);
    CHECK(!somebody_is_on_its_way());
    tear_down();
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN(test_park_looks_again);
    RUN(test_park_deadline);
    RUN(test_park_interrupted);
    RUN(test_wake_one);
    RUN(test_wake_goes_past_the_dead);
    RUN(test_nobody_else_is_woken_while_one_is_on_its_way);
    RUN(test_waking_expires);
    RUN(test_unpark_dead);
    RUN(test_look);
    RUN(test_wake_all);
    RUN(test_no_lost_wake_up_threads);
    RUN_UNLESS_TSAN(test_no_lost_wake_up_processes);
    RUN(test_a_searcher_counts_as_on_its_way);
    RUN(test_a_searcher_that_was_stopped_stalls_nobody);
    RUN(test_two_searchers);
    return check_end();
}
