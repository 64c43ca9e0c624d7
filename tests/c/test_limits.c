/* How long a task may run: over its limit its worker is killed, and nobody else's. */
#include <poll.h>
#include <signal.h>

#include "replace_rig.h"

#define MS UINT64_C(1000000)
#define LONG_LIMIT (UINT64_C(3600) * 1000 * MS)

static void test_over_its_limit(void)
{
    set_up_replacing(1, NULL);
    int64_t began = check_now();
    submit_limited(HOLD_ONCE, 1, 0, 50 * MS);
    struct ended ended = next_end();
    CHECK_RC(ended.error, -ETIME);
    CHECK_EQ(ended.attempts, 1);
    CHECK_EQ(ended.pid, 0);
    CHECK(check_now() - began >= (int64_t)(50 * MS));
    submit_limited(ANSWER, 2, 0, LONG_LIMIT);
    expect_done(1);
    CHECK_EQ(stats().stopped, 1);
    CHECK_EQ(stats().workers_died, 0);
    CHECK_EQ(weirpool_fault(rig.pool), WEIRPOOL_FAULT_NONE);
    tear_down_idle();
}

static void test_a_retry_has_its_own_time(void)
{
    set_up_replacing(1, NULL);
    submit_limited(HOLD_ONCE, 1, 1, 50 * MS);
    struct ended ended = next_end();
    CHECK_RC(ended.error, 0);
    CHECK_EQ(ended.attempts, 2);
    CHECK_EQ(stats().retried, 1);
    tear_down_idle();
}

/* Overruns are no deaths: any number in a row breaks nothing. */
static void test_many_overruns(void)
{
    set_up_replacing(2, NULL);
    atomic_store(&board->hold, true);
    for (uint64_t id = 0; id < 8; id++) {
        submit_limited(HOLD, id, 1, 10 * MS);
    }
    for (int i = 0; i < 8; i++) {
        struct ended ended = next_end();
        CHECK_RC(ended.error, -ETIME);
        CHECK_EQ(ended.attempts, 2);
    }
    CHECK_EQ(stats().stopped, 16);
    CHECK_EQ(stats().retried, 8);
    CHECK_EQ(stats().workers_died, 0);
    await_workers();
    tear_down_idle();
}

/* Waiting does not count: a limit is for the time from a worker's claim. */
static void test_waiting_costs_no_time(void)
{
    set_up_replacing(1, NULL);
    uint64_t slots = rig.pool->segment.slots;
    atomic_store(&board->hold, true);
    submit(HOLD, 0, 0);
    for (uint64_t id = 1; id < slots + 20; id++) {
        submit_limited(ANSWER, id, 0, 400 * MS);
    }
    AWAIT(atomic_load(&board->held) == 1);
    int64_t later = check_now() + INT64_C(1000000000);
    bool broke = false;
    while (check_now() < later) {
        CHECK(collect_one(WEIRPOOL_NOW, &broke) == NULL && !broke);
        check_nap();
    }
    atomic_store(&board->hold, false);
    expect_done((int)slots + 20);
    CHECK_EQ(stats().stopped, 0);
    tear_down_idle();
}

/* One is over its limit; its neighbour and those that wait are not. */
static void test_limits_with_a_queue(void)
{
    enum { TASKS = 300 };
    set_up_replacing(2, NULL);
    for (uint64_t id = 0; id < TASKS; id++) {
        bool lingers = id % 50 == 25;
        submit_limited(lingers ? HOLD_ONCE : ANSWER, id, 0, lingers ? 20 * MS : LONG_LIMIT);
    }
    int overruns = 0;
    for (int i = 0; i < TASKS; i++) {
        struct ended ended = next_end();
        CHECK_RC(ended.error, ended.id % 50 == 25 ? -ETIME : 0);
        overruns += ended.error != 0;
    }
    CHECK_EQ(overruns, TASKS / 50);
    CHECK_EQ(stats().stopped, overruns);
    tear_down_idle();
}

