/* The weir: who gets in, in which order, and how a wait for it ends. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>

#include "gate_rig.h"

/* ---- the bookkeeping alone ---- */

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
    RUN(test_no_bound);
    RUN(test_bound_and_try);
    RUN(test_cancel_makes_room);
    RUN(test_deadline);
    RUN(test_first_come_first_served);
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
