/* A pool that replaces its workers, and a collector that does what their owner has to: reap, and start another. */
#ifndef WP_TEST_REPLACE_RIG_H
#define WP_TEST_REPLACE_RIG_H

#include "pool_rig.h"

/* ---- workers ---- */

static inline void watch_worker(uint32_t number, pid_t pid)
{
    int process = wp_os_process_open(pid);
    CHECK(process >= 0);
    CHECK_OK(weirpool_worker_watch(rig.pool, number, process, pid));
    close(process);
    rig.pids[number] = pid;
}

static inline void start_worker(void)
{
    uint32_t number;
    weirpool_worker *worker;
    pid_t pid = fork_worker(rig.pool, &number, &worker);
    if (pid == 0) {
        int rc = wp_serve(worker, obey, board);
        weirpool_detach(worker);
        _exit(rc == 0 ? 0 : 1);
    }
    watch_worker(number, pid);
}

static inline void reap(uint32_t number)
{
    int status;
    CHECK_EQ(waitpid(rig.pids[number], &status, 0), rig.pids[number]);
    rig.pids[number] = 0;
    weirpool_worker_vacate(rig.pool, number);
}

static inline void set_up_replacing(uint32_t workers, const struct weirpool_options *more)
{
    struct weirpool_options options = more != NULL ? *more : (struct weirpool_options){.size = sizeof options};
    options.size = sizeof options;
    options.workers = workers;
    options.replace = 1;
    check_main_pid = getpid();
    board = board_new();
    rig = (struct rig){.kind = ATTACHED, .workers = workers};
    CHECK_OK(weirpool_open(&rig.pool, &options));
    for (uint32_t i = 0; i < workers; i++) {
        start_worker();
    }
}

/* Room for workers that the test itself opens. */
static inline void set_up_by_hand(uint32_t workers)
{
    struct weirpool_options options = {.size = sizeof options, .workers = workers, .replace = 1};
    board = board_new();
    rig = (struct rig){.kind = ATTACHED, .workers = workers};
    CHECK_OK(weirpool_open(&rig.pool, &options));
}

/* Everything has been told: nothing may be left over. */
static inline void tear_down_idle(void)
{
    CHECK_EQ(outstanding(rig.pool), 0);
    CHECK_EQ(blocked(rig.pool), 0);
    CHECK_EQ(stats().finished, stats().submitted);
    CHECK_EQ(stats().bytes_held, 0);
    CHECK_EQ(rig.pool->arena.used, 0);
    atomic_store(&board->hold, false);
    check_pool(rig.pool);
    wp_store_seq_cst(&rig.pool->segment.header->stop, WP_HALT);
    wp_wake_all(&rig.pool->segment);
    for (uint32_t i = 0; i < rig.workers; i++) {
        if (rig.pids[i] != 0) {
            reap_attached(rig.pids[i]);
        }
    }
    CHECK_OK(weirpool_close(rig.pool));
    board_free(board);
}

static inline int pid_of(uint32_t worker)
{
    wp_lock(rig.pool);
    int pid = rig.pool->members[worker].pid;
    wp_unlock(rig.pool);
    return pid;
}

static inline void kill_worker(uint32_t worker)
{
    CHECK_SYS(kill(pid_of(worker), SIGKILL));
}

/* Returns once it runs no more. */
static inline void stop_worker(uint32_t worker)
{
    siginfo_t info;
    CHECK_SYS(kill(pid_of(worker), SIGSTOP));
    CHECK_SYS(waitid(P_PID, (id_t)pid_of(worker), &info, WSTOPPED | WNOWAIT));
}

static inline uint64_t state_at(uint64_t position)
{
    return wp_load_acquire(&wp_slot_at(&rig.pool->segment, position)->state);
}

/* Who holds the task in the slot of `position`? */
static inline uint32_t worker_of(uint64_t position)
{
    return wp_state_worker(state_at(position));
}

/* ---- tasks ---- */