/* The alarm is not set by the limits of tasks that are gone: the collector would wake for nothing. */
static void test_a_short_limit_that_is_gone_wakes_nobody(void)
{
    enum { TASKS = 900 };
    struct weirpool_options options = {.bound = TASKS + 2};
    set_up_replacing(1, &options);
    atomic_store(&board->hold, true);
    submit(HOLD, 0, 0);
    AWAIT(atomic_load(&board->held) == 1);
    weirpool_task *brief = submit_limited(ANSWER, 1, 0, 2 * MS);
    for (uint64_t id = 2; id < TASKS + 2; id++) {
        submit_limited(ANSWER, id, 0, LONG_LIMIT);
    }
    wp_lock(rig.pool);
    wp_enforce_limits(rig.pool);
    CHECK(rig.pool->alarm_at < check_now() + (int64_t)(LONG_LIMIT / 2));
    wp_unlock(rig.pool);
    CHECK_OK(weirpool_cancel(rig.pool, brief));
    wp_lock(rig.pool);
    for (int looks = 0; looks < 8; looks++) {
        wp_enforce_limits(rig.pool);
    }
    CHECK(rig.pool->alarm_at > check_now() + (int64_t)(LONG_LIMIT / 2));
    wp_unlock(rig.pool);
    brief = submit_limited(ANSWER, 1, 0, 2 * MS);
    CHECK(rig.pool->alarm_at < check_now() + (int64_t)(LONG_LIMIT / 2));
    CHECK_OK(weirpool_cancel(rig.pool, brief));
    atomic_store(&board->hold, false);
    int cancelled = 0;
    for (int i = 0; i < TASKS + 3; i++) {
        cancelled += next_end().error == -ECANCELED;
    }
    CHECK_EQ(cancelled, 2);
    tear_down_idle();
}

/* A stopped process is killed all the same; also one that was stopped before it could say when it started. */
static void test_stopped_worker(void)
{
    set_up_replacing(1, NULL);
    submit_limited(HOLD_ONCE, 1, 1, 30 * MS);
    AWAIT(atomic_load(&board->held) == 1);
    stop_worker(0);
    struct ended ended = next_end();
    CHECK_RC(ended.error, 0);
    CHECK_EQ(ended.attempts, 2);
    CHECK_EQ(stats().workers_died, 0);
    tear_down_idle();
}

/* What a slot says of its start is the worker's word: taken for no earlier than it can be, and for no later. */
static void test_start_that_is_a_lie(void)
{
    const uint64_t lies[] = {0, 1, UINT64_MAX, INT64_MAX, (uint64_t)check_now() + LONG_LIMIT};
    set_up_replacing(1, NULL);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        int64_t began = check_now();
        submit_limited(HOLD_ONCE, i, 0, 30 * MS);
        AWAIT(atomic_load(&board->held) == i + 1);
        wp_store_relaxed(&wp_slot_at(&rig.pool->segment, i)->started, lies[i]);
        struct ended ended = next_end();
        CHECK_RC(ended.error, -ETIME);
        CHECK(check_now() - began >= (int64_t)(30 * MS));
    }
    tear_down_idle();
}

static enum wp_tag tag_after_a_look(uint64_t position)
{
    wp_lock(rig.pool);
    wp_enforce_limits(rig.pool);
    wp_unlock(rig.pool);
    return wp_state_tag(state_at(position));
}

/* Its worker has claimed it and not come to say when: what the slot says is of a task before it, and does not count. */
static void test_start_of_another_task(void)
{
    struct hand hand;
    uint64_t position;
    set_up_by_hand(1);
    hand_open(&hand, rig.pool);
    uint64_t slots = rig.pool->segment.slots;
    for (uint64_t i = 0; i < slots; i++) {
        submit(ANSWER, 0, 0);
        hand_claim(&hand);
        hand_finish(&hand, "", 0);
        expect_done(1);
    }
    submit_limited(ANSWER, 0, 0, 20 * MS);
    int64_t later = check_now() + (int64_t)(40 * MS);
    AWAIT(check_now() > later);
    CHECK(wp_table_claim(&hand.segment, hand.number, &position));
    CHECK_EQ(position, slots);
    CHECK_EQ(tag_after_a_look(slots), WP_RUNNING);
    AWAIT(tag_after_a_look(slots) == WP_CONDEMNED);
    hand_die(&hand);
    leave(&hand, 1);
    CHECK_EQ(stats().stopped, 1);
    tear_down_idle();
}

