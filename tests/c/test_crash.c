/*
 * Workers, and the parent, that are killed or stopped at each named point between the engine's steps (crash.h). After
 * each: the pool's invariants hold, no permit is out, each task has ended exactly once with a result or a reason, the
 * gate is open or closed as it should be, and no process is left.
 *
 * A case is a process of its own, several run at once. `test_crash NAME...` runs those tests alone; a case that fails
 * says which it was.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

#include "crash.h"
#include "pool_rig.h"

#define WORKERS 3u
#define BOUND 8u
#define BURST 12u /* more than the bound: the producer waits at the gate in each */
#define AFTERWARDS 24u /* tasks that have to end while a worker is stopped */
#define AT_ONCE 8

/* ---- the plan: who is to end, or to stop, where ---- */

enum act { KILL, STOP, KILL_A_WORKER };

static struct plan {
    const char *point;
    enum act act;
    unsigned pass; /* of that process at that point, from 1 */
    bool in_parent;
    uint32_t worker; /* which one alone; or */
    uint32_t victims; /* whichever come first, so many */
    pid_t parent;
    _Atomic uint32_t hits;
    _Atomic pid_t hit[WORKERS];
} *plan; /* shared by the processes of a case */

#define ANY UINT32_MAX

static uint32_t forks; /* of the parent; in a worker its number */
static unsigned passes; /* of this process, at the point `counted` */
static const char *counted;

static void count_fork(void)
{
    forks++;
}

static void kill_last_worker(void)
{
    const struct wp_member *member = &rig.pool->members[WORKERS - 1];
    if (member->process >= 0) {
        wp_os_process_kill(member->process, member->pid);
        AWAIT(wp_os_process_ended(member->process));
    }
}

void wp_crash_at(const char *point)
{
    bool is_parent = plan != NULL && getpid() == plan->parent;
    if (plan == NULL || is_parent != plan->in_parent || strcmp(point, plan->point) != 0) {
        return;
    }
    if (!is_parent && plan->worker != ANY && plan->worker != forks) {
        return;
    }
    passes = counted == plan->point ? passes + 1 : 1;
    counted = plan->point;
    if (passes != plan->pass) {
        return;
    }
    uint32_t n = atomic_fetch_add(&plan->hits, 1);
    if (n >= plan->victims) {
        return;
    }
    atomic_store(&plan->hit[n], getpid());
    if (plan->act == KILL_A_WORKER) {
        kill_last_worker();
    } else {
        kill(getpid(), plan->act == KILL ? SIGKILL : SIGSTOP);
    }
}

static uint32_t hits(void)
{
    uint32_t n = atomic_load(&plan->hits);
    return n < plan->victims ? n : plan->victims;
}

/* Returns once all that are to stop have stopped. */
static void await_stopped(void)
{
    for (uint32_t i = 0; i < plan->victims; i++) {
        siginfo_t info;
        AWAIT(atomic_load(&plan->hit[i]) != 0);
        CHECK_SYS(waitid(P_PID, (id_t)atomic_load(&plan->hit[i]), &info, WSTOPPED | WNOWAIT));
    }
}

static void signal_stopped(int signal)
{
    for (uint32_t i = 0; i < plan->victims; i++) {
        CHECK_SYS(kill(atomic_load(&plan->hit[i]), signal));
    }
}

/* ---- the points ---- */

/* What has to be going on for a worker to come by. */
enum work {
    SMALL,
    STARTS, /* a bound on tasks that have not started: workers say when they claim */
    STREAMS, /* results that are larger than a ring */
    LEAVING, /* a shut down */
};

enum holds { NOTHING, ITS_TASK };

struct point {
    const char *name;
    enum work work;
    enum holds holds; /* what dies with it */
    bool once; /* in a worker's life; or at least not often, and not by each */
    bool spins; /* only a worker that may spin comes by: the first, on two cores and more; and seldom, in vain */
};

