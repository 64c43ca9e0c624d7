/*
 * The same as test_crash.c in a pool that replaces its workers: a death at any point costs at most the task of the worker
 * that died, or an attempt of it, and its number gets another worker. Everybody else's tasks succeed.
 *
 * `test_crash_replace NAME...` runs those tests alone.
 */
#include "crash_load.h"
#include "replace_rig.h"

#define LIFE 6u /* how many tasks a worker runs where workers leave as planned */

static bool broke, drained;

/* ---- workers ---- */

static int finish_one(weirpool_worker *worker, const struct weirpool_claimed *task)
{
    struct order order;
    memcpy(&order, task->payload, sizeof order);
    const unsigned char *rest = (const unsigned char *)task->payload + sizeof order;
    int status = is_pattern(rest, task->size - sizeof order, order.id, 0) ? (int)order.id : -1;
    atomic_fetch_add(&board->runs[order.id], 1);
    unsigned char *result = malloc(order.result_size + 1);
    CHECK(result != NULL);
    fill_pattern(result, order.result_size, ~order.id, 0);
    struct iovec part = {.iov_base = result, .iov_len = order.result_size};
    int rc = weirpool_finish(worker, status, &part, 1);
    free(result);
    return rc;
}

static int serve(weirpool_worker *worker)
{
    int rc = 0;
    weirpool_announce(worker, WEIRPOOL_UP);
    for (uint32_t n = 0; rc == 0 && (load.work != LEAVING || n < LIFE);) {
        struct weirpool_claimed task;
        rc = weirpool_claim(worker, &task, WEIRPOOL_FOREVER);
        if (rc == 0) {
            check_nap(); /* so that each worker gets some of a burst */
            rc = finish_one(worker, &task);
            n++;
        }
        rc = rc == -EINTR ? 0 : rc;
    }
    if (rc == 0 || rc == -ESHUTDOWN) {
        weirpool_announce(worker, WEIRPOOL_LEAVES);
        rc = 0;
    }
    return rc;
}

static void start_one(void)
{
    uint32_t number;
    weirpool_worker *worker;
    pid_t pid = fork_worker(rig.pool, &number, &worker);
    if (pid == 0) {
        int rc = serve(worker);
        weirpool_detach(worker);
        _exit(rc == 0 ? 0 : 1);
    }
    wp_crash_at("before_watch");
    watch_worker(number, pid);
}

/* ---- the load ---- */

static void note_end_of(weirpool_task *task)
{
    struct weirpool_completion completion;
    weirpool_describe(task, &completion);
    note_end(&completion);
}

/*
 * Who waits for room, and how many of a burst it has been given. No thread: where one is in the midst of something when
 * a worker is forked, that worker finds the allocator of a sanitizer locked.
 */
static struct {
    weirpool_ticket *ticket;
    uint32_t given;
} line;

static void stand_in_line(void)
{
    uint64_t id = atomic_load(&load.submitted);
    size_t size;
    unsigned char *payload = next_payload(id, &size);
    struct iovec part = {.iov_base = payload, .iov_len = size};
    const struct weirpool_request request = {
        .parts = &part,
        .count = 1,
        .user = (void *)(uintptr_t)id,
        .retries = load.retries,
    };
    int rc = weirpool_queue(rig.pool, &request, NULL, &line.ticket);
    free(payload);
    if (rc != 0) {
        CHECK_RC(rc, -EPIPE);
        load.refused = true;
    }
}

/* Whose turn has not come stays in line. */
static bool has_its_turn_come(void)
{
    int rc = weirpool_await(rig.pool, line.ticket, WEIRPOOL_NOW);
    if (rc == -EAGAIN || rc == -EINTR) {
        return false;
    }
    CHECK(rc == 0 || rc == -EPIPE);
    load.submitted += rc == 0;
    load.refused = rc != 0;
    line.given++;
    line.ticket = NULL;
    return true;
}

