/* Death: of workers, at every step of a task, and of the parent. Nothing hangs, and each task ends exactly once. */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

#include "pool_rig.h"

/* Room for workers that the test itself opens. */
static void set_up_by_hand(uint32_t workers)
{
    struct weirpool_options options = {.size = sizeof options, .workers = workers};
    board = board_new();
    rig = (struct rig){.kind = THREADS};
    CHECK_OK(weirpool_open(&rig.pool, &options));
}

/* The pool is broken, and says so in every way. */
static void check_broken(void)
{
    struct weirpool_completion none;
    CHECK_RC(next(rig.pool, &none), -EPIPE);
    CHECK_RC(weirpool_next(rig.pool, &none, WEIRPOOL_NOW), -EPIPE);
    CHECK_RC(weirpool_submit(rig.pool, "x", 1, NULL, WEIRPOOL_NOW, NULL), -EPIPE);
    CHECK_RC(weirpool_submit(rig.pool, "x", 1, NULL, WEIRPOOL_FOREVER, NULL), -EPIPE);
    CHECK_EQ(outstanding(rig.pool), 0);
    CHECK_EQ(blocked(rig.pool), 0);
    check_pool(rig.pool);
}

static int pid_of(uint32_t worker)
{
    wp_lock(rig.pool);
    int pid = rig.pool->members[worker].pid;
    wp_unlock(rig.pool);
    return pid;
}

static void kill_worker(uint32_t worker)
{
    CHECK_SYS(kill(pid_of(worker), SIGKILL));
}

/* Returns once it runs no more. */
static void stop_worker(uint32_t worker)
{
    siginfo_t info;
    CHECK_SYS(kill(pid_of(worker), SIGSTOP));
    CHECK_SYS(waitid(P_PID, (id_t)pid_of(worker), &info, WSTOPPED | WNOWAIT));
}

/* Who holds the task in the slot of `position`? */
static uint32_t worker_of(uint64_t position)
{
    return wp_state_worker(wp_load_acquire(&wp_slot_at(&rig.pool->segment, position)->state));
}

/* Fetches `count` ends: the task `lost` is the dead worker's, and all others had not finished. */
static void expect_death(uint64_t count, uint64_t lost, int pid, int status)
{
    for (uint64_t i = 0; i < count; i++) {
        struct weirpool_completion completion;
        CHECK_OK(next(rig.pool, &completion));
        bool is_lost = (uintptr_t)completion.user == lost;
        CHECK_RC(completion.error, is_lost ? -EOWNERDEAD : -EPIPE);
        CHECK_EQ(completion.worker_pid, is_lost ? pid : 0);
        CHECK_EQ(completion.worker_status, is_lost ? status : 0);
        CHECK_EQ(completion.result_size, 0);
        weirpool_release(rig.pool, completion.task);
    }
}

/* ---- when a worker dies ---- */

static void test_before_any_task(void)
{
    set_up(FORKED, 2, 4, 0);
    kill_worker(1);
    check_broken();
    tear_down();
}

static void test_while_a_task_runs(void)
{
    set_up(FORKED, 2, 0, 0);
    atomic_store(&board->hold, true);
    for (uint64_t id = 0; id < 10; id++) {
        order(rig.pool, HOLD, id);
    }
    AWAIT(atomic_load(&board->held) == 2);
    uint32_t victim = worker_of(0);
    int pid = pid_of(victim);
    kill_worker(victim);
    expect_death(10, 0, pid, SIGKILL);
    check_broken();
    tear_down();
}

static void test_after_its_tasks(void)
{
    set_up(FORKED, 2, 0, 0);
    for (uint64_t id = 0; id < 50; id++) {
        order(rig.pool, ANSWER, id);
    }
    for (uint64_t i = 0; i < 50; i++) {
        struct weirpool_completion completion;
        CHECK_OK(next(rig.pool, &completion));
        check_answer(&completion, (uintptr_t)completion.user % 300);
        weirpool_release(rig.pool, completion.task);
    }
    kill_worker(0);
    check_broken();
    tear_down();
}

