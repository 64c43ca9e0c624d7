/* Workers that die in a pool that replaces them: each costs one attempt of one task, and nothing else. */
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include "replace_rig.h"

/* ---- deaths ---- */

static void test_a_death_costs_one_task(void)
{
    set_up_replacing(2, NULL);
    atomic_store(&board->hold, true);
    submit(HOLD, 1, 0);
    submit(HOLD, 2, 0);
    AWAIT(atomic_load(&board->held) == 2);
    uint32_t victim = worker_of(0);
    int pid = pid_of(victim);
    kill_worker(victim);
    struct ended ended = next_end();
    CHECK_EQ(ended.id, 1);
    CHECK_RC(ended.error, -EOWNERDEAD);
    CHECK_EQ(ended.pid, pid);
    CHECK_EQ(ended.attempts, 1);
    atomic_store(&board->hold, false);
    submit(ANSWER, 3, 0);
    expect_done(2);
    CHECK_EQ(stats().workers_died, 1);
    CHECK_EQ(weirpool_fault(rig.pool), WEIRPOOL_FAULT_NONE);
    tear_down_idle();
}

static void test_a_retry_runs_elsewhere(void)
{
    set_up_replacing(1, NULL);
    submit(DIE_ONCE, 7, 1);
    submit(ANSWER, 8, 0);
    for (int i = 0; i < 2; i++) {
        struct ended ended = next_end();
        CHECK_RC(ended.error, 0);
        CHECK_EQ(ended.attempts, ended.id == 7 ? 2 : 1);
    }
    CHECK_EQ(stats().retried, 1);
    CHECK_EQ(stats().workers_died, 1);
    CHECK_EQ(stats().submitted, 2);
    CHECK_EQ(stats().finished, 2);
    tear_down_idle();
}

static void test_retries_run_out(void)
{
    set_up_replacing(2, NULL);
    submit(DIE, 7, 1);
    struct ended ended = next_end();
    CHECK_RC(ended.error, -EOWNERDEAD);
    CHECK_EQ(ended.attempts, 2);
    CHECK_EQ(stats().retried, 1);
    CHECK_EQ(stats().workers_died, 2);
    tear_down_idle();
}

/* A large payload lies in the arena, and stays there for the next attempt. */
static void test_a_large_task_runs_again(void)
{
    set_up_replacing(2, NULL);
    struct order large = {.id = 5, .verb = DIE_ONCE, .result_size = 3 * MIB};
    submit_order(&large, 5 * MIB, 1, 0);
    struct ended ended = next_end();
    CHECK_RC(ended.error, 0);
    CHECK_EQ(ended.size, 3 * MIB);
    CHECK_EQ(ended.attempts, 2);
    tear_down_idle();
}

/* It gets the slot that its death made free, before those that wait for one. */
static void test_a_retry_comes_first(void)
{
    set_up_replacing(1, NULL);
    uint64_t slots = rig.pool->segment.slots;
    submit(DIE_ONCE, 0, 1);
    for (uint64_t id = 1; id < slots + 50; id++) {
        submit(ANSWER, id, 0);
    }
    bool broke = false;
    while (stats().retried == 0) {
        CHECK(collect_one(weirpool_deadline(PATIENCE_NS), &broke) == NULL && !broke);
    }
    CHECK_EQ(rig.pool->table.tasks[0]->position, slots);
    CHECK_EQ((uintptr_t)rig.pool->table.tasks[0]->user, 0);
    CHECK_EQ(outstanding(rig.pool), slots + 50);
    expect_done((int)slots + 50);
    tear_down_idle();
}

/* The collector is in user code: whoever waits for a task sees to the death, at its look. */
static void test_death_while_nobody_collects(void)
{
    set_up_replacing(2, NULL);
    weirpool_task *task = submit(DIE_ONCE, 1, 1);
    CHECK_OK(weirpool_wait(rig.pool, task, weirpool_deadline(PATIENCE_NS)));
    CHECK_EQ(next_end().attempts, 2);
    await_workers();
    tear_down_idle();
}

static void kill_idle(uint32_t worker)
{
    uint64_t died = stats().workers_died;
    bool broke = false;
    kill_worker(worker);
    while (stats().workers_died == died) {
        CHECK(collect_one(WEIRPOOL_NOW, &broke) == NULL && !broke);
        check_nap();
    }
    await_workers();
}

