/* Workers that the core starts from a program, which is this one with "serve", and starts anew when they die. */
#include <dlfcn.h>
#include <signal.h>

#include "pool_rig.h"

static _Atomic bool forks_fail;

/* In the place of the library's: a process that may have no more children. */
pid_t fork(void)
{
    pid_t (*real)(void);
    if (atomic_load(&forks_fail)) {
        errno = EAGAIN;
        return -1;
    }
    *(void **)&real = dlsym(RTLD_NEXT, "fork");
    return real();
}

static char *self[] = {"/proc/self/exe", "serve", NULL};

static void set_up_program(char **program, uint32_t workers)
{
    struct weirpool_options options = {.size = sizeof options, .workers = workers, .program = program, .replace = 1};
    board = board_new();
    rig = (struct rig){.kind = FORKED, .workers = workers};
    CHECK_OK(weirpool_open(&rig.pool, &options));
}

/* A task that is busy for so long. */
static void submit(uint64_t id, uint32_t lasts_ms, uint32_t retries, uint64_t limit_ms)
{
    struct order small = {.id = id, .lasts_us = lasts_ms * 1000, .result_size = 10};
    struct weirpool_task_options options = {
        .size = sizeof options,
        .user = (void *)(uintptr_t)id,
        .retries = retries,
        .limit_ns = limit_ms * 1000000,
    };
    CHECK_OK(weirpool_submit_with(rig.pool, &small, sizeof small, &options, NULL));
}

static struct weirpool_completion take(void)
{
    struct weirpool_completion completion;
    CHECK_OK(next(rig.pool, &completion));
    weirpool_release(rig.pool, completion.task);
    return completion;
}

/* The process that runs the task at a position, once it does. */
static int runner_of(uint64_t position)
{
    struct wp_slot *slot = wp_slot_at(&rig.pool->segment, position);
    AWAIT(wp_state_tag(wp_load_acquire(&slot->state)) == WP_RUNNING);
    wp_lock(rig.pool);
    int pid = rig.pool->members[wp_state_worker(wp_load_acquire(&slot->state))].pid;
    wp_unlock(rig.pool);
    return pid;
}

static void await_workers(void)
{
    AWAIT(weirpool_next(rig.pool, &(struct weirpool_completion){0}, WEIRPOOL_NOW) == -EAGAIN &&
          stats().workers == rig.workers);
}

static void test_a_death_costs_one_task(void)
{
    set_up_program(self, 2);
    submit(1, 60000, 0, 0);
    int pid = runner_of(0);
    CHECK_SYS(kill(pid, SIGKILL));
    struct weirpool_completion lost = take();
    CHECK_RC(lost.error, -EOWNERDEAD);
    CHECK_EQ(lost.worker_pid, pid);
    CHECK_EQ(lost.worker_status, SIGKILL);
    CHECK_EQ(lost.attempts, 1);
    await_workers();
    for (uint64_t id = 2; id < 10; id++) {
        submit(id, 1, 0, 0);
        CHECK_RC(take().error, 0);
    }
    CHECK_EQ(stats().workers_died, 1);
    tear_down();
}

/* Not only when there is nothing else to fetch. */
static void test_replaced_under_load(void)
{
    set_up_program(self, 2);
    submit(0, 60000, 0, 0);
    int pid = runner_of(0);
    for (uint64_t id = 1; id < 50; id++) {
        submit(id, 0, 0, 0);
    }
    CHECK_SYS(kill(pid, SIGKILL));
    int64_t patience = check_now() + PATIENCE_NS;
    for (uint64_t id = 50; stats().workers_died == 0 || stats().workers < 2; id++) {
        submit(id, 0, 0, 0);
        (void)take();
        CHECK(check_now() < patience);
    }
    tear_down();
}

static void test_a_retry(void)
{
    set_up_program(self, 1);
    submit(1, 300, 1, 0);
    CHECK_SYS(kill(runner_of(0), SIGKILL));
    struct weirpool_completion done = take();
    CHECK_RC(done.error, 0);
    CHECK_EQ(done.attempts, 2);
    tear_down();
}

static void test_a_limit(void)
{
    set_up_program(self, 1);
    submit(1, 60000, 1, 50);
    struct weirpool_completion ended = take();
    CHECK_RC(ended.error, -ETIME);
    CHECK_EQ(ended.attempts, 2);
    submit(2, 1, 0, 60000);
    CHECK_RC(take().error, 0);
    CHECK_EQ(stats().workers_died, 0);
    tear_down();
}

static void expect_broken(enum weirpool_fault fault)
{
    struct weirpool_completion none;
    CHECK_RC(next(rig.pool, &none), -EPIPE);
    CHECK_EQ(weirpool_fault(rig.pool), fault);
    CHECK_EQ(outstanding(rig.pool), 0);
    check_pool(rig.pool);
}

