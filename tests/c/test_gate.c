/*
 * The weir: who gets in, in which order, and how a wait for it ends. The worker of these pools does nothing by itself:
 * the test claims and finishes for it. Nobody looks once a second here: a wake-up that is lost hangs.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>

#include "check.h"
#include "gate.h"
#include "os_hooks.h"
#include "workers.h"

#define LARGE (WEIRPOOL_PARK_LIMIT + 1)
#define MAX_PRODUCERS 64

static weirpool *pool;
static struct hand hand;

static void set_up_with(struct weirpool_options options)
{
    options.size = sizeof options;
    options.workers = 1;
    CHECK_OK(weirpool_open(&pool, &options));
    hand_open(&hand, pool);
    atomic_store(&without_looks, true);
}

static void set_up(uint64_t bound)
{
    set_up_with((struct weirpool_options){.bound = bound});
}

static void tear_down(void)
{
    check_pool(pool);
    hand_close(&hand);
    CHECK_OK(weirpool_close(pool));
    atomic_store(&without_looks, false);
}

static struct weirpool_stats stats(void)
{
    struct weirpool_stats now;
    CHECK_OK(weirpool_stats(pool, &now));
    return now;
}

static int submit_now(uint32_t id)
{
    return weirpool_submit(pool, &id, sizeof id, NULL, WEIRPOOL_NOW, NULL);
}

/* The worker runs the next task; returns its number. */
static uint32_t run_one(void)
{
    uint32_t id;
    struct weirpool_claimed claimed = hand_claim(&hand);
    CHECK(claimed.size >= sizeof id);
    memcpy(&id, claimed.payload, sizeof id);
    hand_finish(&hand, "", 0);
    return id;
}

static int fetch(int expected_error, int64_t deadline)
{
    struct weirpool_completion completion;
    int rc = weirpool_next(pool, &completion, deadline);
    if (rc == 0) {
        CHECK_RC(completion.error, expected_error);
        weirpool_release(pool, completion.task);
    }
    return rc;
}

/* Runs and fetches everything that is outstanding; permits are zero afterwards. */
static void run_dry(void)
{
    int rc;
    while ((rc = fetch(0, WEIRPOOL_NOW)) == 0 || stats().outstanding > 0) {
        CHECK(rc == 0 || rc == -EAGAIN);
        if (stats().waiting > 0) {
            run_one();
        }
    }
    CHECK_EQ(stats().outstanding, 0);
    CHECK_EQ(stats().blocked_producers, 0);
    check_pool(pool);
}

/* ---- producers that wait, each in its thread ---- */

struct producer {
    pthread_t thread;
    uint32_t id;
    size_t size;
    int64_t deadline;
    _Atomic bool returned;
    int rc;
};

static struct producer producers[MAX_PRODUCERS];

static void *produce(void *argument)
{
    struct producer *me = argument;
    unsigned char *bytes = calloc(1, me->size);
    CHECK(bytes != NULL);
    memcpy(bytes, &me->id, sizeof me->id);
    me->rc = weirpool_submit(pool, bytes, me->size, NULL, me->deadline, NULL);
    free(bytes);
    atomic_store(&me->returned, true);
    return NULL;
}

static struct producer *launch_producer(uint32_t id, size_t size, int64_t deadline)
{
    struct producer *p = &producers[id];
    *p = (struct producer){.id = id, .size = size, .deadline = deadline};
    CHECK_OK(pthread_create(&p->thread, NULL, produce, p));
    return p;
}

/* Starts one, and waits until it waits. */
static struct producer *start_producer(uint32_t id, size_t size, int64_t deadline)
{
    uint64_t before = blocked(pool);
    struct producer *p = launch_producer(id, size, deadline);
    AWAIT(blocked(pool) == before + 1);
    return p;
}

static void join_producer(struct producer *p, int expected)
{
    AWAIT(atomic_load(&p->returned));
    pthread_join(p->thread, NULL);
    CHECK_RC(p->rc, expected);
}

/* ---- the bookkeeping alone ---- */

/* A task that was started ends. */
static void give_back(struct wp_gate *gate, uint64_t bytes)
{
    wp_gate_start(gate);
    wp_gate_return(gate, bytes);
}