/* Finished before the death and not fetched yet: delivered. */
static void test_results_outlive_their_worker(void)
{
    set_up(FORKED, 1, 0, 0);
    struct order small = {.id = 1, .result_size = 10}, large = {.id = 2, .result_size = 300000};
    CHECK_OK(give(rig.pool, &small, sizeof small, WEIRPOOL_NOW, NULL));
    CHECK_OK(give(rig.pool, &large, sizeof large, WEIRPOOL_NOW, NULL));
    order(rig.pool, DIE, 3);
    order(rig.pool, ANSWER, 4);
    AWAIT(wp_os_process_ended(rig.pool->members[0].process));
    struct weirpool_completion completion;
    CHECK_OK(next(rig.pool, &completion));
    check_answer(&completion, 10);
    weirpool_release(rig.pool, completion.task);
    CHECK_OK(next(rig.pool, &completion));
    check_answer(&completion, 300000);
    weirpool_release(rig.pool, completion.task);
    expect_death(2, 3, pid_of(0), SIGKILL);
    check_broken();
    tear_down();
}

static void die_in_handler(enum verb verb)
{
    FOR_EACH_KIND(kind)
    {
        set_up(kind, 1, 0, 0);
        int pid = pid_of(0);
        order(rig.pool, verb, 299); /* it answers with 299 bytes: through the stream */
        order(rig.pool, ANSWER, 1);
        order(rig.pool, ANSWER, 2);
        expect_death(3, 299, pid, kind == FORKED ? SIGKILL : 0);
        check_broken();
        tear_down();
    }
}

static void test_in_the_handler(void)
{
    die_in_handler(DIE);
}

/* The result is all there, but nobody said that it is done. */
static void test_between_result_and_done(void)
{
    die_in_handler(DIE_AFTER_ANSWER);
}

static void test_exit_in_the_handler(void)
{
    set_up(FORKED, 1, 0, 0);
    int pid = pid_of(0);
    order(rig.pool, EXIT, 1);
    expect_death(1, 1, pid, 3 << 8);
    check_broken();
    tear_down();
}

/* DONE is there, and neither its bit nor a ring. */
static void test_between_done_and_its_bit(void)
{
    struct hand hand;
    set_up_by_hand(2);
    hand_open(&hand, rig.pool);
    order(rig.pool, ANSWER, 1);
    order(rig.pool, ANSWER, 2);
    hand_claim(&hand);
    struct wp_slot *slot = wp_slot_at(&rig.pool->segment, 0);
    slot->result_size = 2;
    memcpy(slot->result, "ok", 2);
    wp_store_release(&slot->state, wp_state(0, hand.number, WP_DONE));
    hand_die(&hand);
    struct weirpool_completion completion;
    CHECK_OK(next(rig.pool, &completion));
    CHECK_OK(completion.error);
    CHECK(completion.result_size == 2 && memcmp(completion.result, "ok", 2) == 0);
    weirpool_release(rig.pool, completion.task);
    expect(rig.pool, 2, -EPIPE);
    check_broken();
    hand_close(&hand);
    tear_down();
}

/* ---- while a large result is on its way ---- */