/* In bursts, so that workers find work, and find none. */
static bool is_one_wanted(void)
{
    if (line.given == BURST && is_quiet()) {
        line.given = 0;
        let_workers_sleep();
    }
    return line.given < BURST && !load.enough && !load.refused;
}

static void feed(void)
{
    do {
        if (line.ticket == NULL && is_one_wanted()) {
            stand_in_line();
        }
    } while (line.ticket != NULL && has_its_turn_come());
}

/* Does what a pool's owner has to, and submits. One that was stopped is interrupted by that. */
static int fetch(void)
{
    feed();
    weirpool_task *task;
    struct weirpool_event event = {.kind = WEIRPOOL_NOTHING};
    int n = weirpool_collect(rig.pool, &task, 1, &event, weirpool_deadline(2000000));
    if (n == 1) {
        note_end_of(task);
    }
    drained |= event.kind == WEIRPOOL_DRAINED;
    broke |= event.kind == WEIRPOOL_BROKE;
    if (event.kind == WEIRPOOL_WORKER_LEFT) {
        reap(event.worker);
        if (!drained) {
            start_one();
        }
    }
    return n >= 0 || (n == -EINTR && plan->in_parent) ? 0 : n;
}

static void start(const struct trial *trial, uint32_t workers)
{
    struct weirpool_options options = {.workers = workers, .replace = 1};
    load.retries = trial->retries;
    open_pool(trial->point->work, &options);
    for (uint32_t i = 0; i < workers; i++) {
        start_one();
    }
}

/* ---- the ends ---- */

/* What was lost, and cost. */
struct toll {
    uint64_t deaths;
    uint64_t attempts; /* lost with a worker, or */
    uint64_t at_most; /* if that is not known: up to so many more */
    uint64_t stopped; /* attempts that were condemned */
};

static void await_deaths(uint64_t deaths)
{
    FETCH_UNTIL(stats().workers_died >= deaths && stats().workers == rig.workers);
}

/* Everything else ends well. A number was given to another worker, or that would be missing. */
static void expect_survival(const struct toll *toll)
{
    await_deaths(toll->deaths);
    load.enough = true;
    FETCH_UNTIL(line.ticket == NULL && load.ended == load.submitted && stats().workers == rig.workers);
    stand_in_line(); /* the gate is open */
    FETCH_UNTIL(line.ticket == NULL && load.ended == load.submitted);
    CHECK(!load.refused);
    struct weirpool_stats now = stats();
    uint64_t lost = now.retried + load.lost + load.cancelled;
    CHECK_EQ(now.workers_died, toll->deaths);
    CHECK_EQ(now.stopped, toll->stopped);
    CHECK(toll->attempts <= lost && lost <= toll->attempts + toll->at_most);
    CHECK_EQ(load.dropped, 0);
    CHECK_EQ(load.lost, load.retries == 0 ? lost - load.cancelled : 0);
    CHECK_EQ(weirpool_fault(rig.pool), WEIRPOOL_FAULT_NONE);
    check_accounts();
}

static bool have_all_left(void)
{
    for (uint32_t i = 0; i < rig.workers; i++) {
        if (rig.pids[i] != 0) {
            return false;
        }
    }
    return drained;
}

static void shut_down(void)
{
    CHECK_OK(weirpool_shutdown(rig.pool));
    FETCH_UNTIL(have_all_left());
    check_accounts();
    clean_up();
}

/* ---- workers, one or two at a point ---- */

/* One that has said that it leaves may be killed: that is no death any more. */
static struct toll toll_of(const struct trial *trial)
{
    bool has_left = strcmp(trial->point->name, "after_leaves") == 0;
    bool dies = trial->act == KILL || trial->then_kill;
    return (struct toll){
        .deaths = dies && !has_left ? trial->victims : 0,
        .attempts = dies && trial->point->holds == ITS_TASK ? trial->victims : 0,
    };
}

