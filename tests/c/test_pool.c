/* The pool as a whole: opening, sizes of payloads and results, cancelling, shutting down, closing, and misuse. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>

#include "pool_rig.h"

/* ---- opening ---- */

static void refuse(struct weirpool_options options)
{
    weirpool *pool;
    CHECK_RC(weirpool_open(&pool, &options), -EINVAL);
}

static void test_options(void)
{
    weirpool *pool;
    struct weirpool_options good = {.size = sizeof good, .workers = 1};
    struct weirpool_options bad = good;
    CHECK_RC(weirpool_open(&pool, NULL), -EINVAL);
    bad.size = 0;
    refuse(bad);
    bad.size = offsetof(struct weirpool_options, program);
    refuse(bad);
    bad = good;
    bad.workers = WEIRPOOL_MAX_WORKERS + 1;
    refuse(bad);
    bad = good;
    bad.handler = obey;
    bad.program = (char *[]){"true", NULL};
    refuse(bad);

    /* A caller that was compiled before the last field was there. */
    good.size = offsetof(struct weirpool_options, arena_bytes);
    good.arena_bytes = 1;
    CHECK_OK(weirpool_open(&pool, &good));
    CHECK(pool->arena.size > MIB);
    CHECK_OK(weirpool_close(pool));

    good.workers = 0;
    CHECK_OK(weirpool_open(&pool, &good));
    CHECK_EQ(pool->segment.workers, wp_os_cores());
    CHECK_OK(weirpool_close(pool));
}

static void test_open_and_close(void)
{
    FOR_EACH_KIND(kind)
    {
        set_up(kind, 3, 0, 0);
        CHECK_EQ(stats().workers, 3);
        tear_down();
    }
}

/* ---- sizes ---- */

static void exchange(size_t payload_size, size_t result_size)
{
    static uint64_t id;
    struct order o = {.id = ++id, .result_size = result_size};
    struct weirpool_completion completion;
    CHECK_OK(give(rig.pool, &o, payload_size, WEIRPOOL_FOREVER, NULL));
    CHECK_OK(next(rig.pool, &completion));
    check_answer(&completion, result_size);
    weirpool_release(rig.pool, completion.task);
}

/* Too short for an order: comes back as it is. */
static void exchange_tiny(size_t size)
{
    struct weirpool_completion completion;
    CHECK_OK(weirpool_submit(rig.pool, "?", size, NULL, WEIRPOOL_FOREVER, NULL));
    CHECK_OK(next(rig.pool, &completion));
    CHECK_OK(completion.error);
    CHECK_EQ(completion.status, size);
    CHECK_EQ(completion.result_size, size);
    CHECK(size == 0 || memcmp(completion.result, "?", 1) == 0);
    weirpool_release(rig.pool, completion.task);
}

static void exchange_all_sizes(void)
{
    static const size_t payloads[] = {sizeof(struct order),
                                      WP_INLINE_PAYLOAD - 1,
                                      WP_INLINE_PAYLOAD,
                                      WP_INLINE_PAYLOAD + 1,
                                      4095,
                                      4096,
                                      4097,
                                      WEIRPOOL_PARK_LIMIT,
                                      WEIRPOOL_PARK_LIMIT + 1,
                                      MIB};
    static const size_t results[] = {0,
                                     1,
                                     WP_INLINE_RESULT - 1,
                                     WP_INLINE_RESULT,
                                     WP_INLINE_RESULT + 1,
                                     4096,
                                     WP_STREAM_BYTES - 16,
                                     WP_STREAM_BYTES - 15,
                                     WP_STREAM_BYTES,
                                     MIB + 1};
    exchange_tiny(0);
    exchange_tiny(1);
    for (size_t i = 0; i < sizeof payloads / sizeof *payloads; i++) {
        for (size_t j = 0; j < sizeof results / sizeof *results; j++) {
            if (i == 0 || j == 0 || i == j) {
                exchange(payloads[i], results[j]);
            }
        }
    }
    const size_t huge = (UNDER_ASAN || UNDER_TSAN ? 10 : 40) * MIB;
    exchange(huge, 1);
    exchange(sizeof(struct order), huge);
    exchange(sizeof(struct order), 1);
    CHECK_EQ(outstanding(rig.pool), 0);
    CHECK_EQ(rig.pool->arena.used, 0);
}