static void test_bookkeeping(void)
{
    struct wp_gate gate;
    struct weirpool_ticket first = {.task = NULL}, second = {.task = NULL};
    wp_gate_init(&gate, &(struct wp_bounds){.tasks = 2}, 1);
    CHECK(wp_gate_try(&gate, 0));
    CHECK(wp_gate_try(&gate, 0));
    CHECK(!wp_gate_try(&gate, 0));
    wp_gate_queue(&gate, &first);
    wp_gate_queue(&gate, &second);
    CHECK_EQ(gate.blocked, 2);
    CHECK(wp_gate_admit_next(&gate) == NULL);
    give_back(&gate, 0);
    CHECK(!wp_gate_try(&gate, 0)); /* never overtakes who waits */
    CHECK(wp_gate_admit_next(&gate) == &first);
    CHECK(wp_gate_admit_next(&gate) == NULL);
    wp_gate_force(&gate, 0);
    CHECK_EQ(gate.over_bound, 1);
    CHECK_EQ(gate.outstanding, 3);
    CHECK_EQ(gate.peak, 3);
    give_back(&gate, 0);
    CHECK(wp_gate_admit_next(&gate) == NULL);
    wp_gate_withdraw(&gate, &second);
    CHECK_EQ(gate.blocked, 0);
    CHECK(wp_gate_dismiss_next(&gate) == NULL);
    give_back(&gate, 0);
    give_back(&gate, 0);
    CHECK_EQ(gate.outstanding, 0);
}

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

static void test_no_bound(void)
{
    set_up(0);
    for (uint32_t i = 0; i < 5000; i++) {
        CHECK_OK(submit_now(i));
    }
    CHECK_EQ(stats().outstanding, 5000);
    check_pool(pool);
    for (uint32_t i = 0; i < 5000; i++) {
        CHECK_EQ(run_one(), i); /* in order, through the overflow */
        CHECK_OK(fetch(0, WEIRPOOL_NOW));
    }
    run_dry();
    tear_down();
}

/* ---- bound, try, deadline ---- */

static void test_bound_and_try(void)
{
    set_up(3);
    CHECK_EQ(stats().bound, 3);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK_OK(submit_now(i));
    }
    CHECK_RC(submit_now(9), -EAGAIN);
    CHECK_RC(weirpool_submit(pool, "x", 1, NULL, 1, NULL), -ETIMEDOUT); /* a time gone by */
    CHECK_EQ(stats().waiting, 3);
    hand_claim(&hand);
    CHECK_EQ(stats().running, 1);
    CHECK_RC(submit_now(9), -EAGAIN); /* running is outstanding */
    hand_finish(&hand, "", 0);
    CHECK_OK(fetch(0, WEIRPOOL_NOW));
    CHECK_OK(submit_now(3));
    CHECK_RC(submit_now(9), -EAGAIN);
    CHECK_EQ(stats().peak_outstanding, 3);
    run_dry();
    CHECK_EQ(stats().submitted, 4);
    CHECK_EQ(stats().finished, 4);
    tear_down();
}

static void test_cancel_makes_room(void)
{
    set_up(1);
    weirpool_task *task;
    CHECK_OK(weirpool_submit(pool, "a", 1, NULL, WEIRPOOL_NOW, &task));
    struct producer *p = start_producer(7, sizeof p->id, WEIRPOOL_FOREVER);
    CHECK_OK(weirpool_cancel(pool, task));
    CHECK_RC(weirpool_cancel(pool, task), -EBUSY);
    join_producer(p, 0);
    CHECK_OK(fetch(-ECANCELED, WEIRPOOL_NOW));
    CHECK_EQ(run_one(), 7);
    run_dry();
    tear_down();
}

static void submit_past_deadline(size_t size)
{
    unsigned char *bytes = calloc(1, size);
    CHECK(bytes != NULL);
    int64_t deadline = weirpool_deadline(20000000);
    CHECK_RC(weirpool_submit(pool, bytes, size, NULL, deadline, NULL), -ETIMEDOUT);
    CHECK(wp_os_now() >= deadline);
    free(bytes);
}

static void test_deadline(void)
{
    set_up(1);
    CHECK_OK(submit_now(0));
    submit_past_deadline(1);
    submit_past_deadline(WEIRPOOL_PARK_LIMIT);
    submit_past_deadline(LARGE);
    CHECK_EQ(stats().blocked_producers, 0);
    CHECK_EQ(stats().submitted, 1);
    CHECK(stats().blocked_ns > 0);
    run_dry();
    tear_down();
}