static const struct point points[] = {
    {.name = "before_attach", .once = true},
    {.name = "after_map", .once = true},
    {.name = "after_attach", .once = true},
    {.name = "before_up", .once = true},
    {.name = "after_up", .once = true},
    {.name = "after_search_began", .spins = true},
    {.name = "before_search_ended", .spins = true},
    {.name = "after_search_ended", .spins = true},
    {.name = "after_parked"},
    {.name = "after_parked_bit"},
    {.name = "before_sleep"},
    {.name = "after_sleep"},
    {.name = "after_unparked"},
    {.name = "after_unparked_bit"},
    {.name = "before_claim"},
    {.name = "after_claim", .holds = ITS_TASK},
    {.name = "after_help", .holds = ITS_TASK},
    {.name = "after_note_start", .holds = ITS_TASK},
    {.name = "before_started", .work = STARTS, .holds = ITS_TASK},
    {.name = "after_started", .work = STARTS, .holds = ITS_TASK},
    {.name = "after_tell_start", .work = STARTS, .holds = ITS_TASK},
    {.name = "before_waking", .holds = ITS_TASK, .once = true},
    {.name = "after_waking", .holds = ITS_TASK, .once = true},
    {.name = "after_waking_word", .holds = ITS_TASK, .once = true},
    {.name = "after_look", .holds = ITS_TASK},
    {.name = "before_result", .holds = ITS_TASK},
    {.name = "after_result", .holds = ITS_TASK},
    {.name = "before_head", .work = STREAMS, .holds = ITS_TASK},
    {.name = "before_written", .work = STREAMS, .holds = ITS_TASK},
    {.name = "after_head", .work = STREAMS, .holds = ITS_TASK},
    {.name = "at_full_ring", .work = STREAMS, .holds = ITS_TASK},
    {.name = "after_streaming_bit", .work = STREAMS, .holds = ITS_TASK},
    {.name = "after_starved", .work = STREAMS, .holds = ITS_TASK},
    {.name = "after_room", .work = STREAMS, .holds = ITS_TASK},
    {.name = "after_last_byte", .work = STREAMS, .holds = ITS_TASK},
    {.name = "before_done", .holds = ITS_TASK},
    {.name = "after_done"},
    {.name = "after_done_bit"},
    {.name = "before_ring"},
    {.name = "after_helper_bell"},
    {.name = "after_ring"},
    {.name = "before_leaves", .work = LEAVING, .once = true},
    {.name = "after_leaves", .work = LEAVING, .once = true},
};

/* ---- the load ---- */

static struct {
    pthread_t producer;
    enum work work;
    _Atomic uint64_t submitted;
    _Atomic uint64_t ended;
    uint64_t succeeded, lost, dropped;
    _Atomic bool enough;
    _Atomic bool refused; /* the producer was: -EPIPE */
    bool seen[65536];
} load;

/* Long enough that each worker gets some of a burst. */
static int take_a_moment(const void *payload, size_t size, weirpool_reply *reply, void *context)
{
    check_nap();
    return obey(payload, size, reply, context);
}

static uint64_t result_size_of(uint64_t id)
{
    return load.work == STREAMS ? WP_STREAM_BYTES + 100000 + id : id % 200;
}

static bool submit_one(void)
{
    uint64_t id = atomic_load(&load.submitted);
    struct order o = {.id = id, .result_size = result_size_of(id)};
    CHECK(id < 65536);
    int rc = give(rig.pool, &o, sizeof o + id % 300, WEIRPOOL_FOREVER, NULL);
    if (rc == 0) {
        atomic_fetch_add(&load.submitted, 1);
    } else {
        CHECK_RC(rc, -EPIPE);
        atomic_store(&load.refused, true);
    }
    return rc == 0;
}

/* Nothing runs but what stopped workers may hold. */
static bool is_quiet(void)
{
    return atomic_load(&load.ended) + hits() >= atomic_load(&load.submitted);
}

/* In bursts, so that workers find work, and find none. */
static void *produce(void *nothing)
{
    while (!atomic_load(&load.enough) && !atomic_load(&load.refused)) {
        for (uint32_t i = 0; i < BURST && submit_one(); i++) {
        }
        AWAIT(is_quiet() || atomic_load(&load.enough));
        check_nap();
    }
    return nothing;
}

static void note_end(const struct weirpool_completion *completion)
{
    uint64_t id = (uintptr_t)completion->user;
    CHECK(!load.seen[id]);
    load.seen[id] = true;
    unsigned runs = atomic_load(&board->runs[id]);
    if (completion->error == 0) {
        check_answer(completion, result_size_of(id));
        CHECK_EQ(runs, 1);
        load.succeeded++;
    } else if (completion->error == -EOWNERDEAD) {
        CHECK(runs <= 1 && completion->worker_pid > 0);
        CHECK_EQ(completion->worker_status, SIGKILL);
        load.lost++;
    } else {
        CHECK_RC(completion->error, -EPIPE);
        CHECK(runs <= 1);
        load.dropped++;
    }
    weirpool_release(rig.pool, completion->task);
    atomic_fetch_add(&load.ended, 1);
}