static void test_sizes(void)
{
    FOR_EACH_KIND(kind)
    {
        set_up(kind, 2, 4, 0);
        exchange_all_sizes();
        tear_down();
    }
}

/* Workers that are another program; this one, started with "serve". */
static void test_program(void)
{
    char *program[] = {"/proc/self/exe", "serve", NULL};
    struct weirpool_options options = {.size = sizeof options, .workers = 2, .bound = 4, .program = program};
    CHECK_OK(weirpool_open(&rig.pool, &options));
    exchange_all_sizes();
    check_pool(rig.pool);
    CHECK_OK(weirpool_close(rig.pool));
    CHECK_RC(weirpool_serve(obey, NULL), -EINVAL); /* nobody started us for a pool */
}

static void test_program_that_is_not_there(void)
{
    char *program[] = {"/nonexistent/weirpool", NULL};
    struct weirpool_options options = {.size = sizeof options, .workers = 2, .bound = 4, .program = program};
    struct weirpool_completion none;
    weirpool *pool;
    CHECK_OK(weirpool_open(&pool, &options));
    CHECK_RC(next(pool, &none), -EPIPE);
    CHECK_RC(weirpool_submit(pool, "", 0, NULL, WEIRPOOL_FOREVER, NULL), -EPIPE);
    check_pool(pool);
    CHECK_OK(weirpool_close(pool));
}

/* ---- handlers ---- */

static int careless(const void *payload, size_t size, weirpool_reply *reply, void *context)
{
    (void)payload;
    (void)context;
    if (size == 0) {
        return -7; /* no answer is an empty answer */
    }
    CHECK_OK(weirpool_answer(reply, "first", 5));
    return weirpool_answer(reply, "second", 6);
}

static void test_answers(void)
{
    struct weirpool_options options = {.workers = 1};
    struct weirpool_completion completion;
    FOR_EACH_KIND(kind)
    {
        rig_open(&rig, kind, &options, careless, NULL);
        CHECK_OK(weirpool_submit(rig.pool, "", 0, &options, WEIRPOOL_NOW, NULL));
        CHECK_OK(next(rig.pool, &completion));
        CHECK_OK(completion.error);
        CHECK_EQ(completion.status, -7);
        CHECK_EQ(completion.result_size, 0);
        CHECK(completion.user == &options);
        weirpool_release(rig.pool, completion.task);

        CHECK_OK(weirpool_submit(rig.pool, "x", 1, NULL, WEIRPOOL_NOW, NULL));
        CHECK_OK(next(rig.pool, &completion));
        CHECK_EQ(completion.status, -EALREADY);
        CHECK_EQ(completion.result_size, 5);
        CHECK(memcmp(completion.result, "first", 5) == 0);
        weirpool_release(rig.pool, completion.task);
        rig_close(&rig);
    }
}

/* ---- cancelling ---- */

/* Starts a task that holds its worker, and waits until it runs. */
static void occupy_worker(uint64_t id)
{
    uint32_t before = atomic_load(&board->held);
    atomic_store(&board->hold, true);
    order(rig.pool, HOLD, id);
    AWAIT(atomic_load(&board->held) == before + 1);
}

static void test_cancel(void)
{
    FOR_EACH_KIND(kind)
    {
        weirpool_task *tasks[3];
        set_up(kind, 1, 0, 0);
        occupy_worker(1);
        for (uint64_t i = 0; i < 3; i++) {
            struct order o = {.id = 2 + i};
            CHECK_OK(give(rig.pool, &o, sizeof o, WEIRPOOL_NOW, &tasks[i]));
        }
        CHECK_EQ(weirpool_phase(rig.pool, tasks[1]), WEIRPOOL_WAITING);
        CHECK_OK(weirpool_cancel(rig.pool, tasks[1]));
        CHECK_EQ(weirpool_phase(rig.pool, tasks[1]), WEIRPOOL_TAKEN);
        CHECK_RC(weirpool_cancel(rig.pool, tasks[1]), -EBUSY);
        expect(rig.pool, 3, -ECANCELED);
        atomic_store(&board->hold, false);
        expect(rig.pool, 1, 0);
        expect(rig.pool, 2, 0);
        expect(rig.pool, 4, 0);
        CHECK_EQ(atomic_load(&board->runs[3]), 0);
        CHECK_EQ(stats().submitted, 4);
        CHECK_EQ(stats().finished, 4);
        tear_down();
    }
}