/* ---- first come, first served ---- */

static void test_first_come_first_served(void)
{
    enum { COUNT = 12 };
    set_up(1);
    CHECK_OK(submit_now(0));
    for (uint32_t i = 1; i <= COUNT; i++) {
        /* Some leave their task at the gate, some wait for the permit alone. */
        start_producer(i, i % 3 == 0 ? LARGE : sizeof i, WEIRPOOL_FOREVER);
        CHECK_RC(submit_now(99), -EAGAIN);
    }
    CHECK_EQ(stats().blocked_producers, COUNT);
    for (uint32_t i = 0; i <= COUNT; i++) {
        CHECK_EQ(run_one(), i);
        CHECK(stats().outstanding <= 1);
        if (i < COUNT) {
            join_producer(&producers[i + 1], 0);
        }
    }
    CHECK_EQ(stats().peak_outstanding, 1);
    run_dry();
    tear_down();
}

/* Whoever frees a permit publishes the task that waits: the worker has it although its producer does not run. */
static pthread_mutex_t nobody_runs = PTHREAD_MUTEX_INITIALIZER;

static void wait_until_all_may_run(void)
{
    pthread_mutex_lock(&nobody_runs);
    pthread_mutex_unlock(&nobody_runs);
}

static void test_workers_need_not_wait_for_producers(void)
{
    set_up(1);
    weirpool_task *task;
    CHECK_OK(weirpool_submit(pool, "a", 1, NULL, WEIRPOOL_NOW, &task));
    struct producer *p = start_producer(5, sizeof p->id, WEIRPOOL_FOREVER);
    pthread_mutex_lock(&nobody_runs);
    atomic_store(&after_futex_wait, wait_until_all_may_run);
    CHECK_OK(weirpool_cancel(pool, task));
    CHECK_EQ(run_one(), 5);
    CHECK(!atomic_load(&p->returned));
    atomic_store(&after_futex_wait, NULL);
    pthread_mutex_unlock(&nobody_runs);
    join_producer(p, 0);
    CHECK_OK(fetch(-ECANCELED, WEIRPOOL_NOW));
    run_dry();
    tear_down();
}

/* ---- what has not started, and bytes ---- */

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

static bool is_rung(int bell)
{
    struct pollfd readable = {.fd = bell, .events = POLLIN};
    return poll(&readable, 1, 0) == 1;
}

static void test_a_bell_rings_at_the_turn_and_at_the_end(void)
{
    set_up(1);
    int bell = wp_os_bell_create();
    CHECK_OK(submit_now(0));
    struct iovec part = {.iov_base = "b", .iov_len = 1};
    const struct weirpool_request request = {.parts = &part, .count = 1, .interest = WEIRPOOL_WATCHED, .bell = bell};
    weirpool_ticket *first, *second;
    CHECK_OK(weirpool_queue(pool, &request, NULL, &first));
    CHECK_OK(weirpool_queue(pool, &request, NULL, &second));
    CHECK(!is_rung(bell));
    hand_claim(&hand);
    hand_finish(&hand, "", 0);
    CHECK_OK(fetch(0, WEIRPOOL_NOW));
    CHECK(is_rung(bell));
    wp_os_bell_clear(bell);
    CHECK_OK(weirpool_await(pool, first, WEIRPOOL_NOW));
    CHECK_RC(weirpool_await(pool, second, WEIRPOOL_NOW), -EAGAIN);
    CHECK_OK(weirpool_shutdown(pool));
    CHECK(is_rung(bell));
    CHECK_RC(weirpool_leave(pool, second), -ESHUTDOWN);
    wp_os_close(bell);
    hand_claim(&hand);
    hand_finish(&hand, "", 0);
    CHECK_OK(fetch(0, WEIRPOOL_NOW));
    tear_down();
}

/* ---- how a wait ends otherwise ---- */

static void ignore_signal(int signal)
{
    (void)signal;
}

static void heed_signals(void)
{
    struct sigaction action = {.sa_handler = ignore_signal}; /* without SA_RESTART */
    CHECK_SYS(sigaction(SIGUSR1, &action, NULL));
}

static void interrupt(struct producer *p)
{
    AWAIT((pthread_kill(p->thread, SIGUSR1), atomic_load(&p->returned)));
    join_producer(p, -EINTR);
}