static void test_while_streaming(void)
{
    struct order large = {.id = 1, .result_size = 40 * MIB};
    for (int taken = 0; taken < 2; taken++) {
        set_up(FORKED, 2, 0, 0);
        struct weirpool_completion none;
        CHECK_OK(give(rig.pool, &large, sizeof large, WEIRPOOL_NOW, NULL));
        AWAIT(wp_state_tag(wp_load_acquire(&rig.pool->segment.slot[0].state)) == WP_RUNNING);
        uint32_t victim = worker_of(0);
        struct wp_stream *stream = &rig.pool->segment.streams[victim];
        AWAIT(wp_load_seq_cst(&stream->starved) == 1);
        if (taken) { /* some of it has been received, and the stopped worker sends no more of it */
            stop_worker(victim);
            CHECK_RC(weirpool_next(rig.pool, &none, WEIRPOOL_NOW), -EAGAIN);
        }
        int pid = pid_of(victim);
        kill_worker(victim);
        order(rig.pool, ANSWER, 2);
        struct weirpool_completion completion;
        bool lost = false;
        while (next(rig.pool, &completion) == 0) {
            bool is_large = (uintptr_t)completion.user == 1;
            CHECK(is_large ? completion.error == -EOWNERDEAD : completion.error == 0 || completion.error == -EPIPE);
            CHECK_EQ(completion.worker_pid, is_large ? pid : 0);
            lost = lost || is_large;
            weirpool_release(rig.pool, completion.task);
        }
        CHECK(lost);
        check_broken();
        tear_down();
    }
}

/* Another worker's death does not cut a result that is on its way without a clear error. */
static void test_while_another_streams(void)
{
    struct order large = {.id = 1, .result_size = 40 * MIB};
    set_up(FORKED, 2, 0, 0);
    CHECK_OK(give(rig.pool, &large, sizeof large, WEIRPOOL_NOW, NULL));
    AWAIT(wp_state_tag(wp_load_acquire(&rig.pool->segment.slot[0].state)) == WP_RUNNING);
    uint32_t streamer = worker_of(0);
    AWAIT(wp_load_seq_cst(&rig.pool->segment.streams[streamer].starved) == 1);
    kill_worker(1 - streamer);
    struct weirpool_completion completion;
    CHECK_OK(next(rig.pool, &completion));
    CHECK(completion.error == 0 || completion.error == -EPIPE);
    CHECK_EQ(completion.result_size, completion.error == 0 ? 40 * MIB : 0);
    CHECK(is_pattern(completion.result, completion.result_size, ~UINT64_C(1), 0));
    weirpool_release(rig.pool, completion.task);
    check_broken();
    tear_down();
}

/* ---- while another thread drains, and a third one waits ---- */

static void *wait_for_ever(void *task)
{
    CHECK_OK(weirpool_wait(rig.pool, task, WEIRPOOL_FOREVER));
    return NULL;
}

static void *break_it(void *nothing)
{
    wp_lock(rig.pool);
    wp_break(rig.pool, WP_NO_WORKER,
             WEIRPOOL_FAULT_CORRUPT); /* as one whose worker corrupted its slot: it waits for drainers */
    wp_unlock(rig.pool);
    return nothing;
}

static void set_draining(bool draining)
{
    wp_lock(rig.pool);
    rig.pool->members[0].draining = draining;
    wp_unlock(rig.pool);
}

static bool is_breaking(void)
{
    wp_lock(rig.pool);
    bool breaking = rig.pool->course == WP_BROKEN;
    wp_unlock(rig.pool);
    return breaking;
}

/* A result that comes while the pool breaks is taken by nobody: the helper must not look for it without end. */
static void test_helper_lets_a_drainer_finish(void)
{
    struct hand hand;
    pthread_t helper, breaker;
    weirpool_task *task;
    struct iovec part = {.iov_base = "x", .iov_len = 1};
    set_up_by_hand(2);
    hand_open(&hand, rig.pool);
    CHECK(weirpool_admit(rig.pool, WEIRPOOL_IN_BOUND, 0, WEIRPOOL_NOW) >= 0);
    CHECK_OK(weirpool_publish(rig.pool, &(struct weirpool_request){.parts = &part, .count = 1}, &task));
    order(rig.pool, ANSWER, 1);
    CHECK_OK(pthread_create(&helper, NULL, wait_for_ever, task));
    AWAIT(wp_load_seq_cst(&rig.pool->segment.header->addressee) == WP_HELPER);
    set_draining(true);
    rig.pool->collecting = true; /* the collector is busy: the helper does not see to workers in its place */
    CHECK_OK(pthread_create(&breaker, NULL, break_it, NULL));
    AWAIT(is_breaking());
    wp_fetch_or_seq_cst(&rig.pool->segment.done[0], 2);
    wp_fetch_add_seq_cst(&rig.pool->segment.header->helper_bell, 1);
    wp_os_futex_wake(&rig.pool->segment.header->helper_bell, 1, WP_SHARED);
    nanosleep(&(struct timespec){.tv_nsec = 20000000},
              NULL); /* for the helper to be there; more or less of it is sound */
    set_draining(false);
    pthread_join(breaker, NULL);
    pthread_join(helper, NULL);
    rig.pool->collecting = false;
    hand_close(&hand);
    tear_down();
}