/* Deaths in a row are counted between tasks that finish. */
static void test_a_finished_task_ends_a_row(void)
{
    set_up_replacing(2, NULL);
    for (uint64_t round = 0; round < 4; round++) {
        kill_idle(0);
        kill_idle(1);
        submit(ANSWER, round, 0);
        expect_done(1);
    }
    CHECK_EQ(stats().workers_died, 8);
    tear_down_idle();
}

/* The third death breaks the pool; its task is the culprit's, whatever retries it had. */
static void test_three_in_a_row(void)
{
    set_up_replacing(2, NULL);
    submit(DIE, 1, 10);
    struct ended ended = next_end();
    CHECK_RC(ended.error, -EOWNERDEAD);
    CHECK_EQ(ended.attempts, WEIRPOOL_DEATHS_IN_A_ROW);
    CHECK_EQ(weirpool_fault(rig.pool), WEIRPOOL_FAULT_DEATHS_IN_A_ROW);
    bool broke = false;
    while (!broke) {
        CHECK(collect_one(weirpool_deadline(PATIENCE_NS), &broke) == NULL);
    }
    CHECK_RC(weirpool_submit(rig.pool, "x", 1, NULL, WEIRPOOL_NOW, NULL), -EPIPE);
    CHECK_EQ(stats().workers_died, WEIRPOOL_DEATHS_IN_A_ROW);
    CHECK_EQ(stats().retried, WEIRPOOL_DEATHS_IN_A_ROW - 1);
    tear_down_idle();
}

/* ---- stopping ---- */

static void test_stop_a_waiting_task(void)
{
    set_up_replacing(1, NULL);
    atomic_store(&board->hold, true);
    submit(HOLD, 1, 0);
    weirpool_task *waiting = submit(HOLD, 2, 0);
    AWAIT(atomic_load(&board->held) == 1);
    CHECK_OK(weirpool_stop(rig.pool, waiting));
    CHECK_RC(describe_and_release(waiting).error, -ECANCELED);
    atomic_store(&board->hold, false);
    CHECK_EQ(next_end().id, 1);
    CHECK_EQ(stats().cancelled, 1);
    CHECK_EQ(stats().stopped, 0);
    CHECK_EQ(stats().workers_died, 0);
    tear_down_idle();
}

/* Its neighbour goes on; it is in no batch; retries do not save it. */
static void test_stop_a_running_task(void)
{
    set_up_replacing(2, NULL);
    atomic_store(&board->hold, true);
    weirpool_task *stopped = submit(HOLD, 1, 5);
    submit(HOLD, 2, 0);
    AWAIT(atomic_load(&board->held) == 2);
    CHECK_OK(weirpool_stop(rig.pool, stopped));
    CHECK_EQ(weirpool_phase(rig.pool, stopped), WEIRPOOL_TAKEN);
    struct ended ended = describe_and_release(stopped);
    CHECK_RC(ended.error, -ECANCELED);
    CHECK_EQ(ended.attempts, 1);
    await_workers();
    atomic_store(&board->hold, false);
    ended = next_end();
    CHECK_EQ(ended.id, 2);
    CHECK_RC(ended.error, 0);
    CHECK_EQ(stats().cancelled, 1);
    CHECK_EQ(stats().stopped, 1);
    CHECK_EQ(stats().workers_died, 0);
    tear_down_idle();
}

static void test_stop_what_has_finished(void)
{
    set_up_replacing(1, NULL);
    weirpool_task *task = submit(ANSWER, 1, 0);
    AWAIT(wp_state_tag(state_at(0)) == WP_DONE);
    CHECK_RC(weirpool_stop(rig.pool, task), -EBUSY);
    expect_done(1);
    CHECK_EQ(stats().stopped, 0);
    tear_down_idle();
}