/* A task that ends at the moment at which it is condemned: one of the two, and never both. */
static void test_at_the_limit(void)
{
    struct dice dice = new_dice(2);
    set_up_replacing(2, NULL);
    uint64_t rounds = SCALED(1000), done = 0, stopped = 0, finished = 0;
    for (uint64_t id = 0; id < rounds; id++) {
        struct order o = {.id = id, .lasts_us = 200, .result_size = roll(&dice, 400)};
        submit_order(&o, sizeof o, 0, 150000 + roll(&dice, 150000));
        struct ended ended = next_end();
        CHECK_EQ(ended.id, id);
        CHECK(ended.error == 0 || ended.error == -ETIME);
        CHECK_EQ(ended.attempts, 1);
        done += ended.error == 0;
        stopped += ended.error != 0;
        CHECK_EQ(stats().stopped, stopped);
        CHECK_EQ(stats().finished, ++finished);
        check_pool(rig.pool);
    }
    printf("    %" PRIu64 " were done, %" PRIu64 " stopped\n", done, stopped);
    CHECK_EQ(stats().workers_died, 0);
    await_workers();
    tear_down_idle();
}

/* The collector is in user code: whoever waits for a task sees to limits, at its look. */
static void test_while_nobody_collects(void)
{
    set_up_replacing(1, NULL);
    weirpool_task *task = submit_limited(HOLD_ONCE, 1, 0, 50 * MS);
    CHECK_OK(weirpool_wait(rig.pool, task, weirpool_deadline(PATIENCE_NS)));
    CHECK_RC(next_end().error, -ETIME);
    await_workers();
    tear_down_idle();
}

/* A program that polls weirpool_fd() need not call weirpool_next() for limits to be seen to. */
static void test_event_loop(void)
{
    set_up_replacing(1, NULL);
    weirpool_task *task;
    struct weirpool_event event;
    CHECK_RC(weirpool_collect(rig.pool, &task, 1, &event, WEIRPOOL_NOW), -EAGAIN);
    submit_limited(HOLD_ONCE, 1, 0, 50 * MS);
    CHECK_RC(weirpool_collect(rig.pool, &task, 1, &event, WEIRPOOL_NOW), -EAGAIN);
    bool broke = false;
    for (task = NULL; task == NULL; task = collect_one(WEIRPOOL_NOW, &broke)) {
        struct pollfd p = {.fd = weirpool_fd(rig.pool), .events = POLLIN};
        CHECK_EQ(poll(&p, 1, (int)(PATIENCE_NS / 1000000)), 1);
    }
    CHECK_RC(describe_and_release(task).error, -ETIME);
    await_workers();
    tear_down_idle();
}

static void test_limit_that_is_none(void)
{
    set_up_replacing(1, NULL);
    submit_limited(ANSWER, 1, 0, UINT64_MAX);
    expect_done(1);
    tear_down_idle();
}

/* While its task is queued the earliest overrun is always about now. */
static void test_shortest_limit(void)
{
    weirpool *pool;
    weirpool_task *task;
    struct weirpool_completion none;
    struct weirpool_options options = {.size = sizeof options, .workers = 1, .replace = 1};
    const struct weirpool_task_options given = {.size = sizeof given, .limit_ns = 1};
    CHECK_OK(weirpool_open(&pool, &options));
    CHECK_OK(weirpool_submit_with(pool, "task", 4, &given, &task));
    CHECK_RC(weirpool_next(pool, &none, WEIRPOOL_NOW), -EAGAIN);
    CHECK_OK(weirpool_close(pool));
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN_UNLESS_TSAN(test_over_its_limit);
    RUN_UNLESS_TSAN(test_a_retry_has_its_own_time);
    RUN_UNLESS_TSAN(test_many_overruns);
    RUN_UNLESS_TSAN(test_waiting_costs_no_time);
    RUN_UNLESS_TSAN(test_limits_with_a_queue);
    RUN_UNLESS_TSAN(test_a_short_limit_that_is_gone_wakes_nobody);
    RUN_UNLESS_TSAN(test_stopped_worker);
    RUN_UNLESS_TSAN(test_start_that_is_a_lie);
    RUN(test_start_of_another_task);
    RUN(test_shortest_limit);
    RUN_UNLESS_TSAN(test_at_the_limit);
    RUN_UNLESS_TSAN(test_while_nobody_collects);
    RUN_UNLESS_TSAN(test_event_loop);
    RUN_UNLESS_TSAN(test_limit_that_is_none);
    return check_end();
}