static void try_point(const struct trial *trial)
{
    struct toll toll = toll_of(trial);
    make_plan(trial);
    start(trial, WORKERS);
    if (trial->act == STOP) {
        go_on_without_them();
        signal_stopped(trial->then_kill ? SIGKILL : SIGCONT);
    }
    FETCH_UNTIL(hits() == plan->victims);
    expect_survival(&toll);
    shut_down();
}

static void test_killed(void)
{
    FOR_EACH_POINT (point) {
        for (uint32_t retries = 0; can_be_reached(point) && retries < 2; retries++) {
            struct trial *trial = new_trial(point, KILL);
            trial->retries = retries;
            trial->pass = point->once || point->spins ? 1 : 1 + 2 * retries;
            launch(try_point, trial);
        }
    }
    await_all();
}

/* What goes on is as in a pool that replaces nobody; so that here these are fewer. */
static void test_stopped(void)
{
    FOR_EACH_POINT (point) {
        for (int then_kill = 0; can_be_reached(point) && then_kill < 2; then_kill++) {
            struct trial *trial = new_trial(point, STOP);
            trial->then_kill = then_kill == 1;
            trial->retries = (uint32_t)(point - points) % 2;
            launch(try_point, trial);
        }
    }
    await_all();
}

static void test_two_killed_at_one_point(void)
{
    FOR_EACH_POINT (point) {
        if (all_come_by(point)) {
            struct trial *trial = new_trial(point, STOP);
            trial->then_kill = true;
            trial->victims = 2;
            trial->retries = (uint32_t)(point - points + 1) % 2;
            launch(try_point, trial);
        }
    }
    await_all();
}

/* ---- workers whose task is stopped ---- */

/* The task that a worker has. */
static weirpool_task *task_of(pid_t pid)
{
    weirpool_task *task = NULL;
    wp_lock(rig.pool);
    for (uint32_t i = 0; i < rig.pool->segment.slots; i++) {
        uint64_t state = wp_load_acquire(&rig.pool->segment.slot[i].state);
        if (wp_state_runs(state) && rig.pids[wp_state_worker(state)] == pid) {
            task = rig.pool->table.tasks[i];
        }
    }
    wp_unlock(rig.pool);
    CHECK(task != NULL);
    return task;
}

/* By its owner, or as if it were over its limit. */
static void stop_its_task(pid_t pid, bool forced)
{
    weirpool_task *task = task_of(pid);
    if (forced) {
        CHECK_OK(weirpool_stop(rig.pool, task));
        note_end_of(task);
    } else {
        wp_lock(rig.pool);
        CHECK(wp_condemn(rig.pool, task));
        wp_unlock(rig.pool);
    }
}

/* A worker that is stopped where it holds a task: returns its process. */
static pid_t stop_at(const char *point, const struct trial *trial)
{
    aim(point, STOP, false);
    start(trial, WORKERS);
    go_on_without_them();
    return atomic_load(&plan->hit[0]);
}

static void try_condemned(const struct trial *trial)
{
    struct toll toll = {.stopped = 1, .attempts = 1};
    pid_t pid = stop_at(trial->point->name, trial);
    plan->it = pid;
    aim("after_condemned", trial->act, true);
    stop_its_task(pid, trial->forced);
    CHECK_EQ(hits(), 1);
    expect_survival(&toll);
    CHECK_EQ(load.cancelled, trial->forced);
    shut_down();
}

static bool is_at_its_worker(const struct point *point)
{
    return point->holds == ITS_TASK && can_be_reached(point);
}

/* What streams waits for the parent, who waits here for its end. */
static enum act go_on_at(const struct point *point)
{
    return point->work == STREAMS ? LET_IT_GO_ON : LET_IT_GO_AND_END;
}