static void test_stop_needs_replace(void)
{
    set_up(FORKED, 1, 0, 0);
    weirpool_task *task;
    struct order small = {.id = 1};
    CHECK_OK(give(rig.pool, &small, sizeof small, WEIRPOOL_NOW, &task));
    CHECK_RC(weirpool_stop(rig.pool, task), -EINVAL);
    struct weirpool_task_options retried = {.size = sizeof retried, .retries = 1};
    struct weirpool_task_options limited = {.size = sizeof limited, .limit_ns = 1};
    CHECK_RC(weirpool_submit_with(rig.pool, "x", 1, &retried, NULL), -EINVAL);
    CHECK_RC(weirpool_submit_with(rig.pool, "x", 1, &limited, NULL), -EINVAL);
    CHECK_EQ(outstanding(rig.pool), 1);
    expect(rig.pool, 1, 0);
    tear_down();
}

/* The collector may be in user code, and the caller any thread: a stop sees to the worker's end by itself. */
static void test_stop_while_nobody_collects(void)
{
    set_up_replacing(1, NULL);
    weirpool_task *task = submit(HOLD_ONCE, 1, 0);
    AWAIT(atomic_load(&board->held) == 1);
    submit(ANSWER, 2, 0);
    CHECK_OK(weirpool_stop(rig.pool, task));
    CHECK_RC(describe_and_release(task).error, -ECANCELED);
    expect_done(1);
    tear_down_idle();
}

struct stopper {
    pthread_t thread;
    weirpool_task *task;
    int rc;
};

static void *stop_it(void *argument)
{
    struct stopper *me = argument;
    me->rc = weirpool_stop(rig.pool, me->task);
    return NULL;
}

static void start_stopper(struct stopper *stopper, weirpool_task *task)
{
    stopper->task = task;
    CHECK_OK(pthread_create(&stopper->thread, NULL, stop_it, stopper));
}

/* One of them tells. */
static void test_two_stop_the_same(void)
{
    set_up_replacing(1, NULL);
    for (uint64_t id = 0; id < 10; id++) {
        struct stopper stoppers[2];
        weirpool_task *task = submit(HOLD_ONCE, id, 0);
        AWAIT(atomic_load(&board->held) == id + 1);
        start_stopper(&stoppers[0], task);
        start_stopper(&stoppers[1], task);
        pthread_join(stoppers[0].thread, NULL);
        pthread_join(stoppers[1].thread, NULL);
        CHECK_EQ((stoppers[0].rc == 0) + (stoppers[1].rc == 0), 1);
        int other = stoppers[0].rc != 0 ? stoppers[0].rc : stoppers[1].rc;
        CHECK(other == -EALREADY || other == -EBUSY);
        CHECK_RC(describe_and_release(task).error, -ECANCELED);
        await_workers();
    }
    tear_down_idle();
}

/* Condemned at any moment of a large result's way, whoever drains it. The successor's ring is empty. */
static void test_stop_while_results_stream(void)
{
    struct dice dice = new_dice(1);
    set_up_replacing(2, NULL);
    int stopped = 0, rounds = (int)SCALED(100);
    for (int round = 0; round < rounds; round++) {
        struct order large = {.id = (uint64_t)round, .result_size = 2 * MIB + roll(&dice, MIB)};
        weirpool_task *task = submit_order(&large, sizeof large, 0, 0);
        submit(ANSWER, 299, 0);
        struct stopper stopper;
        AWAIT(wp_state_tag(state_at(2 * (uint64_t)round)) != WP_QUEUED);
        nanosleep(&(struct timespec){.tv_nsec = (long)roll(&dice, 2000000)}, NULL);
        start_stopper(&stopper, task);
        weirpool_task *first = next_task();
        weirpool_task *other = first == task ? next_task() : first;
        pthread_join(stopper.thread, NULL); /* before anything is released: it may have come late */
        CHECK_EQ(describe_and_release(other).id, 299);
        if (stopper.rc == 0) {
            CHECK(first != task);
            CHECK_RC(describe_and_release(task).error, -ECANCELED);
            stopped++;
        } else {
            CHECK(first == task || next_task() == task);
            struct ended ended = describe_and_release(task);
            CHECK_OK(ended.error);
            CHECK_EQ(ended.size, large.result_size);
        }
        CHECK(rig.pool->members[0].receiving == NULL && rig.pool->members[1].receiving == NULL);
        await_workers();
    }
    printf("    %d of %d were stopped\n", stopped, rounds);
    CHECK_EQ(stats().stopped, stopped);
    CHECK_EQ(stats().cancelled, stopped);
    CHECK_EQ(stats().workers_died, 0);
    tear_down_idle();
}