static void test_cancel_what_runs(void)
{
    FOR_EACH_KIND(kind)
    {
        weirpool_task *task;
        struct order o = {.id = 5, .verb = HOLD};
        set_up(kind, 1, 0, 0);
        atomic_store(&board->hold, true);
        CHECK_OK(give(rig.pool, &o, sizeof o, WEIRPOOL_NOW, &task));
        AWAIT(atomic_load(&board->held) == 1);
        CHECK_EQ(weirpool_phase(rig.pool, task), WEIRPOOL_RUNNING);
        CHECK_RC(weirpool_cancel(rig.pool, task), -EBUSY);
        atomic_store(&board->hold, false);
        expect(rig.pool, 5, 0);
        tear_down();
    }
}

/* The caller of weirpool_withdraw() tells the task itself: it is in no batch. */
static void test_withdraw(void)
{
    struct weirpool_completion none;
    weirpool_task *task;
    struct order o = {.id = 1};
    set_up(THREADS, 0, 0, 0);
    CHECK_OK(give(rig.pool, &o, sizeof o, WEIRPOOL_NOW, &task));
    CHECK_OK(weirpool_withdraw(rig.pool, task));
    CHECK_RC(weirpool_withdraw(rig.pool, task), -EBUSY);
    CHECK_RC(weirpool_next(rig.pool, &none, WEIRPOOL_NOW), -EAGAIN);
    CHECK_EQ(outstanding(rig.pool), 0);
    weirpool_release(rig.pool, task);
    tear_down();
}

static void test_cancel_waiting(void)
{
    weirpool_task *second;
    set_up(THREADS, 0, 0, 0); /* as many workers as cores, of which none is started */
    uint64_t slots = rig.pool->segment.slots;
    order(rig.pool, ANSWER, 0);
    struct order o = {.id = 1};
    CHECK_OK(give(rig.pool, &o, sizeof o, WEIRPOOL_NOW, &second));
    for (uint64_t id = 2; id < slots; id++) {
        order(rig.pool, ANSWER, id);
    }
    /* One more than fits: it goes once around the table, past the first, which still waits in its slot. */
    CHECK_OK(weirpool_cancel(rig.pool, second));
    for (uint64_t id = slots; id < slots + 10; id++) {
        order(rig.pool, ANSWER, id);
    }
    CHECK_OK(weirpool_cancel_waiting(rig.pool, 0));
    CHECK_EQ(outstanding(rig.pool), 0);
    for (uint64_t i = 0; i < slots + 10; i++) {
        struct weirpool_completion completion;
        CHECK_OK(weirpool_next(rig.pool, &completion, WEIRPOOL_NOW));
        CHECK_RC(completion.error, -ECANCELED);
        weirpool_release(rig.pool, completion.task);
    }
    tear_down();
}

static void test_cancel_waiting_spares_the_oldest(void)
{
    struct hand hand;
    set_up(THREADS, 0, 0, 0);
    hand_open(&hand, rig.pool);
    uint64_t count = rig.pool->segment.slots + 20; /* some of them in the overflow */
    for (uint64_t id = 0; id < count; id++) {
        order(rig.pool, ANSWER, id);
    }
    CHECK_OK(weirpool_cancel_waiting(rig.pool, 3));
    CHECK_EQ(outstanding(rig.pool), 3);
    for (uint64_t id = 0; id < 3; id++) {
        struct order o;
        struct weirpool_claimed claimed = hand_claim(&hand);
        memcpy(&o, claimed.payload, sizeof o);
        CHECK_EQ(o.id, id);
        if (id < 2) {
            hand_finish(&hand, "", 0);
        }
    }
    order(rig.pool, ANSWER, count);
    CHECK_OK(weirpool_cancel_waiting(rig.pool, 3)); /* something has started: spares none */
    hand_finish(&hand, "", 0);
    for (uint64_t i = 0; i <= count; i++) {
        struct weirpool_completion completion;
        CHECK_OK(weirpool_next(rig.pool, &completion, WEIRPOOL_NOW));
        CHECK_RC(completion.error, (uintptr_t)completion.user < 3 ? 0 : -ECANCELED);
        weirpool_release(rig.pool, completion.task);
    }
    CHECK_EQ(outstanding(rig.pool), 0);
    hand_close(&hand);
    tear_down();
}