/* Fetches an end if there is one soon. Returns what weirpool_next() said; one that was stopped is interrupted by that. */
static int fetch(void)
{
    struct weirpool_completion completion;
    int rc = weirpool_next(rig.pool, &completion, weirpool_deadline(2000000));
    if (rc == 0) {
        note_end(&completion);
    }
    return rc == -EINTR && plan->in_parent ? 0 : rc;
}

#define FETCH_UNTIL(condition)                                                                                         \
    do {                                                                                                               \
        int64_t fetch_limit = check_now() + PATIENCE_NS;                                                               \
        while (!(condition)) {                                                                                         \
            int fetched = fetch();                                                                                     \
            CHECK(fetched == 0 || fetched == -ETIMEDOUT);                                                              \
            CHECK(check_now() < fetch_limit);                                                                          \
        }                                                                                                              \
    } while (0)

static void start(enum work work)
{
    plan->parent = getpid();
    check_main_pid = getpid();
    forks = 0;
    load.work = work;
    board = board_new();
    struct weirpool_options options = {
        .size = sizeof options,
        .workers = WORKERS,
        .bound = BOUND,
        .max_unstarted = work == STARTS ? 2 : 0,
        .handler = take_a_moment,
        .context = board,
    };
    rig = (struct rig){.kind = FORKED, .workers = WORKERS};
    CHECK_OK(weirpool_open(&rig.pool, &options));
    CHECK_OK(pthread_create(&load.producer, NULL, produce, NULL));
}

static void stop_producing(void)
{
    atomic_store(&load.enough, true);
    uint64_t all_at = check_now() + PATIENCE_NS;
    while (pthread_tryjoin_np(load.producer, NULL) != 0) { /* it may wait for room */
        (void)fetch();
        CHECK((uint64_t)check_now() < all_at);
    }
}

/* ---- the ends ---- */

static void check_accounts(void)
{
    CHECK_EQ(load.ended, load.submitted);
    CHECK_EQ(load.succeeded + load.lost + load.dropped, load.submitted);
    CHECK_EQ(outstanding(rig.pool), 0);
    CHECK_EQ(blocked(rig.pool), 0);
    check_pool(rig.pool);
}

static void clean_up(void)
{
    CHECK_OK(weirpool_close(rig.pool));
    board_free(board);
    CHECK(!has_children());
}

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
    pthread_join(load.producer, NULL);
    CHECK(fewest <= load.lost && load.lost <= most);
    CHECK_RC(weirpool_submit(rig.pool, "x", 1, NULL, WEIRPOOL_FOREVER, NULL), -EPIPE); /* the gate is closed */
    check_accounts();
}

/* ---- cases ---- */

struct trial {
    const char *name;
    const struct point *point;
    enum act act;
    bool then_kill; /* what was stopped; else it goes on */
    unsigned pass;
    uint32_t victims;
    uint32_t worker;
    const char *second; /* a point to which one that was stopped at the first goes on */
};

static void make_plan(const struct trial *trial)
{
    plan->point = trial->point->name;
    plan->act = trial->act;
    plan->pass = trial->pass;
    plan->victims = trial->victims;
    plan->worker = trial->victims > 1 ? ANY : trial->worker;
}

/* Of several that died at once one breaks the pool; whether the others are seen to be dead by then is their luck. */
static void expect_death(const struct trial *trial)
{
    bool loses = trial->point->holds == ITS_TASK;
    expect_broken(loses ? 1 : 0, loses ? trial->victims : 0);
}

/* The others go on while some are stopped. */
static void go_on_without_them(const struct trial *trial)
{
    FETCH_UNTIL(hits() == plan->victims);
    await_stopped();
    uint64_t now = atomic_load(&load.ended);
    if (trial->victims < WORKERS) {
        FETCH_UNTIL(atomic_load(&load.ended) >= now + AFTERWARDS);
    }
    check_pool(rig.pool);
}

static void stop_again(const struct trial *trial)
{
    pid_t pid = atomic_load(&plan->hit[0]);
    plan->point = trial->second;
    plan->pass = 1;
    atomic_store(&plan->hit[0], 0);
    atomic_store(&plan->hits, 0);
    CHECK_SYS(kill(pid, SIGCONT));
    go_on_without_them(trial);
}