/* Some of it is drained meanwhile: what is left in the ring of the dead worker is not its successor's. */
static void test_stop_while_results_are_drained(void)
{
    struct dice dice = new_dice(2);
    set_up_replacing(1, NULL);
    int stopped = 0, rounds = (int)SCALED(100);
    for (int round = 0; round < rounds; round++) {
        struct order large = {.id = 1, .result_size = 4 * MIB};
        struct stopper stopper;
        bool broke = false;
        weirpool_task *task = submit_order(&large, sizeof large, 0, 0);
        uint64_t enough = roll(&dice, 4 * MIB);
        AWAIT(collect_one(WEIRPOOL_NOW, &broke) != NULL || task->received > enough);
        start_stopper(&stopper, task);
        pthread_join(stopper.thread, NULL);
        stopped += stopper.rc == 0;
        if (stopper.rc == 0) {
            CHECK_RC(describe_and_release(task).error, -ECANCELED);
        } else {
            CHECK_RC(stopper.rc, -EBUSY);
            CHECK_OK(weirpool_wait(rig.pool, task, weirpool_deadline(PATIENCE_NS)));
            CHECK(collect_one(WEIRPOOL_NOW, &broke) == task || wp_list_is_empty(&rig.pool->watched));
            CHECK_EQ(describe_and_release(task).size, 4 * MIB);
        }
        await_workers();
    }
    printf("    %d of %d were stopped\n", stopped, rounds);
    CHECK_EQ(stats().stopped, stopped);
    tear_down_idle();
}

/* ---- step by step, with a worker that does what the test says ---- */

static bool is_condemned(uint64_t position)
{
    return wp_state_tag(state_at(position)) == WP_CONDEMNED;
}

/* Condemned first: its worker's DONE comes too late, and the worker learns it. It ends with its worker, not before. */
static void test_condemned_before_done(void)
{
    struct hand hand;
    struct stopper stopper;
    set_up_by_hand(1);
    hand_open(&hand, rig.pool);
    weirpool_task *task = submit(ANSWER, 1, 3);
    hand_claim(&hand);
    start_stopper(&stopper, task);
    AWAIT(is_condemned(0));
    check_pool(rig.pool);
    CHECK_EQ(weirpool_phase(rig.pool, task), WEIRPOOL_RUNNING);
    CHECK_EQ(stats().running, 1);
    CHECK_RC(weirpool_cancel(rig.pool, task), -EBUSY);
    struct iovec part = {.iov_base = "x", .iov_len = 1};
    CHECK_RC(weirpool_finish(hand.worker, 0, &part, 1), -ECANCELED);
    CHECK_EQ(weirpool_phase(rig.pool, task), WEIRPOOL_RUNNING);
    hand_die(&hand);
    pthread_join(stopper.thread, NULL);
    CHECK_OK(stopper.rc);
    CHECK_RC(describe_and_release(task).error, -ECANCELED);
    leave(&hand, 0);
    CHECK_EQ(stats().workers_died, 0);
    CHECK_EQ(stats().stopped, 1);
    tear_down_idle();
}

/* Done first, and not taken yet: it has finished, its worker lives, and claims the next. */
static void test_done_before_condemned(void)
{
    struct hand hand;
    set_up_by_hand(1);
    hand_open(&hand, rig.pool);
    weirpool_task *task = submit(ANSWER, 0, 0);
    weirpool_task *second = submit(ANSWER, 0, 0);
    hand_claim(&hand);
    hand_finish(&hand, "", 0);
    CHECK_RC(weirpool_stop(rig.pool, task), -EBUSY);
    hand_claim(&hand);
    hand_finish(&hand, "", 0);
    CHECK_RC(weirpool_stop(rig.pool, second), -EBUSY);
    expect_done(2);
    CHECK_EQ(stats().stopped, 0);
    hand_die(&hand); /* of itself */
    leave(&hand, 0);
    CHECK_EQ(stats().workers_died, 1);
    tear_down_idle();
}