static void test_interrupted(void)
{
    set_up(1);
    CHECK_OK(submit_now(0));
    struct producer *helper = start_producer(1, 100, WEIRPOOL_FOREVER);
    struct producer *small = start_producer(2, 100, WEIRPOOL_FOREVER);
    struct producer *large = start_producer(3, LARGE, WEIRPOOL_FOREVER);
    struct producer *stays = start_producer(4, 100, WEIRPOOL_FOREVER);
    interrupt(small);
    interrupt(helper);
    interrupt(large);
    CHECK_EQ(stats().blocked_producers, 1);
    check_pool(pool);
    CHECK_EQ(run_one(), 0);
    join_producer(stays, 0); /* the role of the helper went on to it */
    CHECK_EQ(run_one(), 4);
    run_dry();
    CHECK_EQ(stats().submitted, 2);
    tear_down();
}

static void check_that_all_wake(int (*end)(weirpool *), int reason)
{
    enum { COUNT = 24 };
    set_up(1);
    CHECK_OK(submit_now(0));
    for (uint32_t i = 1; i <= COUNT; i++) {
        start_producer(i, i % 4 == 0 ? LARGE : sizeof i, WEIRPOOL_FOREVER);
    }
    CHECK_OK(end(pool));
    for (uint32_t i = 1; i <= COUNT; i++) {
        join_producer(&producers[i], reason);
    }
    CHECK_RC(submit_now(1), reason);
    CHECK_RC(weirpool_submit(pool, "x", 1, NULL, WEIRPOOL_FOREVER, NULL), reason);
    CHECK_RC(weirpool_admit(pool, WEIRPOOL_OVER_BOUND, 0, WEIRPOOL_NOW), reason);
    CHECK_EQ(stats().blocked_producers, 0);
    check_pool(pool);
}

static void test_shutdown_wakes_everybody(void)
{
    check_that_all_wake(weirpool_shutdown, -ESHUTDOWN);
    CHECK_EQ(run_one(), 0); /* what was admitted runs to its end */
    CHECK_OK(fetch(0, WEIRPOOL_FOREVER));
    CHECK_RC(fetch(0, WEIRPOOL_FOREVER), -ESHUTDOWN);
    CHECK_EQ(stats().outstanding, 0);
    tear_down();
}

static void test_break_wakes_everybody(void)
{
    check_that_all_wake(weirpool_break, -EPIPE);
    CHECK_OK(fetch(-EPIPE, WEIRPOOL_FOREVER));
    CHECK_RC(fetch(0, WEIRPOOL_FOREVER), -EPIPE);
    CHECK_EQ(stats().outstanding, 0);
    tear_down();
}

/* ---- a place in the line, in steps ---- */

static weirpool_ticket *queue_task(uint32_t *id, weirpool_task **task)
{
    weirpool_ticket *ticket;
    struct iovec part = {.iov_base = id, .iov_len = sizeof *id};
    CHECK_OK(weirpool_queue(pool, &(struct weirpool_request){.parts = &part, .count = 1, .interest = WEIRPOOL_WATCHED},
                            task, &ticket));
    return ticket;
}

/* The place is kept while nobody waits for it, and between waits. */
static void test_ticket_keeps_its_place(void)
{
    uint32_t ids[] = {1, 2};
    weirpool_task *tasks[2];
    set_up(1);
    CHECK_OK(submit_now(0));
    weirpool_ticket *first = queue_task(&ids[0], &tasks[0]);
    CHECK_RC(weirpool_await(pool, first, WEIRPOOL_NOW), -EAGAIN);
    weirpool_ticket *second = queue_task(&ids[1], &tasks[1]);
    CHECK_EQ(stats().blocked_producers, 2);
    CHECK_RC(weirpool_await(pool, second, weirpool_deadline(1000000)), -ETIMEDOUT);
    CHECK_EQ(run_one(), 0);
    CHECK_OK(fetch(0, WEIRPOOL_NOW));
    CHECK_EQ(run_one(), 1); /* published although nobody waited */
    CHECK_OK(weirpool_await(pool, first, WEIRPOOL_NOW));
    CHECK_OK(fetch(0, WEIRPOOL_NOW));
    CHECK_OK(weirpool_await(pool, second, WEIRPOOL_FOREVER));
    CHECK_EQ(run_one(), 2);
    run_dry();
    tear_down();
}

