/*
 * Who is to be killed, stopped or continued at which point between the engine's steps (crash.h), and cases of that: each
 * is a process of its own, several run at once. A case that fails says which it was.
 */
#ifndef WP_TEST_CRASH_PLAN_H
#define WP_TEST_CRASH_PLAN_H

#include <signal.h>
#include <sys/prctl.h>

#include "crash.h"
#include "pool_rig.h"

#define WORKERS 3u
#define AT_ONCE 16

/* ---- the plan: who is to end, or to stop, where ---- */

enum act {
    KILL,
    STOP,
    KILL_A_WORKER,     /* the parent does: the last that lives, but not `it` */
    KILL_IT,           /* the parent does, and waits: the worker `it`, which was stopped before */
    LET_IT_GO_ON,      /* the parent does */
    LET_IT_GO_AND_END, /* the parent does, and waits for its end */
};

static struct plan {
    const char *point;
    enum act act;
    unsigned pass; /* of that process at that point, from 1 */
    bool in_parent;
    uint32_t first; /* the first of the parent's forks that is meant: WORKERS: those that replace others */
    uint32_t worker; /* which one alone; or */
    uint32_t victims; /* whichever come first, so many */
    pid_t parent;
    pid_t it; /* a worker that was stopped; 0: none */
    _Atomic uint32_t hits;
    _Atomic pid_t hit[WORKERS];
} *plan; /* shared by the processes of a case */

#define ANY UINT32_MAX

static uint32_t forks; /* of the parent; in a worker its number, or more in one that replaces another */
static unsigned passes; /* of this process, at the point `counted` */
static const char *counted;

static void count_fork(void)
{
    forks++;
}