/* It had finished when its worker died: nothing is lost, but a death it is. */
static void test_death_after_done(void)
{
    struct hand hand;
    set_up_by_hand(1);
    hand_open(&hand, rig.pool);
    submit(ANSWER, 0, 0);
    hand_claim(&hand);
    hand_finish(&hand, "", 0);
    hand_die(&hand);
    leave(&hand, 1);
    CHECK_EQ(stats().workers_died, 1);
    CHECK_EQ(stats().retried, 0);
    tear_down_idle();
}

/* A permit that is held until its task is told is held after a stop, too. */
static void test_stop_keeps_what_holds(void)
{
    struct hand hand;
    struct stopper stopper;
    struct iovec part = {.iov_base = "x", .iov_len = 1};
    struct weirpool_request request = {.parts = &part, .count = 1, .interest = WEIRPOOL_HOLDS, .weighed = 1};
    weirpool_task *task;
    set_up_by_hand(1);
    hand_open(&hand, rig.pool);
    CHECK(weirpool_admit(rig.pool, WEIRPOOL_IN_BOUND, 1, WEIRPOOL_NOW) >= 0);
    CHECK_OK(weirpool_publish(rig.pool, &request, &task));
    hand_claim(&hand);
    start_stopper(&stopper, task);
    AWAIT(is_condemned(0));
    hand_die(&hand);
    pthread_join(stopper.thread, NULL);
    CHECK_OK(stopper.rc);
    CHECK_EQ(outstanding(rig.pool), 1);
    weirpool_told(rig.pool, task);
    CHECK_EQ(outstanding(rig.pool), 0);
    weirpool_release(rig.pool, task);
    leave(&hand, 0);
    tear_down_idle();
}

/* A break in the middle of it: the task has ended all the same, and is its caller's to tell. */
static void test_break_while_stopping(void)
{
    struct hand hand;
    struct stopper stopper;
    set_up_by_hand(1);
    hand_open(&hand, rig.pool);
    weirpool_task *task = submit(ANSWER, 1, 0);
    hand_claim(&hand);
    start_stopper(&stopper, task);
    AWAIT(is_condemned(0));
    CHECK_OK(weirpool_break(rig.pool));
    CHECK_EQ(weirpool_fault(rig.pool), WEIRPOOL_FAULT_ASKED);
    struct iovec part = {.iov_base = "x", .iov_len = 1};
    CHECK_RC(weirpool_finish(hand.worker, 0, &part, 1), -ESHUTDOWN);
    hand_die(&hand);
    pthread_join(stopper.thread, NULL);
    CHECK_OK(stopper.rc);
    CHECK_RC(describe_and_release(task).error, -ECANCELED);
    CHECK(wp_list_is_empty(&rig.pool->watched));
    hand_close(&hand);
    tear_down_idle();
}

/* A piece of a head is in the ring when its worker dies. The next worker of that number begins with an empty one. */
static void test_successor_has_an_empty_stream(void)
{
    struct hand hand;
    char result[1000];
    fill_pattern(result, sizeof result, ~UINT64_C(0), 0);
    set_up_by_hand(1);
    hand_open(&hand, rig.pool);
    submit(ANSWER, 0, 1);
    hand_claim(&hand);
    CHECK_EQ(wp_stream_write(&hand.segment.streams[hand.number], result, 7), 7);
    hand_die(&hand);
    leave(&hand, 0);
    hand_open(&hand, rig.pool);
    hand_claim(&hand);
    hand_finish(&hand, result, sizeof result);
    hand_die(&hand);
    leave(&hand, 1);
    CHECK_EQ(stats().retried, 1);
    tear_down_idle();
}

/* ---- workers that are not watched yet ---- */

/* Forks a worker that claims, and never finishes. */
static pid_t fork_claimer(uint32_t *number)
{
    weirpool_worker *worker;
    struct weirpool_claimed claimed;
    pid_t pid = fork_worker(rig.pool, number, &worker);
    if (pid == 0) {
        CHECK_OK(weirpool_claim(worker, &claimed, WEIRPOOL_FOREVER));
        for (;;) {
            pause();
        }
    }
    return pid;
}