static void test_ticket_is_given_up(void)
{
    uint32_t ids[] = {1, 2};
    weirpool_task *tasks[2];
    weirpool_ticket *bare;
    set_up(1);
    CHECK_OK(submit_now(0));
    weirpool_ticket *first = queue_task(&ids[0], &tasks[0]);
    weirpool_ticket *second = queue_task(&ids[1], &tasks[1]);
    CHECK_OK(weirpool_queue(pool, &(struct weirpool_request){.parts = NULL}, NULL, &bare));
    CHECK_OK(weirpool_leave(pool, first));
    CHECK_EQ(stats().blocked_producers, 2);
    CHECK_EQ(run_one(), 0);
    CHECK_OK(fetch(0, WEIRPOOL_NOW));
    CHECK_EQ(weirpool_leave(pool, second), 1); /* too late: it was submitted */
    CHECK_EQ(run_one(), 2);
    CHECK_OK(fetch(0, WEIRPOOL_NOW));
    CHECK_EQ(weirpool_leave(pool, bare), 1); /* too late: the permit is the caller's */
    CHECK_EQ(stats().outstanding, 1);
    weirpool_forgo(pool, 0);
    run_dry();
    CHECK_EQ(stats().submitted, 2);
    tear_down();
}

static void check_ticket_at_the_end(int (*end)(weirpool *), int reason)
{
    uint32_t ids[] = {1, 2};
    weirpool_task *tasks[2];
    weirpool_ticket *late;
    set_up(1);
    CHECK_OK(submit_now(0));
    weirpool_ticket *waits = queue_task(&ids[0], &tasks[0]);
    weirpool_ticket *leaves = queue_task(&ids[1], &tasks[1]);
    CHECK_OK(end(pool));
    CHECK_RC(weirpool_await(pool, waits, WEIRPOOL_FOREVER), reason);
    CHECK_RC(weirpool_leave(pool, leaves), reason);
    CHECK_RC(weirpool_queue(pool, &(struct weirpool_request){.parts = NULL}, NULL, &late), reason);
    CHECK_EQ(stats().blocked_producers, 0);
    tear_down();
}

static void test_ticket_of_a_closed_gate(void)
{
    check_ticket_at_the_end(weirpool_shutdown, -ESHUTDOWN);
    check_ticket_at_the_end(weirpool_break, -EPIPE);
}

static void test_ticket_for_too_much(void)
{
    static char bytes[LARGE];
    struct iovec part = {.iov_base = bytes, .iov_len = sizeof bytes};
    weirpool_ticket *ticket;
    weirpool_task *task;
    set_up(1);
    CHECK_RC(weirpool_queue(pool, &(struct weirpool_request){.parts = &part, .count = 1}, &task, &ticket), -EMSGSIZE);
    CHECK_EQ(stats().blocked_producers, 0);
    tear_down();
}

/* ---- permits ---- */

static void test_over_the_bound(void)
{
    set_up(2);
    CHECK_OK(submit_now(0));
    CHECK(weirpool_admit(pool, WEIRPOOL_OVER_BOUND, 0, WEIRPOOL_NOW) >= 0);
    CHECK_EQ(stats().admitted_over_bound, 0); /* there was room */
    CHECK(weirpool_admit(pool, WEIRPOOL_OVER_BOUND, 0, WEIRPOOL_NOW) >= 0);
    CHECK_EQ(stats().admitted_over_bound, 1);
    CHECK_EQ(stats().outstanding, 3);
    CHECK_EQ(stats().peak_outstanding, 3);
    check_pool(pool);

    uint32_t id = 1;
    struct iovec part = {.iov_base = &id, .iov_len = sizeof id};
    CHECK_OK(weirpool_publish(
        pool, &(struct weirpool_request){.parts = &part, .count = 1, .interest = WEIRPOOL_WATCHED}, NULL));
    CHECK_RC(submit_now(9), -EAGAIN);
    weirpool_forgo(pool, 0);
    CHECK_EQ(stats().outstanding, 2);
    CHECK_RC(submit_now(9), -EAGAIN);
    CHECK_EQ(run_one(), 0);
    CHECK_EQ(run_one(), 1);
    run_dry();
    tear_down();
}

