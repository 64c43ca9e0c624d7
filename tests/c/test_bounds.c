/* The other bounds of the weir: on tasks that have not started, and on bytes. */
#include "gate_rig.h"

/* ---- the bookkeeping alone ---- */

static void test_unstarted_are_bounded(void)
{
    struct wp_gate gate;
    struct weirpool_ticket waits = {.task = NULL};
    wp_gate_init(&gate, &(struct wp_bounds){.unstarted = 1}, 1);
    CHECK(wp_gate_try(&gate, 0));
    CHECK(wp_gate_lacks_starts(&gate));
    CHECK(!wp_gate_try(&gate, 0));
    wp_gate_queue(&gate, &waits);
    CHECK(!wp_gate_could_admit(&gate));
    wp_gate_start(&gate);
    CHECK(wp_gate_admit_next(&gate) == &waits); /* the other one runs on */
    CHECK_EQ(gate.outstanding, 2);
    CHECK(!wp_gate_try(&gate, 0));
    wp_gate_return(&gate, 0);
    CHECK(!wp_gate_try(&gate, 0));
    give_back(&gate, 0);
    CHECK_EQ(gate.outstanding, 0);
    CHECK_EQ(gate.unstarted, 0);
}

static void test_bytes_are_bounded(void)
{
    struct wp_gate gate;
    wp_gate_init(&gate, &(struct wp_bounds){.bytes = 100}, 1);
    CHECK(wp_gate_try(&gate, 60));
    CHECK(!wp_gate_try(&gate, 60));
    CHECK(wp_gate_try(&gate, 40));
    CHECK(wp_gate_try(&gate, 0)); /* of a size that is not known yet */
    CHECK(!wp_gate_try_weigh(&gate, 1));
    give_back(&gate, 60);
    CHECK(wp_gate_try_weigh(&gate, 60));
    give_back(&gate, 60);
    CHECK(!wp_gate_try(&gate, 1000)); /* too heavy for the bound: runs alone */
    give_back(&gate, 40);
    CHECK(wp_gate_try(&gate, 1000));
    CHECK_EQ(gate.bytes, 100);
    CHECK_EQ(gate.held, 1000);
    CHECK(!wp_gate_try(&gate, 1));
    give_back(&gate, 1000);
    CHECK_EQ(gate.bytes, 0);
    CHECK_EQ(gate.held, 0);
    CHECK_EQ(gate.outstanding, 0);
}

/* Whoever waits for many bytes is overtaken by lighter tasks, but only so often: it never waits for ever. */
static void test_heavy_is_not_overtaken_for_ever(void)
{
    struct wp_gate gate;
    struct weirpool_ticket heavy = {.permitted = true, .bytes = 80}, light = {.bytes = 10};
    wp_gate_init(&gate, &(struct wp_bounds){.bytes = 100}, 1);
    CHECK(wp_gate_try(&gate, 50));
    CHECK(wp_gate_try(&gate, 0));
    wp_gate_queue(&gate, &heavy);
    for (int i = 0; i < 2; i++) { /* twice the workers */
        CHECK(wp_gate_try(&gate, 10));
    }
    CHECK(!wp_gate_try(&gate, 10));
    wp_gate_queue(&gate, &light);
    give_back(&gate, 10);
    CHECK(wp_gate_admit_next(&gate) == NULL);
    give_back(&gate, 50);
    CHECK(wp_gate_admit_next(&gate) == &heavy);
    CHECK(wp_gate_admit_next(&gate) == &light);
    give_back(&gate, 10);
    give_back(&gate, 10);
    give_back(&gate, 80);
    CHECK_EQ(gate.bytes, 0);
    CHECK_EQ(gate.outstanding, 0);
}

/* ---- in a pool ---- */