/* ---- shutting down and closing ---- */

static void test_shutdown(void)
{
    FOR_EACH_KIND(kind)
    {
        struct weirpool_completion none;
        struct order late = {.id = 99};
        set_up(kind, 2, 0, 0);
        occupy_worker(1);
        for (uint64_t id = 2; id < 40; id++) {
            order(rig.pool, ANSWER, id);
        }
        CHECK_OK(weirpool_shutdown(rig.pool));
        CHECK_OK(weirpool_shutdown(rig.pool));
        CHECK_RC(give(rig.pool, &late, sizeof late, WEIRPOOL_FOREVER, NULL), -ESHUTDOWN);
        atomic_store(&board->hold, false);
        for (uint64_t n = 1; n < 40; n++) {
            struct weirpool_completion completion;
            CHECK_OK(next(rig.pool, &completion));
            CHECK_OK(completion.error);
            weirpool_release(rig.pool, completion.task);
        }
        CHECK_RC(next(rig.pool, &none), -ESHUTDOWN);
        CHECK_RC(weirpool_next(rig.pool, &none, WEIRPOOL_NOW), -ESHUTDOWN);
        tear_down();
    }
}

static void test_shutdown_of_an_idle_pool(void)
{
    FOR_EACH_KIND(kind)
    {
        struct weirpool_completion none;
        set_up(kind, 2, 3, 0);
        CHECK_OK(weirpool_shutdown(rig.pool));
        CHECK_RC(next(rig.pool, &none), -ESHUTDOWN);
        tear_down();
    }
}

/* The workers leave as planned, each is an event, and then there is none. */
static void test_workers_leave_after_shutdown(void)
{
    FOR_EACH_KIND(kind)
    {
        struct weirpool_event event;
        weirpool_task *task;
        uint32_t left = 0, drained = 0;
        set_up(kind, 3, 0, 0);
        CHECK_OK(weirpool_shutdown(rig.pool));
        while (left < 3) {
            CHECK_EQ(weirpool_collect(rig.pool, &task, 1, &event, weirpool_deadline(PATIENCE_NS)), 0);
            left += event.kind == WEIRPOOL_WORKER_LEFT;
            drained += event.kind == WEIRPOOL_DRAINED;
            CHECK(event.kind == WEIRPOOL_WORKER_LEFT || event.kind == WEIRPOOL_DRAINED ||
                  event.kind == WEIRPOOL_NOTHING);
        }
        CHECK_EQ(drained, 1);
        CHECK_RC(weirpool_collect(rig.pool, &task, 1, &event, weirpool_deadline(1000000)), -ETIMEDOUT);
        CHECK_EQ(stats().workers, 0);
        CHECK_RC(weirpool_worker_reserve(rig.pool, &left), -ESHUTDOWN);
        tear_down();
    }
}

/* A worker in a task that never ends is killed; the rest is dropped. Nothing leaks, also of what nobody fetched. */
static void test_close_in_the_middle(void)
{
    struct order large = {.id = 3, .result_size = 3 * MIB};
    set_up(FORKED, 2, 0, 0);
    order(rig.pool, ANSWER, 2);
    CHECK_OK(give(rig.pool, &large, MIB, WEIRPOOL_NOW, NULL));
    occupy_worker(1);
    for (uint64_t id = 4; id < 1000; id++) {
        order(rig.pool, ANSWER, id);
    }
    AWAIT(atomic_load(&board->runs[3]) == 1);
    check_pool(rig.pool);
    CHECK_OK(weirpool_close(rig.pool));
    board_free(board);
}

static void test_close_with_unread_results(void)
{
    FOR_EACH_KIND(kind)
    {
        struct weirpool_completion first;
        set_up(kind, 2, 0, 0);
        for (uint64_t id = 0; id < 100; id++) {
            order(rig.pool, ANSWER, id);
        }
        CHECK_OK(next(rig.pool, &first));
        weirpool_release(rig.pool, first.task);
        AWAIT(atomic_load(&board->runs[99]) == 1);
        tear_down();
    }
}

/* ---- waiting for completions ---- */