static void test_forgo_lets_the_next_in(void)
{
    set_up(1);
    CHECK(weirpool_admit(pool, WEIRPOOL_IN_BOUND, 0, WEIRPOOL_NOW) >= 0);
    struct producer *p = start_producer(3, 100, WEIRPOOL_FOREVER);
    weirpool_forgo(pool, 0);
    join_producer(p, 0);
    CHECK_EQ(run_one(), 3);
    run_dry();
    tear_down();
}

/* A task with HOLDS keeps its permit after it was taken, until it was told. */
static void test_holds(void)
{
    set_up(1);
    CHECK(weirpool_admit(pool, WEIRPOOL_IN_BOUND, 0, WEIRPOOL_NOW) >= 0);
    uint32_t id = 0;
    struct iovec part = {.iov_base = &id, .iov_len = sizeof id};
    weirpool_task *task, *told;
    CHECK_OK(weirpool_publish(
        pool, &(struct weirpool_request){.parts = &part, .count = 1, .interest = WEIRPOOL_WATCHED | WEIRPOOL_HOLDS},
        &task));
    run_one();
    struct weirpool_event event;
    CHECK_EQ(weirpool_collect(pool, &told, 1, &event, WEIRPOOL_NOW), 1);
    CHECK(told == task);
    CHECK_EQ(weirpool_phase(pool, task), WEIRPOOL_TAKEN);
    CHECK_EQ(stats().outstanding, 1);
    check_pool(pool);
    CHECK_RC(submit_now(9), -EAGAIN);
    struct producer *p = start_producer(3, 100, WEIRPOOL_FOREVER);
    weirpool_told(pool, task);
    weirpool_told(pool, task); /* returns its permit once */
    weirpool_release(pool, task);
    join_producer(p, 0);
    CHECK_EQ(run_one(), 3);
    run_dry();
    tear_down();
}

/* A task that cannot be published gives its permit back. */
static void test_failed_publish(void)
{
    set_up(1);
    static char byte;
    struct iovec part = {.iov_base = &byte, .iov_len = (size_t)pool->arena.size + 1};
    CHECK(weirpool_admit(pool, WEIRPOOL_IN_BOUND, 0, WEIRPOOL_NOW) >= 0);
    CHECK_RC(weirpool_publish(
                 pool, &(struct weirpool_request){.parts = &part, .count = 1, .interest = WEIRPOOL_WATCHED}, NULL),
             -EMSGSIZE);
    CHECK_EQ(stats().outstanding, 0);
    check_pool(pool);
    CHECK_OK(submit_now(1));
    run_dry();
    tear_down();
}

/* ---- the helper: one of those who wait takes results for all ---- */

/* A producer is helper and gives up: another one has to take its place, or the results of the worker reach nobody. */
static void test_helper_times_out(void)
{
    for (int round = 0; round < SCALED(80); round++) {
        set_up(1);
        CHECK_OK(submit_now(0));
        struct producer *helper = launch_producer(1, 100, weirpool_deadline(2000000 + round * 20000));
        AWAIT(blocked(pool) == 1 || atomic_load(&helper->returned));
        struct producer *second = launch_producer(2, 100, WEIRPOOL_FOREVER);
        AWAIT(blocked(pool) == 2 || (blocked(pool) == 1 && atomic_load(&helper->returned)));
        struct producer *third = launch_producer(3, LARGE, WEIRPOOL_FOREVER);
        join_producer(helper, -ETIMEDOUT);
        AWAIT(blocked(pool) == 2);
        CHECK_EQ(run_one(), 0);
        join_producer(second, 0);
        CHECK_EQ(run_one(), 2);
        join_producer(third, 0);
        CHECK_EQ(run_one(), 3);
        run_dry();
        tear_down();
    }
}

/* One thread can be held up before or after it sleeps. */
enum { NOWHERE, BEFORE_SLEEP, AFTER_SLEEP };
static pthread_t slow_thread;
static _Atomic int hold_at;
static _Atomic int held_at;

static void hold(int here)
{
    if (atomic_load(&hold_at) == here && pthread_equal(pthread_self(), slow_thread)) {
        atomic_store(&held_at, here);
        AWAIT(atomic_load(&hold_at) != here);
        atomic_store(&held_at, NOWHERE);
    }
}

static void hold_before_sleep(void)
{
    hold(BEFORE_SLEEP);
}

static void hold_after_sleep(void)
{
    hold(AFTER_SLEEP);
}

