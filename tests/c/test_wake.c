/*
 * Wake-ups that go wrong between their steps (crash.h): others rely on them meanwhile. No sleeper has a deadline, so
 * that a wake-up that is lost shows.
 */
#include <pthread.h>
#include <setjmp.h>

#include "crash.h"
#include "os/os.h"
#include "park.h"
#include "table_rig.h"

#define WORKERS 8

struct sleeper {
    pthread_t thread;
    uint32_t number;
    _Atomic bool returned;
};

static struct sleeper early, late;
static const char *_Atomic awaited;
static void (*on_point)(void);

/* Of the thread that wakes: the test's own. What happens there takes place once. */
void wp_crash_at(const char *point)
{
    const char *wanted = atomic_load(&awaited);
    if (wanted != NULL && strcmp(point, wanted) == 0) {
        atomic_store(&awaited, NULL);
        on_point();
    }
}

static void at(const char *point, void (*what)(void))
{
    on_point = what;
    atomic_store(&awaited, point);
}

static void *sleep_once(void *argument)
{
    struct sleeper *me = argument;
    CHECK_OK(wp_park(&segment, me->number, INT64_MAX));
    atomic_store(&me->returned, true);
    return NULL;
}

/* Returns when it sleeps, most probably: one that is late for that does not sleep, and the test passes. */
static void start_sleeper(struct sleeper *sleeper, uint32_t number)
{
    *sleeper = (struct sleeper){.number = number};
    CHECK_OK(pthread_create(&sleeper->thread, NULL, sleep_once, sleeper));
    AWAIT(wp_load_seq_cst(&segment.header->parked[number / 64]) >> (number % 64) & 1);
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

static void await_sleeper(struct sleeper *sleeper)
{
    AWAIT(atomic_load(&sleeper->returned));
    pthread_join(sleeper->thread, NULL);
}

/* ---- a worker that the waker saw asleep wakes by itself, and another lies down ---- */

static void rely_on_the_mark(void)
{
    publish();
    wp_wake_one(&segment); /* sees that somebody is on its way */
}

static void trade_places(void)
{
    wp_store_seq_cst(&segment.records[early.number].parked, 0);
    wp_os_futex_wake(&segment.records[early.number].parked, 1, WP_SHARED);
    await_sleeper(&early);
    start_sleeper(&late, 5);
    at("after_waking", rely_on_the_mark);
}

/* Many times: where this thread is interrupted for longer than a wake-up counts, nobody relies on it. */
static void test_who_relied_on_a_wake_up_in_vain(void)
{
    for (int i = 0; i < 20; i++) {
        set_up_table(256, WORKERS);
        start_sleeper(&early, 3);
        at("before_waking", trade_places);
        wp_wake_one(&segment);
        await_sleeper(&late);
        tear_down();
    }
}

/* ---- a waker ends, or stops, before the wake-up itself ---- */

static jmp_buf end_of_waker;

static void end_here(void)
{
    longjmp(end_of_waker, 1);
}

static void wake_by_half(void)
{
    set_up_table(256, WORKERS);
    start_sleeper(&early, 3);
    publish();
    at("after_waking_word", end_here);
    if (setjmp(end_of_waker) == 0) {
        wp_wake_one(&segment);
        CHECK(false);
    }
    CHECK(!atomic_load(&early.returned));
}

static void test_a_waker_that_died(void)
{
    wake_by_half();
    wp_unpark_dead(&segment, 5);
    wp_look(&segment);
    await_sleeper(&early);
    tear_down();
}

static void test_a_waker_that_was_stopped(void)
{
    wake_by_half();
    AWAIT((wp_wake_one(&segment), atomic_load(&early.returned)));
    pthread_join(early.thread, NULL);
    tear_down();
}

static void test_the_end_reaches_who_was_woken_by_half(void)
{
    wake_by_half();
    wp_store_seq_cst(&segment.header->stop, WP_HALT);
    wp_wake_all(&segment);
    await_sleeper(&early);
    tear_down();
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN(test_who_relied_on_a_wake_up_in_vain);
    RUN(test_a_waker_that_died);
    RUN(test_a_waker_that_was_stopped);
    RUN(test_the_end_reaches_who_was_woken_by_half);
    return check_end();
}