static void test_next_deadlines(void)
{
    struct weirpool_completion none;
    set_up(THREADS, 1, 0, 0);
    CHECK_RC(weirpool_next(rig.pool, &none, WEIRPOOL_NOW), -EAGAIN);
    CHECK_RC(weirpool_next(rig.pool, &none, -5), -EAGAIN);
    CHECK_RC(weirpool_next(rig.pool, &none, 1), -ETIMEDOUT);
    int64_t deadline = weirpool_deadline(5000000);
    CHECK_RC(weirpool_next(rig.pool, &none, deadline), -ETIMEDOUT);
    CHECK(weirpool_deadline(0) >= deadline);
    tear_down();
}

static _Atomic int nexter_rc;

static void *next_once(void *unused)
{
    struct weirpool_completion completion;
    atomic_store(&nexter_rc, weirpool_next(rig.pool, &completion, WEIRPOOL_FOREVER));
    if (nexter_rc == 0) {
        weirpool_release(rig.pool, completion.task);
    }
    return unused;
}

static pthread_t start_nexter(void)
{
    pthread_t thread;
    atomic_store(&nexter_rc, 1);
    CHECK_OK(pthread_create(&thread, NULL, next_once, NULL));
    AWAIT(wp_load_seq_cst(&rig.pool->segment.header->addressee) == WP_COLLECTOR);
    return thread;
}

static void test_one_thread_at_a_time(void)
{
    struct weirpool_completion none;
    set_up(THREADS, 1, 0, 0);
    pthread_t thread = start_nexter();
    CHECK_RC(weirpool_next(rig.pool, &none, WEIRPOOL_NOW), -EBUSY);
    CHECK_RC(weirpool_next(rig.pool, &none, WEIRPOOL_FOREVER), -EBUSY);
    order(rig.pool, ANSWER, 1);
    pthread_join(thread, NULL);
    CHECK_OK(nexter_rc);
    CHECK_RC(weirpool_next(rig.pool, &none, WEIRPOOL_NOW), -EAGAIN);
    tear_down();
}

static void ignore_signal(int signal)
{
    (void)signal;
}

static void test_next_interrupted(void)
{
    struct sigaction action = {.sa_handler = ignore_signal};
    sigaction(SIGUSR1, &action, NULL);
    set_up(THREADS, 1, 0, 0);
    pthread_t thread = start_nexter();
    AWAIT((pthread_kill(thread, SIGUSR1), atomic_load(&nexter_rc) != 1));
    pthread_join(thread, NULL);
    CHECK_RC(nexter_rc, -EINTR);
    order(rig.pool, ANSWER, 1);
    expect(rig.pool, 1, 0);
    tear_down();
}

static bool is_readable(int milliseconds)
{
    struct pollfd p = {.fd = weirpool_fd(rig.pool), .events = POLLIN};
    int n = poll(&p, 1, milliseconds);
    CHECK(n >= 0 || errno == EINTR);
    return n > 0;
}

/* An event loop as weirpool_fd() describes it: until -EAGAIN, then wait. No ring may be missing. */
static void test_descriptor(void)
{
    FOR_EACH_KIND(kind)
    {
        struct weirpool_completion completion;
        struct dice dice = new_dice(3);
        uint64_t fetched = 0, given = 0;
        const uint64_t total = SCALED(4000);
        set_up(kind, 2, 0, 0);
        while (fetched < total) {
            for (uint64_t burst = roll(&dice, 4); burst > 0 && given < total; burst--) {
                order(rig.pool, ANSWER, given++);
            }
            int rc;
            while ((rc = weirpool_next(rig.pool, &completion, WEIRPOOL_NOW)) == 0) {
                check_answer(&completion, (uintptr_t)completion.user % 300);
                weirpool_release(rig.pool, completion.task);
                fetched++;
            }
            CHECK_RC(rc, -EAGAIN);
            if (given > fetched) {
                CHECK(is_readable(60000));
            }
        }
        CHECK(!is_readable(0) || weirpool_next(rig.pool, &completion, WEIRPOOL_NOW) == -EAGAIN);
        tear_down();
    }
}

/* ---- a thread that helps must not take from the collector what is the collector's ---- */

static void *wait_for_task(void *task)
{
    CHECK_OK(weirpool_wait(rig.pool, task, WEIRPOOL_FOREVER));
    return NULL;
}