/* ---- who waits ---- */

struct producer {
    pthread_t thread;
    size_t size;
    int rc;
};

static void *produce(void *argument)
{
    struct producer *me = argument;
    unsigned char *bytes = calloc(1, me->size);
    CHECK(bytes != NULL);
    me->rc = weirpool_submit(rig.pool, bytes, me->size, NULL, WEIRPOOL_FOREVER, NULL);
    free(bytes);
    return NULL;
}

/* Returns once all of them wait for room. */
static void start_producers(struct producer *producers, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        producers[i].size = i % 3 == 0 ? WEIRPOOL_PARK_LIMIT + 1 : 10;
        CHECK_OK(pthread_create(&producers[i].thread, NULL, produce, &producers[i]));
    }
    AWAIT(blocked(rig.pool) == count);
}

static void join_producers(struct producer *producers, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        pthread_join(producers[i].thread, NULL);
        CHECK_RC(producers[i].rc, -EPIPE);
    }
}

static void test_blocked_producers_all_wake(void)
{
    enum { COUNT = 12 };
    struct producer producers[COUNT];
    set_up(FORKED, 2, 2, 0);
    atomic_store(&board->hold, true);
    order(rig.pool, HOLD, 0);
    order(rig.pool, HOLD, 1);
    AWAIT(atomic_load(&board->held) == 2);
    start_producers(producers, COUNT);
    uint32_t victim = worker_of(0);
    int pid = pid_of(victim);
    kill_worker(victim);
    expect_death(2, 0, pid, SIGKILL);
    join_producers(producers, COUNT);
    check_broken();
    tear_down();
}

/* Also when nobody fetches completions: the one of them that helps sees the death. */
static void test_blocked_producers_wake_by_themselves(void)
{
    enum { COUNT = 4 };
    struct producer producers[COUNT];
    set_up(FORKED, 1, 1, 0);
    atomic_store(&board->hold, true);
    order(rig.pool, HOLD, 7);
    AWAIT(atomic_load(&board->held) == 1);
    start_producers(producers, COUNT);
    int pid = pid_of(0);
    kill_worker(0);
    join_producers(producers, COUNT);
    expect_death(1, 7, pid, SIGKILL);
    check_broken();
    tear_down();
}

static void *wait_for_task(void *task)
{
    CHECK_OK(weirpool_wait(rig.pool, task, WEIRPOOL_FOREVER));
    return NULL;
}

static void test_waiters_wake(void)
{
    enum { COUNT = 4 };
    pthread_t waiters[COUNT];
    weirpool_task *tasks[COUNT];
    set_up(UNDER_TSAN ? THREADS : FORKED, 1, 0, 0);
    for (uint64_t i = 0; i < COUNT; i++) {
        struct order o = {.id = i, .verb = i == 1 ? DIE : ANSWER};
        CHECK_OK(give(rig.pool, &o, sizeof o, WEIRPOOL_NOW, &tasks[i]));
    }
    for (int i = 0; i < COUNT; i++) {
        CHECK_OK(pthread_create(&waiters[i], NULL, wait_for_task, tasks[i]));
    }
    for (int i = 0; i < COUNT; i++) {
        pthread_join(waiters[i], NULL);
    }
    for (int i = 0; i < COUNT; i++) {
        struct weirpool_completion completion;
        CHECK_OK(next(rig.pool, &completion));
        uint64_t id = (uintptr_t)completion.user;
        CHECK_RC(completion.error, id == 0 ? 0 : id == 1 ? -EOWNERDEAD : -EPIPE);
        weirpool_release(rig.pool, completion.task);
    }
    check_broken();
    tear_down();
}