static inline void await_end(pid_t pid)
{
    siginfo_t info;
    CHECK_SYS(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
}

static inline void kill_a_worker(void)
{
    for (uint32_t i = rig.workers; i > 0; i--) {
        const struct wp_member *member = &rig.pool->members[i - 1];
        if (member->process >= 0 && member->pid != plan->it) {
            wp_os_process_kill(member->process, member->pid);
            AWAIT(wp_os_process_ended(member->process));
            return;
        }
    }
}

static inline void do_it(enum act act)
{
    switch (act) {
    case KILL:
        kill(getpid(), SIGKILL);
        break;
    case STOP:
        kill(getpid(), SIGSTOP);
        break;
    case KILL_A_WORKER:
        kill_a_worker();
        break;
    case KILL_IT:
        CHECK_SYS(kill(plan->it, SIGKILL));
        await_end(plan->it);
        break;
    case LET_IT_GO_ON:
        CHECK_SYS(kill(plan->it, SIGCONT));
        break;
    case LET_IT_GO_AND_END:
        CHECK_SYS(kill(plan->it, SIGCONT));
        await_end(plan->it);
        break;
    }
}

static inline bool is_meant(void)
{
    bool is_parent = getpid() == plan->parent;
    bool its_turn = plan->worker == ANY || plan->worker == forks;
    return is_parent == plan->in_parent && (is_parent || (forks >= plan->first && its_turn));
}

void wp_crash_at(const char *point)
{
    if (plan == NULL || strcmp(point, plan->point) != 0 || !is_meant()) {
        return;
    }
    passes = counted == plan->point ? passes + 1 : 1;
    counted = plan->point;
    if (passes != plan->pass) {
        return;
    }
    uint32_t n = atomic_fetch_add(&plan->hits, 1);
    if (n < plan->victims) {
        atomic_store(&plan->hit[n], getpid());
        do_it(plan->act);
    }
}

/* Anew: whoever passes by, once. */
static inline void aim(const char *point, enum act act, bool in_parent)
{
    plan->point = "";
    plan->in_parent = in_parent;
    plan->act = act;
    plan->pass = 1;
    plan->victims = 1;
    plan->worker = ANY;
    atomic_store(&plan->hit[0], 0);
    atomic_store(&plan->hits, 0);
    plan->point = point;
}

static inline uint32_t hits(void)
{
    uint32_t n = atomic_load(&plan->hits);
    return n < plan->victims ? n : plan->victims;
}

/* Returns once all that are to stop have stopped. */
static inline void await_stopped(void)
{
    for (uint32_t i = 0; i < plan->victims; i++) {
        siginfo_t info;
        AWAIT(atomic_load(&plan->hit[i]) != 0);
        CHECK_SYS(waitid(P_PID, (id_t)atomic_load(&plan->hit[i]), &info, WSTOPPED | WNOWAIT));
    }
}

static inline void signal_stopped(int signal)
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
    LEAVING, /* the end of a worker, as planned */
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

#define FOR_EACH_POINT(p) for (const struct point *p = points; p < points + sizeof points / sizeof *points; p++)

/* Not every worker comes to those where one wakes another; where starts are bounded two may hold all that may start. */
static inline bool all_come_by(const struct point *point)
{
    return !point->spins && point->work != STARTS && strstr(point->name, "waking") == NULL;
}

static inline bool can_be_reached(const struct point *point)
{
    if (point->spins && wp_os_cores() < 2) {
        printf("    %s: skipped, no worker spins on one core\n", point->name);
        return false;
    }
    return true;
}

/* ---- cases ---- */

struct trial {
    const struct point *point;
    enum act act;
    bool then_kill; /* what was stopped; else it goes on */
    unsigned pass;
    uint32_t victims;
    uint32_t worker;
    const char *second; /* a point to which one that was stopped at the first goes on */
    uint32_t retries; /* of each task */
    bool forced; /* of a task that is stopped: its owner does that; else it is over its limit */
};

typedef void trial_function(const struct trial *trial);

static struct {
    pid_t pid;
    const struct trial *trial;
} under_way[AT_ONCE];

static inline void make_plan(const struct trial *trial)
{
    plan->point = trial->point->name;
    plan->act = trial->act;
    plan->pass = trial->pass;
    plan->victims = trial->victims;
    plan->worker = trial->victims > 1 ? ANY : trial->worker;
}

/* Lives as long as the cases that refer to it. */
static inline struct trial *new_trial(const struct point *point, enum act act)
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

static inline void describe(const struct trial *trial, char *text, size_t room)
{
    static const char *const acts[] = {
        [KILL] = "killed",
        [STOP] = "stopped",
        [KILL_A_WORKER] = "another is killed",
        [KILL_IT] = "condemned, and killed before",
        [LET_IT_GO_ON] = "condemned, and goes on before",
        [LET_IT_GO_AND_END] = "condemned, and ends before",
    };
    snprintf(text, room, "%s, work %d, pass %u, worker %d, %u of %u, %u retries, %s%s%s%s%s", trial->point->name,
             (int)trial->point->work, trial->pass, trial->worker == ANY ? -1 : (int)trial->worker, trial->victims,
             WORKERS, trial->retries, acts[trial->act], trial->second != NULL ? ", again at " : "",
             trial->second != NULL ? trial->second : "", trial->forced ? ", by its owner" : "",
             trial->act != STOP ? ""
             : trial->then_kill ? ", then killed"
                                : ", then goes on");
}

static inline void await_one(void)
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

static inline int free_place(void)
{
    for (int i = 0; i < AT_ONCE; i++) {
        if (under_way[i].pid == 0) {
            return i;
        }
    }
    await_one();
    return free_place();
}

static inline void launch(trial_function *function, const struct trial *trial)
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

static inline void await_all(void)
{
    while (has_children()) {
        await_one();
    }
}

/* ---- the parent ---- */

/* In the parent's process: what goes on until its end. */
static trial_function be_a_parent;

static inline pid_t fork_parent(const struct trial *trial)
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

static inline void kill_the_parent(const struct trial *trial)
{
    int status;
    pid_t pid = fork_parent(trial);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, SIGKILL);
    CHECK_EQ(hits(), 1);
    if (plan->it != 0) { /* stopped, and nobody else is left to let it go on */
        CHECK_SYS(kill(plan->it, SIGCONT));
    }
    AWAIT((waitpid(-1, NULL, WNOHANG), !has_children())); /* its workers are ours now, and see by themselves */
}

static inline void stop_the_parent(const struct trial *trial)
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

#endif