/* Between the parent's word and its kill the worker has died, or goes on: it may finish, and learns that it may not. */
static void test_condemned(void)
{
    FOR_EACH_POINT (point) {
        for (int goes_on = 0; is_at_its_worker(point) && goes_on < 2; goes_on++) {
            struct trial *trial = new_trial(point, goes_on == 1 ? go_on_at(point) : KILL_IT);
            trial->forced = (point - points + goes_on) % 2 == 0;
            trial->retries = 1;
            launch(try_condemned, trial);
        }
    }
    await_all();
}

/* ---- workers that die before their first claim ---- */

static const struct point *point_named(const char *name)
{
    FOR_EACH_POINT (point) {
        if (strcmp(point->name, name) == 0) {
            return point;
        }
    }
    CHECK(false);
    return NULL;
}

static const char *const first_points[] = {"before_attach", "after_map", "after_attach", "before_up", "after_up"};
#define FIRST_POINTS (sizeof first_points / sizeof *first_points)

/* Of a worker that was killed at work: it may have had a task. */
static void try_replacement(const struct trial *trial)
{
    struct toll toll = {.deaths = 1 + toll_of(trial).deaths, .at_most = 1};
    make_plan(trial);
    plan->first = WORKERS;
    start(trial, WORKERS);
    FETCH_UNTIL(atomic_load(&load.ended) > BOUND);
    kill_worker(0);
    if (trial->act == STOP) {
        go_on_without_them();
        signal_stopped(trial->then_kill ? SIGKILL : SIGCONT);
    }
    FETCH_UNTIL(hits() == 1);
    expect_survival(&toll);
    shut_down();
}

/* In a pool of one, so that nothing can finish meanwhile. */
static void try_three_in_a_row(const struct trial *trial)
{
    make_plan(trial);
    plan->first = 1;
    plan->worker = ANY;
    start(trial, 1);
    FETCH_UNTIL(atomic_load(&load.ended) > BOUND);
    kill_worker(0);
    FETCH_UNTIL(broke && load.refused); /* also whom it found in line */
    CHECK_EQ(weirpool_fault(rig.pool), WEIRPOOL_FAULT_DEATHS_IN_A_ROW);
    CHECK_EQ(stats().workers_died, WEIRPOOL_DEATHS_IN_A_ROW);
    CHECK(load.lost <= (trial->retries == 0));
    CHECK_RC(weirpool_submit(rig.pool, "x", 1, NULL, WEIRPOOL_FOREVER, NULL), -EPIPE);
    check_accounts();
    CHECK_EQ(waitpid(rig.pids[0], NULL, 0), rig.pids[0]);
    clean_up();
}

static void test_replacement(void)
{
    for (size_t i = 0; i < FIRST_POINTS; i++) {
        for (int kind = 0; kind < 3; kind++) {
            struct trial *trial = new_trial(point_named(first_points[i]), kind == 0 ? KILL : STOP);
            trial->then_kill = kind == 2;
            trial->retries = (uint32_t)(kind + (int)i) % 2;
            launch(try_replacement, trial);
        }
    }
    await_all();
}

static void test_three_replacements_in_a_row(void)
{
    for (size_t i = 0; i < FIRST_POINTS; i++) {
        struct trial *trial = new_trial(point_named(first_points[i]), KILL);
        trial->victims = WEIRPOOL_DEATHS_IN_A_ROW - 1;
        trial->retries = (uint32_t)i % 2;
        launch(try_three_in_a_row, trial);
    }
    await_all();
}

/* ---- during repair, and in the parent ---- */