/* ---- ends that are no accident, and some that are ---- */

static int serve_and_leave(weirpool *pool, enum weirpool_standing standing, int tasks)
{
    uint32_t number;
    weirpool_worker *worker;
    pid_t pid = fork_worker(pool, &number, &worker);
    if (pid == 0) {
        struct weirpool_claimed claimed;
        weirpool_announce(worker, WEIRPOOL_UP);
        for (int i = 0; i < tasks; i++) {
            CHECK_OK(weirpool_claim(worker, &claimed, WEIRPOOL_FOREVER));
            CHECK_OK(weirpool_finish(worker, 0, NULL, 0));
        }
        weirpool_announce(worker, standing);
        weirpool_detach(worker);
        _exit(0);
    }
    int process = wp_os_process_open(pid);
    CHECK(process >= 0);
    CHECK_OK(weirpool_worker_watch(pool, number, process, pid));
    close(process);
    return pid;
}

/* Collects once. Returns how many tasks came: a departure may come before the last of them. */
static uint64_t collect_one(struct weirpool_event *event)
{
    weirpool_task *task;
    int n = weirpool_collect(rig.pool, &task, 1, event, weirpool_deadline(PATIENCE_NS));
    CHECK(n == 0 || n == 1);
    if (n == 1) {
        weirpool_release(rig.pool, task);
    }
    return (uint64_t)n;
}

/* Workers that leave after a few tasks each, one after another under the same number. */
static void test_planned_exits(void)
{
    set_up_by_hand(2);
    struct weirpool_event event;
    uint64_t fetched = 0;
    for (uint64_t id = 0; id < 30; id++) {
        order(rig.pool, ANSWER, id);
    }
    for (int generation = 0; generation < 10; generation++) {
        int pid = serve_and_leave(rig.pool, WEIRPOOL_LEAVES, 3);
        do {
            fetched += collect_one(&event);
        } while (event.kind != WEIRPOOL_WORKER_LEFT);
        CHECK_EQ(event.worker, 0);
        CHECK_EQ(waitpid(pid, NULL, 0), pid);
        weirpool_worker_vacate(rig.pool, event.worker);
        check_pool(rig.pool);
    }
    while (fetched < 30) {
        fetched += collect_one(&event);
    }
    order(rig.pool, ANSWER, 1); /* the pool is as good as new */
    tear_down();
}

static void test_initialization_failed(void)
{
    struct weirpool_completion completion;
    set_up_by_hand(2);
    order(rig.pool, ANSWER, 1);
    int pid = serve_and_leave(rig.pool, WEIRPOOL_INIT_FAILED, 0);
    CHECK_OK(next(rig.pool, &completion));
    CHECK_RC(completion.error, -EPIPE);
    weirpool_release(rig.pool, completion.task);
    check_broken();
    CHECK_EQ(waitpid(pid, NULL, 0), pid);
    tear_down();
}

/* A worker that dies before it said anything at all. */
static void test_death_while_starting(void)
{
    uint32_t number;
    set_up_by_hand(2);
    order(rig.pool, ANSWER, 1);
    CHECK_OK(weirpool_worker_reserve(rig.pool, &number));
    int death = eventfd(1, EFD_CLOEXEC);
    CHECK_OK(weirpool_worker_watch(rig.pool, number, death, 4711));
    close(death);
    expect(rig.pool, 1, -EPIPE);
    check_broken();
    tear_down();
}