static void test_a_start_lets_the_next_in(void)
{
    enum { COUNT = 8 };
    set_up_with((struct weirpool_options){.max_unstarted = 1});
    CHECK_OK(submit_now(0));
    CHECK_RC(submit_now(99), -EAGAIN);
    for (uint32_t i = 1; i <= COUNT; i++) {
        start_producer(i, i % 3 == 0 ? LARGE : sizeof i, WEIRPOOL_FOREVER);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        hand_claim(&hand); /* nothing ends: the claim alone wakes who waits */
        join_producer(&producers[i + 1], 0);
        CHECK_EQ(stats().waiting, 1);
        CHECK_EQ(stats().running, 1);
        hand_finish(&hand, "", 0);
        CHECK_OK(fetch(0, WEIRPOOL_NOW));
    }
    run_dry();
    tear_down();
}

static void test_cancelling_makes_room_for_starts(void)
{
    set_up_with((struct weirpool_options){.max_unstarted = 1});
    weirpool_task *task;
    CHECK_OK(weirpool_submit(pool, "a", 1, NULL, WEIRPOOL_NOW, &task));
    struct producer *p = start_producer(5, sizeof p->id, WEIRPOOL_FOREVER);
    CHECK_OK(weirpool_cancel(pool, task));
    join_producer(p, 0);
    CHECK_OK(fetch(-ECANCELED, WEIRPOOL_NOW));
    CHECK_EQ(run_one(), 5);
    run_dry();
    tear_down();
}

static void test_bytes_return_with_their_task(void)
{
    set_up_with((struct weirpool_options){.max_bytes = 2 * LARGE});
    struct producer *first = launch_producer(0, LARGE, WEIRPOOL_FOREVER);
    join_producer(first, 0);
    CHECK_EQ(stats().bytes_held, LARGE);
    CHECK_OK(submit_now(1));
    struct producer *huge = start_producer(2, 3 * LARGE, WEIRPOOL_FOREVER);
    CHECK_RC(submit_now(9), -EAGAIN); /* never overtakes who waits */
    CHECK_EQ(run_one(), 0);
    CHECK_OK(fetch(0, WEIRPOOL_NOW));
    CHECK(!atomic_load(&huge->returned));
    CHECK_EQ(run_one(), 1);
    CHECK_OK(fetch(0, WEIRPOOL_NOW));
    join_producer(huge, 0); /* alone */
    CHECK_EQ(stats().bytes_held, 3 * LARGE);
    run_dry();
    CHECK_EQ(stats().bytes_held, 0);
    tear_down();
}

/* A permit first, the weight when it is known. */
static void test_weighing_with_a_permit(void)
{
    set_up_with((struct weirpool_options){.max_bytes = 100});
    CHECK_OK(submit_now(0));
    CHECK(weirpool_admit(pool, WEIRPOOL_IN_BOUND, 0, WEIRPOOL_NOW) >= 0);
    CHECK_RC(weirpool_weigh(pool, WEIRPOOL_IN_BOUND, 100), -EAGAIN);
    weirpool_ticket *ticket;
    const struct weirpool_request place = {.weighed = 100, .permitted = true};
    CHECK_OK(weirpool_queue(pool, &place, NULL, &ticket));
    CHECK_RC(weirpool_await(pool, ticket, WEIRPOOL_NOW), -EAGAIN);
    CHECK_EQ(run_one(), 0);
    CHECK_OK(fetch(0, WEIRPOOL_NOW));
    CHECK_OK(weirpool_await(pool, ticket, WEIRPOOL_NOW));
    CHECK_EQ(stats().bytes_held, 100);
    weirpool_forgo(pool, 100);
    CHECK_EQ(stats().bytes_held, 0);
    CHECK(weirpool_admit(pool, WEIRPOOL_IN_BOUND, 0, WEIRPOOL_NOW) >= 0);
    CHECK_OK(weirpool_weigh(pool, WEIRPOOL_OVER_BOUND, 1000));
    CHECK_EQ(stats().bytes_held, 1000);
    weirpool_forgo(pool, 1000);
    run_dry();
    tear_down();
}