/* A task is finished and the descriptor readable; the helper, which looks around once a second, leaves it readable. */
static void test_descriptor_stays_readable_while_a_helper_looks(void)
{
    struct weirpool_completion none;
    struct order o = {.id = 1, .verb = HOLD};
    weirpool_task *held;
    pthread_t helper;
    set_up(THREADS, 2, 0, 0);
    atomic_store(&board->hold, true);
    CHECK_OK(give(rig.pool, &o, sizeof o, WEIRPOOL_NOW, &held));
    CHECK_RC(weirpool_next(rig.pool, &none, WEIRPOOL_NOW), -EAGAIN);
    CHECK_OK(pthread_create(&helper, NULL, wait_for_task, held));
    AWAIT(wp_load_seq_cst(&rig.pool->segment.header->addressee) == WP_HELPER);
    order(rig.pool, ANSWER, 2);
    AWAIT(is_readable(0));
    for (int64_t enough = check_now() + INT64_C(1500000000); check_now() < enough;) {
        CHECK(is_readable(0));
        check_nap();
    }
    expect(rig.pool, 2, 0);
    atomic_store(&board->hold, false);
    pthread_join(helper, NULL);
    expect(rig.pool, 1, 0);
    tear_down();
}

/* While one thread breaks the pool and waits for another to be done with a stream, nobody says "all was fetched". */
static void *break_pool(void *unused)
{
    wp_lock(rig.pool);
    wp_break(rig.pool, WP_NO_WORKER, WEIRPOOL_FAULT_CORRUPT);
    wp_unlock(rig.pool);
    return unused;
}

static void set_draining(bool draining)
{
    wp_lock(rig.pool);
    rig.pool->members[0].draining = draining;
    wp_unlock(rig.pool);
}

static bool is_broken(void)
{
    wp_lock(rig.pool);
    bool broken = rig.pool->course == WP_BROKEN;
    wp_unlock(rig.pool);
    return broken;
}

static void test_completions_of_a_breaking_pool(void)
{
    struct weirpool_completion none;
    pthread_t breaker;
    set_up(THREADS, 0, 0, 0);
    order(rig.pool, ANSWER, 1);
    set_draining(true);
    CHECK_OK(pthread_create(&breaker, NULL, break_pool, NULL));
    AWAIT(is_broken());
    CHECK_RC(weirpool_next(rig.pool, &none, WEIRPOOL_NOW), -EAGAIN);
    set_draining(false);
    expect(rig.pool, 1, -EPIPE);
    CHECK_RC(next(rig.pool, &none), -EPIPE);
    pthread_join(breaker, NULL);
    tear_down();
}

/* ---- a forked child ---- */

static weirpool_task *parents_task;

static void use_in_child(void)
{
    struct weirpool_completion completion;
    struct weirpool_stats now;
    struct weirpool_event event;
    struct iovec part = {.iov_base = "x", .iov_len = 1};
    weirpool_ticket *ticket;
    weirpool_task *task;
    weirpool *pool = rig.pool;
    uint32_t worker;
    CHECK_RC(weirpool_submit(pool, "x", 1, NULL, WEIRPOOL_FOREVER, NULL), -ECHILD);
    CHECK_RC(weirpool_next(pool, &completion, WEIRPOOL_FOREVER), -ECHILD);
    CHECK_RC(weirpool_cancel(pool, parents_task), -ECHILD);
    CHECK_RC(weirpool_stats(pool, &now), -ECHILD);
    CHECK_RC(weirpool_shutdown(pool), -ECHILD);
    CHECK_RC(weirpool_admit(pool, WEIRPOOL_OVER_BOUND, 0, WEIRPOOL_NOW), -ECHILD);
    CHECK_RC(weirpool_publish(pool, &(struct weirpool_request){.parts = &part, .count = 1}, &task), -ECHILD);
    CHECK_RC(weirpool_queue(pool, &(struct weirpool_request){.parts = &part, .count = 1}, &task, &ticket), -ECHILD);
    CHECK_RC(weirpool_wait(pool, parents_task, WEIRPOOL_FOREVER), -ECHILD);
    CHECK_RC(weirpool_withdraw(pool, parents_task), -ECHILD);
    CHECK_RC(weirpool_collect(pool, &task, 1, &event, WEIRPOOL_FOREVER), -ECHILD);
    CHECK_RC(weirpool_cancel_waiting(pool, 0), -ECHILD);
    CHECK_RC(weirpool_break(pool), -ECHILD);
    CHECK_RC(weirpool_check(pool, NULL, 0), -ECHILD);
    CHECK_RC(weirpool_worker_reserve(pool, &worker), -ECHILD);
    CHECK_RC(weirpool_worker_watch(pool, 0, 0, 1), -ECHILD);
    CHECK_RC(weirpool_worker_revoke(pool, 0), -ECHILD);
    (void)weirpool_worker_badge(pool, 0);
    CHECK_EQ(weirpool_sweep(pool, &task, 1), 0);
    weirpool_forgo(pool, 0);
    weirpool_told(pool, parents_task);
    weirpool_worker_abandon(pool, 0);
    CHECK_RC(weirpool_close(pool), -ECHILD);
}