/* It claimed before anybody could watch it, and is killed as soon as somebody can. */
static void test_stop_before_the_worker_is_watched(void)
{
    uint32_t number;
    struct stopper stopper;
    set_up_by_hand(1);
    weirpool_task *task = submit(HOLD, 1, 0);
    pid_t pid = fork_claimer(&number);
    AWAIT(wp_state_tag(state_at(0)) == WP_RUNNING);
    start_stopper(&stopper, task);
    AWAIT(is_condemned(0));
    int process = wp_os_process_open(pid);
    CHECK_OK(weirpool_worker_watch(rig.pool, number, process, pid));
    close(process);
    rig.pids[number] = pid;
    pthread_join(stopper.thread, NULL);
    CHECK_OK(stopper.rc);
    CHECK_RC(describe_and_release(task).error, -ECANCELED);
    await_workers();
    tear_down_idle();
}

static void test_abandoned_with_a_task(void)
{
    uint32_t number;
    set_up_by_hand(1);
    submit(ANSWER, 1, 1);
    pid_t pid = fork_claimer(&number);
    AWAIT(wp_state_tag(state_at(0)) == WP_RUNNING);
    CHECK_SYS(kill(pid, SIGKILL));
    CHECK_EQ(waitpid(pid, NULL, 0), pid);
    weirpool_worker_abandon(rig.pool, number);
    CHECK_EQ(stats().workers_died, 1);
    CHECK_EQ(stats().retried, 1);
    start_worker();
    struct ended ended = next_end();
    CHECK_RC(ended.error, 0);
    CHECK_EQ(ended.attempts, 2);
    tear_down_idle();
}

/* Forks a worker that sleeps, and does nothing when it is woken. */
static pid_t fork_sleeper(uint32_t *number)
{
    weirpool_worker *worker;
    pid_t pid = fork_worker(rig.pool, number, &worker);
    if (pid == 0) {
        struct wp_segment segment;
        CHECK_OK(wp_segment_attach(&segment, rig.pool->segment.fd));
        CHECK_OK(wp_park(&segment, *number, WEIRPOOL_FOREVER));
        for (;;) {
            pause();
        }
    }
    return pid;
}

static void *sleep_for_ever(void *argument)
{
    const struct hand *hand = argument;
    CHECK_OK(wp_park(&hand->segment, hand->number, WEIRPOOL_FOREVER));
    return NULL;
}