static inline weirpool_task *submit_order(const struct order *order, size_t size, uint32_t retries, uint64_t limit_ns)
{
    weirpool_task *task;
    unsigned char *payload = make_order(order, size);
    const struct weirpool_task_options options = {
        .size = sizeof options,
        .user = (void *)(uintptr_t)order->id,
        .deadline = weirpool_deadline(PATIENCE_NS),
        .retries = retries,
        .limit_ns = limit_ns,
    };
    CHECK_OK(weirpool_submit_with(rig.pool, payload, size, &options, &task));
    free(payload);
    return task;
}

static inline weirpool_task *submit_limited(enum verb verb, uint64_t id, uint32_t retries, uint64_t limit_ns)
{
    struct order small = {.id = id, .verb = verb, .result_size = id % 300};
    return submit_order(&small, sizeof small, retries, limit_ns);
}

static inline weirpool_task *submit(enum verb verb, uint64_t id, uint32_t retries)
{
    return submit_limited(verb, id, retries, 0);
}

struct ended {
    uint64_t id;
    int error;
    int pid;
    uint32_t attempts;
    size_t size;
};

static inline struct ended describe_and_release(weirpool_task *task)
{
    struct weirpool_completion completion;
    weirpool_describe(task, &completion);
    struct ended ended = {
        .id = (uintptr_t)completion.user,
        .error = completion.error,
        .pid = completion.worker_pid,
        .attempts = completion.attempts,
        .size = completion.result_size,
    };
    if (completion.error == 0) {
        CHECK_EQ(completion.status, (int)ended.id);
        CHECK(is_pattern(completion.result, completion.result_size, ~ended.id, 0));
    }
    weirpool_release(rig.pool, task);
    return ended;
}

/* Sees to one report. Returns the task that has ended, or NULL. */
static inline weirpool_task *collect_one(int64_t deadline, bool *broke)
{
    weirpool_task *task = NULL;
    struct weirpool_event event;
    int n = weirpool_collect(rig.pool, &task, 1, &event, deadline);
    CHECK(n == 0 || n == 1 || n == -EAGAIN);
    if (event.kind == WEIRPOOL_WORKER_LEFT) {
        reap(event.worker);
        start_worker();
    }
    *broke = event.kind == WEIRPOOL_BROKE;
    return n == 1 ? task : NULL;
}

/* The next task that ends: to be described and released. */
static inline weirpool_task *next_task(void)
{
    bool broke = false;
    weirpool_task *task = NULL;
    while (task == NULL && !broke) {
        task = collect_one(weirpool_deadline(PATIENCE_NS), &broke);
    }
    CHECK(task != NULL);
    return task;
}

static inline struct ended next_end(void)
{
    return describe_and_release(next_task());
}

/* The next `count` tasks end well. */
static inline void expect_done(int count)
{
    for (int i = 0; i < count; i++) {
        CHECK_RC(next_end().error, 0);
    }
}

/* Reaps and starts, until as many workers run as there should be. */
static inline void await_workers(void)
{
    int64_t patience = check_now() + PATIENCE_NS;
    while (stats().workers < rig.workers) {
        bool broke;
        CHECK(collect_one(WEIRPOOL_NOW, &broke) == NULL && !broke);
        CHECK(check_now() < patience);
        check_nap();
    }
}

/* A worker that was opened by hand is seen to go, and so are so many tasks that have ended: none is left after it. */
static inline void leave(struct hand *hand, int tasks)
{
    weirpool_task *task;
    struct weirpool_event event = {.kind = WEIRPOOL_NOTHING};
    bool left = false;
    while (!left || tasks > 0) {
        int n = weirpool_collect(rig.pool, &task, 1, &event, weirpool_deadline(PATIENCE_NS));
        CHECK(n >= 0 && n <= tasks);
        if (n == 1) {
            describe_and_release(task);
            tasks--;
        }
        if (event.kind != WEIRPOOL_NOTHING) {
            CHECK_EQ(event.kind, WEIRPOOL_WORKER_LEFT);
            CHECK_EQ(event.worker, hand->number);
            left = true;
        }
    }
    weirpool_worker_vacate(rig.pool, hand->number);
    hand_close(hand);
}

#endif