static void publish_weighed(size_t size, size_t weighed)
{
    static char bytes[400];
    struct iovec part = {.iov_base = bytes, .iov_len = size};
    CHECK_OK(weirpool_publish(
        pool, &(struct weirpool_request){.parts = &part, .count = 1, .interest = WEIRPOOL_WATCHED, .weighed = weighed},
        NULL));
}

/* What is made again after the wait may have shrunk by then: the next producer gets what is left. */
static void test_a_lighter_task_than_was_said_lets_the_next_in(void)
{
    set_up_with((struct weirpool_options){.max_bytes = 400});
    CHECK(weirpool_admit(pool, WEIRPOOL_IN_BOUND, 300, WEIRPOOL_NOW) >= 0);
    struct producer *next = start_producer(1, 200, WEIRPOOL_FOREVER);
    publish_weighed(100, 300);
    check_pool(pool);
    join_producer(next, 0);
    CHECK_EQ(stats().bytes_held, 300);
    run_dry();
    CHECK_EQ(stats().bytes_held, 0);
    tear_down();
}

static void test_a_heavier_task_than_was_said_is_counted(void)
{
    set_up_with((struct weirpool_options){.max_bytes = 400});
    CHECK(weirpool_admit(pool, WEIRPOOL_IN_BOUND, 200, WEIRPOOL_NOW) >= 0);
    CHECK(weirpool_admit(pool, WEIRPOOL_IN_BOUND, 200, WEIRPOOL_NOW) >= 0);
    publish_weighed(100, 200);
    publish_weighed(300, 200);
    CHECK_EQ(stats().admitted_over_bound, 0);
    CHECK(weirpool_admit(pool, WEIRPOOL_OVER_BOUND, 0, WEIRPOOL_NOW) >= 0);
    publish_weighed(10, 0);
    CHECK_EQ(stats().admitted_over_bound, 1);
    run_dry();
    CHECK_EQ(stats().bytes_held, 0);
    tear_down();
}

/* A worker that says so for no reason does not make those spin who wait for a result. */
static void test_nobody_asked_for_starts(void)
{
    set_up(1);
    atomic_store(&pool->segment.header->started, 1);
    wp_lock(pool);
    CHECK(!wp_has_results(pool));
    wp_unlock(pool);
    tear_down();
}

/* Whoever waits with a permit for its bytes hears of the shutdown, and returns the permit. */
static void test_closing_wakes_who_waits_for_bytes(void)
{
    set_up_with((struct weirpool_options){.max_bytes = 10});
    CHECK_OK(submit_now(0));
    CHECK(weirpool_admit(pool, WEIRPOOL_IN_BOUND, 0, WEIRPOOL_NOW) >= 0);
    weirpool_ticket *ticket;
    const struct weirpool_request place = {.weighed = 10, .permitted = true};
    CHECK_OK(weirpool_queue(pool, &place, NULL, &ticket));
    CHECK_OK(weirpool_shutdown(pool));
    CHECK_RC(weirpool_await(pool, ticket, WEIRPOOL_FOREVER), -ESHUTDOWN);
    weirpool_forgo(pool, 0);
    run_dry();
    tear_down();
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN(test_unstarted_are_bounded);
    RUN(test_bytes_are_bounded);
    RUN(test_heavy_is_not_overtaken_for_ever);
    RUN(test_a_start_lets_the_next_in);
    RUN(test_cancelling_makes_room_for_starts);
    RUN(test_bytes_return_with_their_task);
    RUN(test_weighing_with_a_permit);
    RUN(test_a_lighter_task_than_was_said_lets_the_next_in);
    RUN(test_a_heavier_task_than_was_said_is_counted);
    RUN(test_nobody_asked_for_starts);
    RUN(test_closing_wakes_who_waits_for_bytes);
    return check_end();
}
