/*
 * Workers, and the parent, that are killed or stopped at each named point between the engine's steps (crash.h), in a pool
 * that a death breaks. After each: the pool's invariants hold, no permit is out, each task has ended exactly once with a
 * result or a reason, the gate is open or closed as it should be, and no process is left.
 *
 * `test_crash NAME...` runs those tests alone.
 */
#include <pthread.h>

#include "crash_load.h"

/* ---- the load ---- */

static pthread_t producer;

/* Long enough that each worker gets some of a burst. */
static int take_a_moment(const void *payload, size_t size, weirpool_reply *reply, void *context)
{
    check_nap();
    return obey(payload, size, reply, context);
}

/* Returns what weirpool_next() said; one that was stopped is interrupted by that. */
static int fetch(void)
{
    struct weirpool_completion completion;
    int rc = weirpool_next(rig.pool, &completion, weirpool_deadline(2000000));
    if (rc == 0) {
        note_end(&completion);
    }
    return rc == -EINTR && plan->in_parent ? 0 : rc;
}

static bool submit_one(void)
{
    uint64_t id = atomic_load(&load.submitted);
    size_t size;
    unsigned char *payload = next_payload(id, &size);
    int rc = weirpool_submit(rig.pool, payload, size, (void *)(uintptr_t)id, WEIRPOOL_FOREVER, NULL);
    free(payload);
    if (rc == 0) {
        atomic_fetch_add(&load.submitted, 1);
    } else {
        CHECK_RC(rc, -EPIPE);
        atomic_store(&load.refused, true);
    }
    return rc == 0;
}

/* In bursts, so that workers find work, and find none. */
static void *produce(void *nothing)
{
    while (!atomic_load(&load.enough) && !atomic_load(&load.refused)) {
        for (uint32_t i = 0; i < BURST && submit_one(); i++) {
        }
        AWAIT(is_quiet() || atomic_load(&load.enough));
        let_workers_sleep();
    }
    return nothing;
}

static void start(enum work work)
{
    struct weirpool_options options = {.workers = WORKERS, .handler = take_a_moment};
    load.status = SIGKILL;
    open_pool(work, &options);
    CHECK_OK(pthread_create(&producer, NULL, produce, NULL));
}

static void stop_producing(void)
{
    atomic_store(&load.enough, true);
    uint64_t all_at = check_now() + PATIENCE_NS;
    while (pthread_tryjoin_np(producer, NULL) != 0) { /* it may wait for room */
        (void)fetch();
        CHECK((uint64_t)check_now() < all_at);
    }
}

/* ---- the ends ---- */

/* Nobody died, or nobody whose end matters: everything ends well. */
static void expect_success(void)
{
    stop_producing();
    FETCH_UNTIL(atomic_load(&load.ended) == atomic_load(&load.submitted));
    CHECK_EQ(load.succeeded, load.submitted);
    check_accounts();
    CHECK_OK(weirpool_submit(rig.pool, "x", 1, NULL, WEIRPOOL_NOW, NULL)); /* the gate is open */
    struct weirpool_completion completion;
    CHECK_OK(next(rig.pool, &completion));
    weirpool_release(rig.pool, completion.task);
    check_accounts();
}

static void expect_shutdown(void)
{
    struct weirpool_completion none;
    CHECK_OK(weirpool_shutdown(rig.pool));
    CHECK_RC(next(rig.pool, &none), -ESHUTDOWN);
    check_accounts();
}

/* One that did not end as planned broke the pool: with it `fewest` to `most` tasks were lost, and some were dropped. */
static void expect_broken(uint64_t fewest, uint64_t most)
{
    int rc;
    while ((rc = fetch()) != -EPIPE) {
        CHECK(rc == 0 || rc == -ETIMEDOUT);
    }
    AWAIT(atomic_load(&load.refused)); /* also if it was waiting at the gate */
    pthread_join(producer, NULL);
    CHECK(fewest <= load.lost && load.lost <= most);
    CHECK_RC(weirpool_submit(rig.pool, "x", 1, NULL, WEIRPOOL_FOREVER, NULL), -EPIPE); /* the gate is closed */
    check_accounts();
}