/* The process was started, and had claimed a task, when it turned out that it cannot be watched. */
static void test_abandoned_with_a_task(void)
{
    struct hand hand;
    set_up_by_hand(2);
    hand_open(&hand, rig.pool);
    order(rig.pool, ANSWER, 1);
    order(rig.pool, ANSWER, 2);
    hand_claim(&hand);
    weirpool_worker_abandon(rig.pool, hand.number);
    for (int i = 0; i < 2; i++) {
        struct weirpool_completion completion;
        CHECK_OK(next(rig.pool, &completion));
        CHECK_RC(completion.error, (uintptr_t)completion.user == 1 ? -EOWNERDEAD : -EPIPE);
        weirpool_release(rig.pool, completion.task);
    }
    check_broken();
    hand_close(&hand);
    tear_down();
}

static void test_workers_wanted(void)
{
    uint32_t first, second;
    set_up_by_hand(2);
    CHECK_EQ(weirpool_worker_wanted(rig.pool), 0);
    order(rig.pool, ANSWER, 1);
    CHECK_EQ(weirpool_worker_wanted(rig.pool), 1);
    CHECK_OK(weirpool_worker_reserve(rig.pool, &first));
    CHECK_EQ(weirpool_worker_wanted(rig.pool), 0);
    CHECK_EQ(weirpool_admit(rig.pool, WEIRPOOL_IN_BOUND, 0, WEIRPOOL_NOW), 1);
    CHECK_OK(weirpool_worker_reserve(rig.pool, &second));
    CHECK(second != first);
    CHECK_EQ(weirpool_worker_wanted(rig.pool), 0);
    weirpool_forgo(rig.pool, 0);
    weirpool_worker_abandon(rig.pool, first);
    weirpool_worker_abandon(rig.pool, second);
    CHECK_EQ(weirpool_worker_wanted(rig.pool), 1);
    tear_down();
}

static void test_abandoned_start(void)
{
    uint32_t number, again;
    set_up_by_hand(2);
    CHECK_OK(weirpool_worker_reserve(rig.pool, &number));
    weirpool_worker_abandon(rig.pool, number);
    CHECK_OK(weirpool_worker_reserve(rig.pool, &again));
    CHECK_EQ(again, number);
    weirpool_worker_abandon(rig.pool, number);
    tear_down();
}

/* Both at once: the pool breaks once, and each task ends once. */
static void test_all_workers_at_once(void)
{
    set_up(FORKED, 4, 0, 0);
    atomic_store(&board->hold, true);
    for (uint64_t id = 0; id < 10; id++) {
        order(rig.pool, HOLD, id);
    }
    AWAIT(atomic_load(&board->held) == 4);
    for (uint32_t worker = 0; worker < 4; worker++) {
        kill_worker(worker);
    }
    uint64_t lost = 0;
    for (int i = 0; i < 10; i++) {
        struct weirpool_completion completion;
        CHECK_OK(next(rig.pool, &completion));
        CHECK(completion.error == -EOWNERDEAD || completion.error == -EPIPE);
        lost += completion.error == -EOWNERDEAD;
        CHECK_EQ(completion.worker_pid != 0, completion.error == -EOWNERDEAD);
        weirpool_release(rig.pool, completion.task);
    }
    CHECK(lost >= 1 && lost <= 4);
    check_broken();
    tear_down();
}

/* A stopped worker delays the end of the pool, but does not prevent it. */
static void test_close_with_a_stopped_worker(void)
{
    set_up(FORKED, 2, 0, 0);
    order(rig.pool, ANSWER, 1);
    expect(rig.pool, 1, 0);
    stop_worker(0);
    tear_down();
}

/* ---- under load, at any moment ---- */