static void test_forked_child(void)
{
    struct order o = {.id = 7};
    FOR_EACH_KIND(kind)
    {
        set_up(kind, 1, 0, 0);
        occupy_worker(1);
        CHECK_OK(give(rig.pool, &o, sizeof o, WEIRPOOL_NOW, &parents_task));
        check_in_child(use_in_child);
        atomic_store(&board->hold, false);
        expect(rig.pool, 1, 0); /* the parent's pool is as it was */
        expect(rig.pool, 7, 0);
        tear_down();
    }
}

/* A handler that forks: the child must not claim in its parent's name. */
static void test_worker_in_a_forked_child(void)
{
    struct hand hand;
    set_up(THREADS, 0, 0, 0);
    hand_open(&hand, rig.pool);
    fflush(NULL);
    pid_t pid = fork();
    CHECK_SYS(pid);
    if (pid == 0) {
        struct weirpool_claimed claimed;
        CHECK_RC(weirpool_claim(hand.worker, &claimed, WEIRPOOL_NOW), -ECHILD);
        CHECK_RC(weirpool_finish(hand.worker, 0, NULL, 0), -ECHILD);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    hand_close(&hand);
    tear_down();
}

/* Who holds back leaves tasks to others, and learns of the pool's end nevertheless. */
static void test_worker_that_holds_back(void)
{
    struct hand hand;
    set_up(THREADS, 0, 0, 0);
    hand_open(&hand, rig.pool);
    order(rig.pool, ANSWER, 1);
    order(rig.pool, ANSWER, 2);
    hand_claim(&hand);
    CHECK_OK(weirpool_finish(hand.worker, 0, NULL, 0));
    int64_t until = weirpool_deadline(20 * 1000 * 1000);
    weirpool_hold_back(hand.worker, until);
    CHECK(wp_os_now() >= until);
    hand_claim(&hand);
    CHECK((int64_t)wp_load_relaxed(&rig.pool->segment.slot[1].started) >= until); /* no part of the next task's time */
    CHECK_OK(weirpool_break(rig.pool));
    weirpool_hold_back(hand.worker, WEIRPOOL_FOREVER);
    hand_die(&hand);
    hand_close(&hand);
    tear_down();
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "serve") == 0) {
        return weirpool_serve(obey, NULL) == 0 ? 0 : 1;
    }
    check_start(argc, argv);
    RUN(test_options);
    RUN(test_open_and_close);
    RUN(test_sizes);
    RUN_UNLESS_TSAN(test_program);
    RUN_UNLESS_TSAN(test_program_that_is_not_there);
    RUN(test_answers);
    RUN(test_cancel);
    RUN(test_cancel_what_runs);
    RUN(test_withdraw);
    RUN(test_cancel_waiting);
    RUN(test_cancel_waiting_spares_the_oldest);
    RUN(test_shutdown);
    RUN(test_shutdown_of_an_idle_pool);
    RUN(test_workers_leave_after_shutdown);
    RUN_UNLESS_TSAN(test_close_in_the_middle);
    RUN(test_close_with_unread_results);
    RUN(test_next_deadlines);
    RUN(test_one_thread_at_a_time);
    RUN(test_next_interrupted);
    RUN(test_descriptor);
    RUN(test_descriptor_stays_readable_while_a_helper_looks);
    RUN(test_completions_of_a_breaking_pool);
    RUN_UNLESS_TSAN(test_forked_child);
    RUN_UNLESS_TSAN(test_worker_in_a_forked_child);
    RUN(test_worker_that_holds_back);
    return check_end();
}
