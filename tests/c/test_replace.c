/* Workers that die in a pool that replaces them: each costs one attempt of one task, and nothing else. */
#include <pthread.h>
#include <signal.h>

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
    int stopped = 0, rounds = (int)SCALED(200);
    for (int round = 0; round < rounds; round++) {
        struct order large = {.id = (uint64_t)round, .result_size = 2 * MIB + roll(&dice, MIB)};
        weirpool_task *task = submit_order(&large, sizeof large, 0, 0);
        submit(ANSWER, 299, 0);
        struct stopper stopper;
        AWAIT(wp_state_tag(state_at(2 * (uint64_t)round)) != WP_QUEUED);
        nanosleep(&(struct timespec){.tv_nsec = (long)roll(&dice, 2000000)}, NULL);
        start_stopper(&stopper, task);
        struct ended ended = next_end();
        bool its_end = ended.id == (uint64_t)round;
        if (its_end) {
            CHECK_RC(ended.error, 0);
            ended = next_end();
        }
        CHECK_EQ(ended.id, 299);
        pthread_join(stopper.thread, NULL);
        if (stopper.rc == 0) {
            CHECK(!its_end);
            CHECK_RC(describe_and_release(task).error, -ECANCELED);
            stopped++;
        } else if (!its_end) {
            CHECK_EQ(next_end().size, large.result_size);
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

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN_UNLESS_TSAN(test_a_death_costs_one_task);
    RUN_UNLESS_TSAN(test_a_retry_runs_elsewhere);
    RUN_UNLESS_TSAN(test_retries_run_out);
    RUN_UNLESS_TSAN(test_a_large_task_runs_again);
    RUN_UNLESS_TSAN(test_a_retry_comes_first);
    RUN_UNLESS_TSAN(test_a_finished_task_ends_a_row);
    RUN_UNLESS_TSAN(test_three_in_a_row);
    RUN_UNLESS_TSAN(test_stop_a_waiting_task);
    RUN_UNLESS_TSAN(test_stop_a_running_task);
    RUN_UNLESS_TSAN(test_stop_what_has_finished);
    RUN_UNLESS_TSAN(test_stop_needs_replace);
    RUN_UNLESS_TSAN(test_stop_while_nobody_collects);
    RUN_UNLESS_TSAN(test_two_stop_the_same);
    RUN_UNLESS_TSAN(test_stop_while_results_stream);
    return check_end();
}