/* There is something to tell at every moment, so the collector is never idle: it sees the death all the same. */
static void test_death_is_seen_under_load(void)
{
    struct hand victim, other;
    struct weirpool_completion completion = {.error = 0};
    set_up_by_hand(2);
    hand_open(&victim, rig.pool);
    hand_open(&other, rig.pool);
    order(rig.pool, ANSWER, 1);
    hand_claim(&victim);
    hand_die(&victim);
    int64_t limit = check_now() + PATIENCE_NS;
    while (completion.error == 0) {
        struct order o = {.id = 2};
        CHECK(check_now() < limit);
        if (give(rig.pool, &o, sizeof o, WEIRPOOL_NOW, NULL) == 0) { /* else the pool has just broken */
            hand_claim(&other);
            hand_finish(&other, "", 0);
        }
        CHECK_OK(weirpool_next(rig.pool, &completion, WEIRPOOL_NOW));
        weirpool_release(rig.pool, completion.task);
    }
    CHECK_RC(completion.error, -EOWNERDEAD);
    check_broken();
    hand_close(&victim);
    hand_close(&other);
    tear_down();
}

static _Atomic bool submitting;

static void *submit_until_broken(void *argument)
{
    uint64_t *accepted = argument;
    struct dice dice = new_dice((uintptr_t)argument);
    int rc = 0;
    while (rc == 0 && atomic_load(&submitting)) {
        struct order o = {.id = 1, .result_size = roll(&dice, 30) == 0 ? roll(&dice, 3 * MIB) : roll(&dice, 400)};
        size_t size = sizeof o + (roll(&dice, 30) == 0 ? roll(&dice, MIB) : roll(&dice, 500));
        rc = give(rig.pool, &o, size, WEIRPOOL_FOREVER, NULL);
        *accepted += rc == 0;
    }
    CHECK(rc == 0 || rc == -EPIPE);
    return NULL;
}

static void kill_under_load(struct dice *dice, uint64_t ends[3])
{
    enum { COUNT = 6 };
    pthread_t threads[COUNT];
    uint64_t accepted[COUNT] = {0}, total = 0, fetched = 0, lost = 0, fatal = 1 + roll(dice, 300);
    set_up(FORKED, 3, roll(dice, 4) * 4, 0); /* a quarter of them without a bound */
    atomic_store(&submitting, true);
    for (int i = 0; i < COUNT; i++) {
        CHECK_OK(pthread_create(&threads[i], NULL, submit_until_broken, &accepted[i]));
    }
    struct weirpool_completion completion;
    int rc;
    while ((rc = next(rig.pool, &completion)) == 0) {
        if (completion.error == 0) {
            CHECK(is_pattern(completion.result, completion.result_size, ~UINT64_C(1), 0));
        } else {
            CHECK(completion.error == -EOWNERDEAD || completion.error == -EPIPE);
        }
        ends[completion.error == 0 ? 0 : completion.error == -EOWNERDEAD ? 1 : 2]++;
        lost += completion.error == -EOWNERDEAD;
        weirpool_release(rig.pool, completion.task);
        if (++fetched == fatal) {
            kill_worker((uint32_t)roll(dice, 3));
        }
    }
    CHECK_RC(rc, -EPIPE);
    for (int i = 0; i < COUNT; i++) {
        pthread_join(threads[i], NULL);
        total += accepted[i];
    }
    CHECK_EQ(fetched, total);
    CHECK(lost <= 1);
    check_broken();
    tear_down();
}

static void test_kill_under_load(void)
{
    struct dice dice = new_dice(1);
    uint64_t ends[3] = {0}, rounds = SCALED(16);
    for (uint64_t i = 0; i < rounds; i++) {
        kill_under_load(&dice, ends);
    }
    printf("    %" PRIu64 " pools: %" PRIu64 " tasks done, %" PRIu64 " lost with their worker, %" PRIu64 " dropped\n",
           rounds, ends[0], ends[1], ends[2]);
}

/* ---- the parent ---- */

enum load { IDLE, BUSY, STREAMING };