/* Each that is started ends at once, which is a death. */
static void test_a_program_that_went_away(void)
{
    char path[] = "/tmp/weirpool-test-XXXXXX";
    int fd = mkstemp(path);
    CHECK_SYS(fd);
    close(fd);
    CHECK_SYS(unlink(path));
    CHECK_SYS(symlink("/proc/self/exe", path));
    set_up_program((char *[]){path, "serve", NULL}, 1);
    submit(1, 60000, 10, 0);
    int pid = runner_of(0);
    CHECK_SYS(unlink(path));
    CHECK_SYS(kill(pid, SIGKILL));
    CHECK_RC(take().error, -EPIPE);
    expect_broken(WEIRPOOL_FAULT_DEATHS_IN_A_ROW);
    CHECK_EQ(stats().workers_died, WEIRPOOL_DEATHS_IN_A_ROW);
    tear_down();
}

static void test_three_in_a_row(void)
{
    set_up_program(self, 2);
    struct order deadly = {.id = 1, .verb = DIE};
    struct weirpool_task_options options = {.size = sizeof options, .retries = 10};
    CHECK_OK(weirpool_submit_with(rig.pool, &deadly, sizeof deadly, &options, NULL));
    struct weirpool_completion ended = take();
    CHECK_RC(ended.error, -EOWNERDEAD);
    CHECK_EQ(ended.attempts, WEIRPOOL_DEATHS_IN_A_ROW);
    expect_broken(WEIRPOOL_FAULT_DEATHS_IN_A_ROW);
    tear_down();
}

/* It has the environment of the moment at which the pool was opened, and strings of its own. */
static void test_program_and_environment_are_copied(void)
{
    char path[] = "/proc/self/exe", verb[] = "serve";
    char *program[] = {path, verb, NULL};
    CHECK_SYS(setenv("WEIRPOOL_TEST", "before", 1));
    set_up_program(program, 1);
    memset(path, 'x', sizeof path - 1);
    memset(verb, 'x', sizeof verb - 1);
    program[0] = NULL;
    CHECK_SYS(setenv("WEIRPOOL_TEST", "after", 1));
    submit(1, 300, 1, 0);
    CHECK_SYS(kill(runner_of(0), SIGKILL));
    struct weirpool_completion done = take();
    CHECK_RC(done.error, 0);
    CHECK_EQ(done.status, 1);
    CHECK_SYS(unsetenv("WEIRPOOL_TEST"));
    tear_down();
}

static void test_no_process_can_be_started(void)
{
    set_up_program(self, 2);
    submit(1, 60000, 5, 0);
    submit(2, 60000, 5, 0);
    int first = runner_of(0), second = runner_of(1);
    atomic_store(&forks_fail, true);
    CHECK_SYS(kill(first, SIGKILL));
    AWAIT(weirpool_next(rig.pool, &(struct weirpool_completion){0}, WEIRPOOL_NOW) == -EAGAIN && stats().workers == 1);
    CHECK_EQ(weirpool_fault(rig.pool), WEIRPOOL_FAULT_NONE);
    CHECK_SYS(kill(second, SIGKILL));
    CHECK_RC(take().error, -EPIPE);
    CHECK_RC(take().error, -EPIPE);
    expect_broken(WEIRPOOL_FAULT_NO_WORKER);
    atomic_store(&forks_fail, false);
    tear_down();
}

/* It is tried again, without anything else that would make the pool look. */
static void test_start_is_tried_again(void)
{
    set_up_program(self, 2);
    submit(1, 60000, 0, 0);
    atomic_store(&forks_fail, true);
    CHECK_SYS(kill(runner_of(0), SIGKILL));
    CHECK_RC(take().error, -EOWNERDEAD);
    struct weirpool_completion none;
    CHECK_RC(weirpool_next(rig.pool, &none, WEIRPOOL_NOW), -EAGAIN);
    CHECK_EQ(stats().workers, 1);
    atomic_store(&forks_fail, false);
    CHECK_RC(weirpool_next(rig.pool, &none, weirpool_deadline(INT64_C(2500000000))), -ETIMEDOUT);
    CHECK_EQ(stats().workers, 2);
    tear_down();
}

static void test_handlers_are_not_replaced(void)
{
    weirpool *pool;
    struct weirpool_options options = {.size = sizeof options, .workers = 1, .handler = obey, .replace = 1};
    CHECK_RC(weirpool_open(&pool, &options), -EINVAL);
    options.handler = NULL;
    options.replace = 2;
    CHECK_RC(weirpool_open(&pool, &options), -EINVAL);
}

static int serve(const void *payload, size_t size, weirpool_reply *reply, void *context)
{
    const char *environment = getenv("WEIRPOOL_TEST");
    int rc = obey(payload, size, reply, context);
    return environment != NULL && strcmp(environment, "after") == 0 ? -1 : rc;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "serve") == 0) {
        return weirpool_serve(serve, NULL) == 0 ? 0 : 1;
    }
    check_start(argc, argv);
    RUN_UNLESS_TSAN(test_a_death_costs_one_task);
    RUN_UNLESS_TSAN(test_replaced_under_load);
    RUN_UNLESS_TSAN(test_a_retry);
    RUN_UNLESS_TSAN(test_a_limit);
    RUN_UNLESS_TSAN(test_a_program_that_went_away);
    RUN_UNLESS_TSAN(test_three_in_a_row);
    RUN_UNLESS_TSAN(test_program_and_environment_are_copied);
    RUN_UNLESS_TSAN(test_no_process_can_be_started);
    RUN_UNLESS_TSAN(test_start_is_tried_again);
    RUN(test_handlers_are_not_replaced);
    return check_end();
}