static int count_sleepers(void)
{
    int n = 0;
    wp_lock(pool);
    for (struct wp_link *link = pool->sleepers.next; link != &pool->sleepers; link = link->next) {
        n++;
    }
    wp_unlock(pool);
    return n;
}

/*
 * The role is offered to a thread that has decided to sleep and does not sleep yet. Whoever leaves offers it twice, on
 * leaving the role and on leaving: two offers must not look like none.
 */
static void test_offer_is_not_missed(void)
{
    set_up(1);
    CHECK_OK(submit_now(0));
    struct producer *helper = start_producer(1, 100, WEIRPOOL_FOREVER);
    AWAIT(wp_load_seq_cst(&pool->segment.header->addressee) == WP_HELPER);
    struct producer *slow = start_producer(2, 100, WEIRPOOL_FOREVER);
    AWAIT(count_sleepers() == 2); /* it saw that there is a helper */
    slow_thread = slow->thread;
    atomic_store(&hold_at, AFTER_SLEEP);
    atomic_store(&before_futex_wait, hold_before_sleep);
    atomic_store(&after_futex_wait, hold_after_sleep);

    /* The offer wakes `slow`, but `fast` takes the role before. */
    interrupt(helper);
    AWAIT(atomic_load(&held_at) == AFTER_SLEEP);
    struct producer *fast = start_producer(3, 100, WEIRPOOL_FOREVER);
    AWAIT(wp_load_seq_cst(&pool->segment.header->addressee) == WP_HELPER);

    /* So `slow` is about to sleep again; that is when `fast` leaves. */
    atomic_store(&hold_at, BEFORE_SLEEP);
    AWAIT(atomic_load(&held_at) == BEFORE_SLEEP);
    interrupt(fast);
    atomic_store(&hold_at, NOWHERE);

    CHECK_EQ(run_one(), 0);
    join_producer(slow, 0);
    atomic_store(&before_futex_wait, NULL);
    atomic_store(&after_futex_wait, NULL);
    CHECK_EQ(run_one(), 2);
    run_dry();
    tear_down();
}

/* A thread that waits for a task serves those at the gate, and the other way round. */
static void *wait_for_task(void *task)
{
    CHECK_OK(weirpool_wait(pool, task, WEIRPOOL_FOREVER));
    return NULL;
}

static void test_waiters_and_producers_help_each_other(void)
{
    for (int round = 0; round < SCALED(80); round++) {
        set_up(2);
        weirpool_task *tasks[2];
        uint32_t ids[2] = {0, 1};
        pthread_t waiters[2];
        for (int i = 0; i < 2; i++) {
            CHECK_OK(weirpool_submit(pool, &ids[i], sizeof ids[i], NULL, WEIRPOOL_NOW, &tasks[i]));
        }
        struct producer *first = NULL;
        if (round % 2 == 0) {
            first = start_producer(2, 100, WEIRPOOL_FOREVER);
        }
        for (int i = 0; i < 2; i++) {
            CHECK_OK(pthread_create(&waiters[i], NULL, wait_for_task, tasks[i]));
        }
        if (round % 2 == 1) {
            first = start_producer(2, 100, WEIRPOOL_FOREVER);
        }
        struct producer *second = start_producer(3, LARGE, WEIRPOOL_FOREVER);
        CHECK_EQ(run_one(), 0);
        join_producer(first, 0);
        pthread_join(waiters[0], NULL);
        CHECK_EQ(run_one(), 1);
        pthread_join(waiters[1], NULL);
        join_producer(second, 0);
        CHECK_EQ(run_one(), 2);
        CHECK_EQ(run_one(), 3);
        run_dry();
        tear_down();
    }
}

/* ---- everything at once ---- */

/* Submits until the pool shuts down; now and then with a deadline that passes, or a signal. */
static _Atomic uint64_t accepted;

static void *submit_at_random(void *argument)
{
    struct producer *me = argument;
    struct dice dice = new_dice(me->id);
    unsigned char *bytes = calloc(1, LARGE);
    CHECK(bytes != NULL);
    for (;;) {
        size_t size = roll(&dice, 8) == 0 ? LARGE : sizeof(uint32_t) + roll(&dice, 1000);
        int64_t deadline = roll(&dice, 3) == 0 ? weirpool_deadline((int64_t)roll(&dice, 300000)) : WEIRPOOL_FOREVER;
        int rc = weirpool_submit(pool, bytes, size, NULL, deadline, NULL);
        atomic_fetch_add(&accepted, rc == 0);
        if (rc == -ESHUTDOWN) {
            break;
        }
        CHECK(rc == 0 || rc == -ETIMEDOUT || rc == -EINTR || (rc == -EAGAIN && deadline <= wp_os_now()));
    }
    free(bytes);
    return NULL;
}