/* Where a worker's task is lost, or stopped, and what became of it. */
static const struct point repair_points[] = {
    {.name = "before_repair"},
    {.name = "after_done_marked"},
    {.name = "after_done_taken"},
    {.name = "while_clearing"},
    {.name = "after_stream_cleared"},
    {.name = "before_loss"},
    {.name = "after_payload_kept"},
    {.name = "after_slot_given_up"},
    {.name = "after_put_back"},
    {.name = "after_loss"},
    {.name = "after_departure"},
    {.name = "after_starting"},
    {.name = "before_watch"},
    {.name = "after_done_taken", .work = STREAMS},
    {.name = "while_clearing", .work = STREAMS},
    {.name = "after_stream_cleared", .work = STREAMS},
    {.name = "after_put_back", .work = STREAMS},
    {.name = "after_departure", .work = STREAMS},
};
#define REPAIR_POINTS (sizeof repair_points / sizeof *repair_points)

static const struct point stop_points[] = {
    {.name = "after_condemned"},
    {.name = "after_kill"},
    {.name = "after_condemned", .work = STREAMS},
    {.name = "after_kill", .work = STREAMS},
};
#define STOP_POINTS (sizeof stop_points / sizeof *stop_points)

static bool is_stop_point(const struct point *point)
{
    return point >= stop_points && point < stop_points + STOP_POINTS;
}

/* A worker that has a task is killed, or its task stopped: then the parent comes to the trial's point. */
static void cause_a_loss(const struct trial *trial)
{
    pid_t pid = stop_at(trial->point->work == STREAMS ? "at_full_ring" : "before_done", trial);
    plan->it = is_stop_point(trial->point) ? pid : 0;
    aim(trial->point->name, trial->act, true);
    if (is_stop_point(trial->point)) {
        stop_its_task(pid, trial->forced);
    } else {
        CHECK_SYS(kill(pid, SIGKILL));
    }
    FETCH_UNTIL(hits() == 1);
}

static void die_during_repair(const struct trial *trial)
{
    bool stops = is_stop_point(trial->point);
    struct toll toll = {.deaths = 2 - stops, .attempts = 1, .at_most = 1, .stopped = stops};
    cause_a_loss(trial);
    expect_survival(&toll);
    shut_down();
}

static void test_death_during_repair(void)
{
    for (size_t i = 0; i < REPAIR_POINTS; i++) {
        struct trial *trial = new_trial(&repair_points[i], KILL_A_WORKER);
        trial->retries = 2; /* both may hit the same task */
        launch(die_during_repair, trial);
    }
    for (size_t i = 0; i < STOP_POINTS; i++) {
        struct trial *trial = new_trial(&stop_points[i], KILL_A_WORKER);
        trial->retries = 2; /* both may hit the same task */
        trial->forced = i % 2 == 0;
        launch(die_during_repair, trial);
    }
    await_all();
}

static void be_a_parent(const struct trial *trial)
{
    bool stops = is_stop_point(trial->point);
    struct toll toll = {.deaths = !stops, .attempts = 1, .stopped = stops};
    cause_a_loss(trial);
    expect_survival(&toll);
    shut_down();
}

static void launch_parents(trial_function *function, enum act act)
{
    for (size_t i = 0; i < REPAIR_POINTS + STOP_POINTS; i++) {
        const struct point *point = i < REPAIR_POINTS ? &repair_points[i] : &stop_points[i - REPAIR_POINTS];
        struct trial *trial = new_trial(point, act);
        trial->retries = 1;
        trial->forced = i % 2 == 0;
        launch(function, trial);
    }
    await_all();
}

static void test_the_parent_is_killed(void)
{
    launch_parents(kill_the_parent, KILL);
}

static void test_the_parent_is_stopped(void)
{
    launch_parents(stop_the_parent, STOP);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    if (UNDER_TSAN) {
        printf("skipped: ThreadSanitizer does not see into other processes\n");
        return 77;
    }
    RUN(test_killed);
    RUN(test_stopped);
    RUN(test_two_killed_at_one_point);
    RUN(test_condemned);
    RUN(test_replacement);
    RUN(test_three_replacements_in_a_row);
    RUN(test_death_during_repair);
    RUN(test_the_parent_is_killed);
    RUN(test_the_parent_is_stopped);
    return check_end();
}