static void try_at_work(const struct trial *trial)
{
    if (trial->act == KILL) {
        expect_death(trial);
        CHECK_EQ(hits(), plan->victims);
        return;
    }
    go_on_without_them(trial);
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

/* ---- running many cases ---- */

typedef void trial_function(const struct trial *trial);

static struct {
    pid_t pid;
    const struct trial *trial;
} under_way[AT_ONCE];

static void describe(const struct trial *trial, char *text, size_t room)
{
    snprintf(text, room, "%s, pass %u, worker %d, %u of %u, %s%s%s%s", trial->point->name, trial->pass,
             trial->worker == ANY ? -1 : (int)trial->worker, trial->victims, WORKERS,
             trial->act == KILL   ? "killed"
             : trial->act == STOP ? "stopped"
                                  : "another is killed",
             trial->second != NULL ? ", again at " : "", trial->second != NULL ? trial->second : "",
             trial->act != STOP ? ""
             : trial->then_kill ? ", then killed"
                                : ", then goes on");
}

static void await_one(void)
{
    int status;
    pid_t pid = wait(&status);
    CHECK_SYS(pid);
    for (int i = 0; i < AT_ONCE; i++) {
        if (under_way[i].pid == pid) {
            char text[200];
            describe(under_way[i].trial, text, sizeof text);
            under_way[i].pid = 0;
            if (status != 0) {
                check_failed(__FILE__, __LINE__, text, "failed");
            }
            return;
        }
    }
}

static int free_place(void)
{
    for (int i = 0; i < AT_ONCE; i++) {
        if (under_way[i].pid == 0) {
            return i;
        }
    }
    await_one();
    return free_place();
}

static void launch(trial_function *function, const struct trial *trial)
{
    int place = free_place();
    fflush(NULL);
    pid_t pid = fork();
    CHECK_SYS(pid);
    if (pid == 0) {
        plan = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(plan != MAP_FAILED);
        CHECK_OK(pthread_atfork(NULL, count_fork, NULL));
        plan->worker = ANY;
        plan->point = "";
        function(trial);
        fflush(NULL);
        _exit(0);
    }
    under_way[place].pid = pid;
    under_way[place].trial = trial;
}

static void await_all(void)
{
    while (has_children()) {
        await_one();
    }
}

/* ---- workers, one at a point ---- */

#define EACH_POINT(p) (const struct point *p = points; p < points + sizeof points / sizeof *points; p++)

/* Lives as long as the cases that refer to it. */
static struct trial *new_trial(const struct point *point, enum act act)
{
    static struct trial trials[1000];
    static size_t count;
    CHECK(count < 1000);
    trials[count] = (struct trial){
        .point = point,
        .act = act,
        .pass = 1,
        .victims = 1,
        .worker = point->spins ? 0 : ANY,
    };
    return &trials[count++];
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

static bool can_be_reached(const struct point *point)
{
    if (point->spins && wp_os_cores() < 2) {
        printf("    %s: skipped, no worker spins on one core\n", point->name);
        return false;
    }
    return true;
}

static void test_killed(void)
{
    for
        EACH_POINT(point)
        {
            if (can_be_reached(point)) {
                launch_passes(point, KILL, false, 3);
            }
        }
    await_all();
}

static void test_stopped_and_going_on(void)
{
    for
        EACH_POINT(point)
        {
            if (can_be_reached(point)) {
                launch_passes(point, STOP, false, 3);
            }
        }
    await_all();
}

static void test_stopped_and_killed(void)
{
    for
        EACH_POINT(point)
        {
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

/* Not every worker comes to those where one wakes another; where starts are bounded two may hold all that may start. */
static bool all_come_by(const struct point *point)
{
    return !point->spins && point->work != STARTS && strstr(point->name, "waking") == NULL;
}

static void test_two_at_one_point(void)
{
    for
        EACH_POINT(point)
        {
            if (all_come_by(point)) {
                launch_many(point, 2);
            }
        }
    await_all();
}

static void test_all_at_one_point(void)
{
    for
        EACH_POINT(point)
        {
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

static pid_t fork_parent(const struct trial *trial)
{
    CHECK_SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
    make_plan(trial);
    plan->in_parent = true;
    pid_t pid = fork();
    CHECK_SYS(pid);
    if (pid == 0) {
        be_a_parent(trial);
        fflush(NULL);
        _exit(0);
    }
    return pid;
}

static void kill_the_parent(const struct trial *trial)
{
    int status;
    pid_t pid = fork_parent(trial);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, SIGKILL);
    CHECK_EQ(hits(), 1);
    AWAIT((waitpid(-1, NULL, WNOHANG), !has_children())); /* its workers are ours now, and see by themselves */
}

static void stop_the_parent(const struct trial *trial)
{
    int status;
    pid_t pid = fork_parent(trial);
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    CHECK(WIFSTOPPED(status));
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL); /* for workers to run dry; any time is sound */
    CHECK_SYS(kill(pid, SIGCONT));
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    CHECK(!has_children());
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