static void *fetch_all(void *count)
{
    int rc;
    while ((rc = fetch(0, WEIRPOOL_FOREVER)) == 0 || rc == -EINTR) {
        *(uint64_t *)count += rc == 0;
    }
    CHECK_RC(rc, -ESHUTDOWN);
    return NULL;
}

static void *work(void *unused)
{
    int rc;
    do {
        struct weirpool_claimed claimed;
        rc = weirpool_claim(hand.worker, &claimed, WEIRPOOL_FOREVER);
        if (rc == 0) {
            hand_finish(&hand, "", 0);
        }
    } while (rc == 0 || rc == -EINTR);
    CHECK_RC(rc, -ESHUTDOWN);
    return unused;
}

static void test_storm(void)
{
    enum { COUNT = 16 };
    struct dice dice = new_dice(99);
    pthread_t worker, fetcher;
    uint64_t fetched = 0;
    atomic_store(&accepted, 0);
    set_up(4);
    CHECK_OK(pthread_create(&worker, NULL, work, NULL));
    CHECK_OK(pthread_create(&fetcher, NULL, fetch_all, &fetched));
    for (uint32_t i = 0; i < COUNT; i++) {
        producers[i] = (struct producer){.id = i};
        CHECK_OK(pthread_create(&producers[i].thread, NULL, submit_at_random, &producers[i]));
    }
    uint64_t goal = SCALED(30000);
    AWAIT((pthread_kill(producers[roll(&dice, COUNT)].thread, SIGUSR1), check_pool(pool),
           atomic_load(&accepted) >= goal));
    CHECK_OK(weirpool_shutdown(pool));
    for (uint32_t i = 0; i < COUNT; i++) {
        pthread_join(producers[i].thread, NULL);
    }
    pthread_join(fetcher, NULL);
    pthread_join(worker, NULL);
    CHECK_EQ(fetched, atomic_load(&accepted));
    CHECK_EQ(stats().submitted, fetched);
    CHECK_EQ(stats().finished, fetched);
    CHECK_EQ(stats().outstanding, 0);
    CHECK_EQ(stats().peak_outstanding, 4);
    printf("    %" PRIu64 " tasks, producers waited for %" PRIu64 " ms together\n", fetched,
           stats().blocked_ns / 1000000);
    tear_down();
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    heed_signals();
    RUN(test_bookkeeping);
    RUN(test_unstarted_are_bounded);
    RUN(test_bytes_are_bounded);
    RUN(test_heavy_is_not_overtaken_for_ever);
    RUN(test_no_bound);
    RUN(test_bound_and_try);
    RUN(test_cancel_makes_room);
    RUN(test_deadline);
    RUN(test_first_come_first_served);
    RUN(test_a_start_lets_the_next_in);
    RUN(test_cancelling_makes_room_for_starts);
    RUN(test_bytes_return_with_their_task);
    RUN(test_weighing_with_a_permit);
    RUN(test_a_lighter_task_than_was_said_lets_the_next_in);
    RUN(test_a_heavier_task_than_was_said_is_counted);
    RUN(test_nobody_asked_for_starts);
    RUN(test_closing_wakes_who_waits_for_bytes);
    RUN(test_a_bell_rings_at_the_turn_and_at_the_end);
    RUN(test_workers_need_not_wait_for_producers);
    RUN(test_interrupted);
    RUN(test_shutdown_wakes_everybody);
    RUN(test_break_wakes_everybody);
    RUN(test_ticket_keeps_its_place);
    RUN(test_ticket_is_given_up);
    RUN(test_ticket_of_a_closed_gate);
    RUN(test_ticket_for_too_much);
    RUN(test_over_the_bound);
    RUN(test_forgo_lets_the_next_in);
    RUN(test_holds);
    RUN(test_failed_publish);
    RUN(test_helper_times_out);
    RUN(test_offer_is_not_missed);
    RUN(test_waiters_and_producers_help_each_other);
    RUN(test_storm);
    return check_end();
}