/* ---- workers ---- */

/* Of several that died at once one breaks the pool; whether the others are seen to be dead by then is their luck. */
static void expect_death(const struct trial *trial)
{
    bool loses = trial->point->holds == ITS_TASK;
    expect_broken(loses ? 1 : 0, loses ? trial->victims : 0);
}

static void stop_again(const struct trial *trial)
{
    pid_t pid = atomic_load(&plan->hit[0]);
    aim(trial->second, STOP, false);
    CHECK_SYS(kill(pid, SIGCONT));
    go_on_without_them();
}

static void try_at_work(const struct trial *trial)
{
    if (trial->act == KILL) {
        expect_death(trial);
        CHECK_EQ(hits(), plan->victims);
        return;
    }
    go_on_without_them();
    if (trial->second != NULL) {
        stop_again(trial);
    }
    signal_stopped(trial->then_kill ? SIGKILL : SIGCONT);
    if (trial->then_kill) {
        expect_death(trial);
    } else {
        expect_success();
        expect_shutdown();
    }
}

static void try_leaving(const struct trial *trial)
{
    FETCH_UNTIL(atomic_load(&load.ended) > 2 * (uint64_t)BURST);
    expect_success();
    expect_shutdown();
    AWAIT(hits() == plan->victims);
    if (trial->act == STOP) {
        await_stopped();
        signal_stopped(trial->then_kill ? SIGKILL : SIGCONT);
    }
}

static void try_point(const struct trial *trial)
{
    make_plan(trial);
    start(trial->point->work);
    if (trial->point->work == LEAVING) {
        try_leaving(trial);
    } else {
        try_at_work(trial);
    }
    clean_up();
}

/* The second half of the passes is a worker that the seed chooses, the first whoever comes first. */
static void launch_passes(const struct point *point, enum act act, bool then_kill, unsigned passes_wanted)
{
    struct dice dice = new_dice((uint64_t)(point - points) * 8 + act * 2 + then_kill);
    for (unsigned pass = 1; pass <= (point->once || point->spins ? 1 : passes_wanted); pass += 2) {
        struct trial *trial = new_trial(point, act);
        trial->then_kill = then_kill;
        trial->pass = pass;
        trial->worker = pass > 1 ? (uint32_t)roll(&dice, WORKERS) : trial->worker;
        launch(try_point, trial);
    }
}

static void test_killed(void)
{
    FOR_EACH_POINT (point) {
        if (can_be_reached(point)) {
            launch_passes(point, KILL, false, 3);
        }
    }
    await_all();
}

static void test_stopped_and_going_on(void)
{
    FOR_EACH_POINT (point) {
        if (can_be_reached(point)) {
            launch_passes(point, STOP, false, 3);
        }
    }
    await_all();
}

static void test_stopped_and_killed(void)
{
    FOR_EACH_POINT (point) {
        if (can_be_reached(point)) {
            launch_passes(point, STOP, true, 1);
        }
    }
    await_all();
}

/* One that was stopped before its claim finds, when it goes on, that others have been there. */
static void test_a_claim_that_comes_late(void)
{
    static const struct point before = {.name = "before_claim"};
    static const char *const late[] = {"after_lost_claim", "after_vain_help"};
    for (int i = 0; i < 4; i++) {
        struct trial *trial = new_trial(&before, STOP);
        trial->second = late[i / 2];
        trial->then_kill = i % 2 == 1;
        launch(try_point, trial);
    }
    await_all();
}

/* ---- two, and all, at one point ---- */

static void launch_many(const struct point *point, uint32_t victims)
{
    for (int then_kill = 0; then_kill < 2; then_kill++) {
        struct trial *trial = new_trial(point, STOP);
        trial->victims = victims;
        trial->then_kill = then_kill == 1;
        launch(try_point, trial);
    }
}