/* Returns when it sleeps, most probably: one that is late for that does not sleep, and the test passes. */
static void await_sleeper(uint32_t number)
{
    AWAIT(wp_load_seq_cst(&rig.pool->segment.header->parked[0]) >> number & 1);
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

/* It was on its way to a task, for which another worker sleeps: that one has to come, without a look of its own. */
static void test_abandoned_on_its_way(void)
{
    struct hand hand;
    pthread_t sleeper;
    uint32_t number;
    set_up_by_hand(2);
    pid_t pid = fork_sleeper(&number);
    await_sleeper(number);
    hand_open(&hand, rig.pool);
    CHECK_OK(pthread_create(&sleeper, NULL, sleep_for_ever, &hand));
    await_sleeper(hand.number);
    submit(ANSWER, 0, 0);
    AWAIT(wp_load_seq_cst(&rig.pool->segment.header->waking) == 0); /* it has come that far */
    CHECK_SYS(kill(pid, SIGKILL));
    CHECK_EQ(waitpid(pid, NULL, 0), pid);
    weirpool_worker_abandon(rig.pool, number);
    pthread_join(sleeper, NULL);
    hand_claim(&hand);
    hand_finish(&hand, "", 0);
    expect_done(1);
    hand_die(&hand);
    leave(&hand, 0);
    tear_down_idle();
}

/* Ends as it was told to, before it has claimed anything. */
static void start_and_end(enum weirpool_standing standing, bool announces)
{
    uint32_t number;
    weirpool_worker *worker;
    pid_t pid = fork_worker(rig.pool, &number, &worker);
    if (pid == 0) {
        if (announces) {
            weirpool_announce(worker, standing);
        }
        _exit(1);
    }
    int process = wp_os_process_open(pid);
    CHECK_OK(weirpool_worker_watch(rig.pool, number, process, pid));
    close(process);
    rig.pids[number] = pid;
}

static enum weirpool_event_kind next_event(void)
{
    weirpool_task *task;
    struct weirpool_event event = {.kind = WEIRPOOL_NOTHING};
    while (event.kind == WEIRPOOL_NOTHING) {
        int n = weirpool_collect(rig.pool, &task, 1, &event, weirpool_deadline(PATIENCE_NS));
        CHECK(n >= 0);
        if (n == 1) {
            CHECK_RC(describe_and_release(task).error, -EPIPE);
        }
    }
    if (event.kind == WEIRPOOL_WORKER_LEFT) {
        reap(event.worker);
    }
    return event.kind;
}

static void test_deaths_while_starting(void)
{
    set_up_by_hand(1);
    submit(ANSWER, 1, 0);
    for (int i = 1; i < WEIRPOOL_DEATHS_IN_A_ROW; i++) {
        start_and_end(WEIRPOOL_UP, false);
        CHECK_EQ(next_event(), WEIRPOOL_WORKER_LEFT);
        CHECK_EQ(stats().workers_died, i);
    }
    start_and_end(WEIRPOOL_UP, true);
    CHECK_EQ(next_event(), WEIRPOOL_BROKE);
    CHECK_EQ(weirpool_fault(rig.pool), WEIRPOOL_FAULT_DEATHS_IN_A_ROW);
    tear_down_idle();
}

static void test_planned_exits_are_no_deaths(void)
{
    set_up_by_hand(1);
    for (int i = 0; i < 2 * WEIRPOOL_DEATHS_IN_A_ROW; i++) {
        start_and_end(WEIRPOOL_LEAVES, true);
        CHECK_EQ(next_event(), WEIRPOOL_WORKER_LEFT);
    }
    CHECK_EQ(stats().workers_died, 0);
    tear_down_idle();
}

static void test_failed_initialization_breaks(void)
{
    set_up_by_hand(1);
    submit(ANSWER, 1, 5);
    start_and_end(WEIRPOOL_INIT_FAILED, true);
    CHECK_EQ(next_event(), WEIRPOOL_BROKE);
    CHECK_EQ(weirpool_fault(rig.pool), WEIRPOOL_FAULT_INIT_FAILED);
    tear_down_idle();
}

/* ---- why a pool broke ---- */

static void test_fault_of_a_death(void)
{
    set_up(FORKED, 1, 0, 0);
    CHECK_EQ(weirpool_fault(rig.pool), WEIRPOOL_FAULT_NONE);
    kill_worker(0);
    CHECK_RC(next(rig.pool, &(struct weirpool_completion){0}), -EPIPE);
    CHECK_EQ(weirpool_fault(rig.pool), WEIRPOOL_FAULT_DEATH);
    CHECK_RC(weirpool_break(rig.pool), -EALREADY);
    CHECK_EQ(weirpool_fault(rig.pool), WEIRPOOL_FAULT_DEATH);
    tear_down();
}

/* Retries do not help against a worker that writes over what is everybody's. */
static void test_fault_of_corruption(void)
{
    struct hand hand;
    set_up_by_hand(1);
    hand_open(&hand, rig.pool);
    submit(ANSWER, 1, 5);
    hand_claim(&hand);
    wp_store_release(&wp_slot_at(&rig.pool->segment, 0)->state, wp_state(0, 9999, WP_DONE));
    wp_fetch_or_seq_cst(&rig.pool->segment.done[0], 1);
    CHECK_EQ(next_event(), WEIRPOOL_BROKE);
    CHECK_EQ(weirpool_fault(rig.pool), WEIRPOOL_FAULT_CORRUPT);
    hand_close(&hand);
    tear_down_idle();
}

/* A worker that goes on with a task that was condemned is not believed either. */
static void test_done_in_spite_of_being_condemned(void)
{
    struct hand hand;
    struct stopper stopper;
    set_up_by_hand(1);
    hand_open(&hand, rig.pool);
    weirpool_task *task = submit(ANSWER, 1, 5);
    hand_claim(&hand);
    start_stopper(&stopper, task);
    AWAIT(is_condemned(0));
    wp_store_release(&wp_slot_at(&rig.pool->segment, 0)->state, wp_state(0, hand.number, WP_DONE));
    wp_fetch_or_seq_cst(&rig.pool->segment.done[0], 1);
    CHECK_EQ(next_event(), WEIRPOOL_BROKE);
    CHECK_EQ(weirpool_fault(rig.pool), WEIRPOOL_FAULT_CORRUPT);
    pthread_join(stopper.thread, NULL);
    CHECK_OK(stopper.rc);
    CHECK_RC(describe_and_release(task).error, -ECANCELED);
    hand_close(&hand);
    tear_down_idle();
}

/* What its slot says matters no more: the task ends with its worker. */
static void test_condemned_and_scribbled_over(void)
{
    struct hand hand;
    struct stopper stopper;
    set_up_by_hand(1);
    hand_open(&hand, rig.pool);
    weirpool_task *task = submit(ANSWER, 1, 5);
    hand_claim(&hand);
    start_stopper(&stopper, task);
    AWAIT(is_condemned(0));
    wp_store_release(&wp_slot_at(&rig.pool->segment, 0)->state, 0);
    hand_die(&hand);
    pthread_join(stopper.thread, NULL);
    CHECK_OK(stopper.rc);
    CHECK_RC(describe_and_release(task).error, -ECANCELED);
    leave(&hand, 0);
    tear_down_idle();
}

/* ---- where descriptors have run out ---- */

static void stop_without_descriptors(void)
{
    struct rlimit none = {.rlim_cur = 1}, before; /* poll() needs one */
    set_up_replacing(1, NULL);
    weirpool_task *task = submit(HOLD_ONCE, 1, 0);
    AWAIT(atomic_load(&board->held) == 1);
    CHECK_SYS(getrlimit(RLIMIT_NOFILE, &before));
    none.rlim_max = before.rlim_max;
    CHECK_SYS(setrlimit(RLIMIT_NOFILE, &none));
    CHECK_OK(weirpool_stop(rig.pool, task));
    CHECK_SYS(setrlimit(RLIMIT_NOFILE, &before));
    CHECK_RC(describe_and_release(task).error, -ECANCELED);
    await_workers();
    tear_down_idle();
}

static void test_stop_without_descriptors(void)
{
    check_in_child(stop_without_descriptors);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN_UNLESS_TSAN(test_a_death_costs_one_task);
    RUN_UNLESS_TSAN(test_a_retry_runs_elsewhere);
    RUN_UNLESS_TSAN(test_retries_run_out);
    RUN_UNLESS_TSAN(test_a_large_task_runs_again);
    RUN_UNLESS_TSAN(test_a_retry_comes_first);
    RUN_UNLESS_TSAN(test_death_while_nobody_collects);
    RUN_UNLESS_TSAN(test_a_finished_task_ends_a_row);
    RUN_UNLESS_TSAN(test_three_in_a_row);
    RUN_UNLESS_TSAN(test_stop_a_waiting_task);
    RUN_UNLESS_TSAN(test_stop_a_running_task);
    RUN_UNLESS_TSAN(test_stop_what_has_finished);
    RUN_UNLESS_TSAN(test_stop_needs_replace);
    RUN_UNLESS_TSAN(test_stop_while_nobody_collects);
    RUN_UNLESS_TSAN(test_two_stop_the_same);
    RUN_UNLESS_TSAN(test_stop_while_results_stream);
    RUN_UNLESS_TSAN(test_stop_while_results_are_drained);
    RUN(test_condemned_before_done);
    RUN(test_done_before_condemned);
    RUN(test_death_after_done);
    RUN(test_stop_keeps_what_holds);
    RUN(test_break_while_stopping);
    RUN(test_successor_has_an_empty_stream);
    RUN_UNLESS_TSAN(test_stop_before_the_worker_is_watched);
    RUN_UNLESS_TSAN(test_abandoned_with_a_task);
    RUN_UNLESS_TSAN(test_abandoned_on_its_way);
    RUN_UNLESS_TSAN(test_deaths_while_starting);
    RUN_UNLESS_TSAN(test_planned_exits_are_no_deaths);
    RUN_UNLESS_TSAN(test_failed_initialization_breaks);
    RUN_UNLESS_TSAN(test_fault_of_a_death);
    RUN(test_fault_of_corruption);
    RUN(test_done_in_spite_of_being_condemned);
    RUN(test_condemned_and_scribbled_over);
    RUN_UNLESS_TSAN(test_stop_without_descriptors);
    return check_end();
}