/* A process that has a pool, loads it, says who its workers are, and waits to be killed. */
static _Noreturn void be_a_parent(enum load load, int out)
{
    struct weirpool_options options = {.size = sizeof options, .workers = 3, .handler = obey, .context = board};
    weirpool *pool;
    CHECK_OK(weirpool_open(&pool, &options));
    struct order large = {.id = 5, .result_size = 40 * MIB};
    for (int i = 0; load == STREAMING && i < 3; i++) {
        CHECK_OK(give(pool, &large, sizeof large, WEIRPOOL_NOW, NULL));
    }
    for (uint64_t id = 0; load == BUSY && id < 100000; id++) {
        order(pool, ANSWER, id);
    }
    pid_t pids[3];
    for (int i = 0; i < 3; i++) {
        pids[i] = pool->members[i].pid;
    }
    CHECK_EQ(write(out, pids, sizeof pids), sizeof pids);
    for (;;) {
        pause();
    }
}

struct family {
    pid_t parent;
    pid_t workers[3];
};

static void start_family(struct family *family, enum load load)
{
    int ends[2];
    CHECK_SYS(pipe(ends));
    fflush(NULL);
    family->parent = fork();
    CHECK_SYS(family->parent);
    if (family->parent == 0) {
        be_a_parent(load, ends[1]);
    }
    CHECK_EQ(read(ends[0], family->workers, sizeof family->workers), sizeof family->workers);
    close(ends[0]);
    close(ends[1]);
}

/* Its parent is dead, and its workers are our children: wait for them. */
static void await_workers(const struct family *family)
{
    for (int i = 0; i < 3; i++) {
        int status;
        AWAIT(waitpid(family->workers[i], &status, WNOHANG) == family->workers[i]);
        CHECK(WIFEXITED(status));
    }
}

static void test_parent_is_killed(void)
{
    struct family families[3];
    CHECK_SYS(prctl(PR_SET_CHILD_SUBREAPER, 1)); /* orphans become ours, so that we see their end */
    board = board_new();
    for (enum load load = IDLE; load <= STREAMING; load++) {
        start_family(&families[load], load);
    }
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); /* all of them may get to work */
    int64_t killed = check_now();
    for (enum load load = IDLE; load <= STREAMING; load++) {
        CHECK_SYS(kill(families[load].parent, SIGKILL));
        CHECK_EQ(waitpid(families[load].parent, NULL, 0), families[load].parent);
    }
    for (enum load load = IDLE; load <= STREAMING; load++) {
        await_workers(&families[load]);
    }
    int64_t took = check_now() - killed;
    printf("    the last worker was gone %.2f s after its parent\n", (double)took / 1e9);
    CHECK(took < INT64_C(3000000000) || UNDER_ASAN);
    board_free(board);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN_UNLESS_TSAN(test_before_any_task);
    RUN_UNLESS_TSAN(test_while_a_task_runs);
    RUN_UNLESS_TSAN(test_after_its_tasks);
    RUN_UNLESS_TSAN(test_results_outlive_their_worker);
    RUN(test_in_the_handler);
    RUN(test_between_result_and_done);
    RUN_UNLESS_TSAN(test_exit_in_the_handler);
    RUN(test_between_done_and_its_bit);
    RUN_UNLESS_TSAN(test_while_streaming);
    RUN_UNLESS_TSAN(test_while_another_streams);
    RUN(test_helper_lets_a_drainer_finish);
    RUN_UNLESS_TSAN(test_blocked_producers_all_wake);
    RUN_UNLESS_TSAN(test_blocked_producers_wake_by_themselves);
    RUN(test_waiters_wake);
    RUN_UNLESS_TSAN(test_planned_exits);
    RUN_UNLESS_TSAN(test_initialization_failed);
    RUN(test_death_while_starting);
    RUN(test_abandoned_start);
    RUN(test_abandoned_with_a_task);
    RUN(test_workers_wanted);
    RUN_UNLESS_TSAN(test_all_workers_at_once);
    RUN_UNLESS_TSAN(test_close_with_a_stopped_worker);
    RUN(test_death_is_seen_under_load);
    RUN_UNLESS_TSAN(test_kill_under_load);
    RUN_UNLESS_TSAN(test_parent_is_killed);
    return check_end();
}