static void test_two_at_one_point(void)
{
    FOR_EACH_POINT (point) {
        if (all_come_by(point)) {
            launch_many(point, 2);
        }
    }
    await_all();
}

static void test_all_at_one_point(void)
{
    FOR_EACH_POINT (point) {
        if (all_come_by(point)) {
            launch_many(point, WORKERS);
        }
    }
    await_all();
}

/* ---- during repair ---- */

static const struct point repair_points[] = {
    {.name = "before_repair"},
    {.name = "after_done_marked"},
    {.name = "after_done_taken"},
    {.name = "after_gate_closed"},
    {.name = "after_halt"},
    {.name = "after_all_ended"},
    {.name = "after_gate_closed", .work = STREAMS},
    {.name = "after_halt", .work = STREAMS},
};
#define REPAIR_POINTS (sizeof repair_points / sizeof *repair_points)

/* Runs something, and kills the first worker in the middle of it. */
static void cause_a_death(enum work work)
{
    start(work);
    FETCH_UNTIL(atomic_load(&load.ended) > BOUND);
    CHECK_SYS(kill(rig.pool->members[0].pid, SIGKILL));
}

/* The second death is found, or not, when the first is repaired: it may have lost a task, or have it dropped. */
static void die_during_repair(const struct trial *trial)
{
    make_plan(trial);
    plan->in_parent = true;
    cause_a_death(trial->point->work);
    expect_broken(0, 2);
    CHECK_EQ(hits(), 1);
    clean_up();
}

static void test_death_during_repair(void)
{
    for (size_t i = 0; i < REPAIR_POINTS; i++) {
        launch(die_during_repair, new_trial(&repair_points[i], KILL_A_WORKER));
    }
    await_all();
}

/* ---- the parent ---- */

static const struct point parent_points[] = {
    {.name = "after_queued"},
    {.name = "after_tail"},
    {.name = "after_waking"},
    {.name = "after_waking_word"},
    {.name = "after_admission"},
    {.name = "after_bits_taken"},
    {.name = "after_free"},
    {.name = "after_end_of_task"},
    {.name = "after_admission", .work = STARTS},
    {.name = "while_draining", .work = STREAMS},
    {.name = "after_drained", .work = STREAMS},
    {.name = "after_free", .work = STREAMS},
};
#define PARENT_POINTS (sizeof parent_points / sizeof *parent_points)

/* In the parent's process: what goes on until its end. */
static void be_a_parent(const struct trial *trial)
{
    bool repairs = trial->point >= repair_points && trial->point < repair_points + REPAIR_POINTS;
    if (repairs) {
        cause_a_death(trial->point->work);
    } else {
        start(trial->point->work);
    }
    FETCH_UNTIL(hits() == 1 && atomic_load(&load.ended) > 4 * (uint64_t)BURST);
    expect_success();
    expect_shutdown();
    clean_up();
}

static void test_the_parent_is_killed(void)
{
    for (size_t i = 0; i < PARENT_POINTS; i++) {
        launch(kill_the_parent, new_trial(&parent_points[i], KILL));
    }
    for (size_t i = 0; i < REPAIR_POINTS; i++) {
        launch(kill_the_parent, new_trial(&repair_points[i], KILL));
    }
    await_all();
}

static void test_the_parent_is_stopped(void)
{
    for (size_t i = 0; i < PARENT_POINTS; i++) {
        launch(stop_the_parent, new_trial(&parent_points[i], STOP));
    }
    await_all();
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    if (UNDER_TSAN) {
        printf("skipped: ThreadSanitizer does not see into other processes\n");
        return 77;
    }
    RUN(test_killed);
    RUN(test_stopped_and_going_on);
    RUN(test_stopped_and_killed);
    RUN(test_a_claim_that_comes_late);
    RUN(test_two_at_one_point);
    RUN(test_all_at_one_point);
    RUN(test_death_during_repair);
    RUN(test_the_parent_is_killed);
    RUN(test_the_parent_is_stopped);
    return check_end();
}
