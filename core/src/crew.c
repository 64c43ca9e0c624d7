#include "crew.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "program.h"
#include "worker.h"

#define GRACE_NS INT64_C(1000000000)

/* ---- In the child ---- */

static _Noreturn void serve_and_exit(const struct weirpool_channel *channel, uint32_t badge,
                                     const struct weirpool_options *options)
{
    weirpool_worker *worker;
    int rc = weirpool_attach(&worker, channel, badge);
    if (rc == 0) {
        rc = wp_serve(worker, options->handler, options->context);
    }
    fflush(NULL);
    _exit(rc == 0 ? 0 : 1);
}

int weirpool_serve(weirpool_handler *handler, void *context)
{
    struct weirpool_channel channel;
    uint32_t badge;
    int rc = wp_program_read(&channel, &badge);
    if (rc != 0) {
        return rc;
    }
    weirpool_worker *worker;
    rc = weirpool_attach(&worker, &channel, badge);
    if (rc == 0) {
        rc = wp_serve(worker, handler, context);
        weirpool_detach(worker);
    }
    return rc;
}

/* ---- In the parent ---- */

static int watch_child(struct weirpool *pool, uint32_t number, pid_t pid)
{
    int process = wp_os_process_open(pid);
    if (process < 0) {
        return process;
    }
    int rc = wp_watch_worker(pool, number, process, pid, true);
    wp_os_close(process);
    return rc;
}

/* Returns the process's number, or -errno. `options`: of a pool that has a handler. */
static pid_t start_process(struct weirpool *pool, uint32_t number, const struct weirpool_options *options)
{
    struct weirpool_channel channel;
    weirpool_channel(pool, &channel);
    uint32_t badge = weirpool_worker_badge(pool, number);
    char **environment = NULL;
    if (pool->program != NULL) {
        environment = wp_program_environment(pool->program, &channel, badge);
        if (environment == NULL) {
            return -ENOMEM;
        }
    }
    pid_t pid = fork();
    if (pid == 0 && pool->program != NULL) {
        wp_program_become(pool->program, &channel, environment);
    }
    if (pid == 0) {
        serve_and_exit(&channel, badge, options);
    }
    int rc = pid < 0 ? -errno : pid;
    free(environment);
    return rc;
}

/* The number is reserved for it. */
static int start_one(struct weirpool *pool, uint32_t number, const struct weirpool_options *options)
{
    pid_t pid = start_process(pool, number, options);
    int rc = pid < 0 ? pid : watch_child(pool, number, pid);
    if (rc != 0 && pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    if (rc != 0) {
        weirpool_worker_abandon(pool, number);
    }
    return rc;
}

int wp_crew_start(struct weirpool *pool, const struct weirpool_options *options)
{
    if (options->handler == NULL && options->program == NULL) {
        return 0;
    }
    if (options->program != NULL && (pool->program = wp_program_new(options->program)) == NULL) {
        return -ENOMEM;
    }
    fflush(NULL); /* or each worker would print what is buffered once more */
    int rc = 0;
    uint32_t number;
    while (rc == 0 && weirpool_worker_reserve(pool, &number) == 0) {
        rc = start_one(pool, number, options);
    }
    if (rc != 0) {
        wp_crew_end(pool);
    }
    return rc;
}

/* ---- replacing ---- */

/* One thread at a time, which sees to as many as are missing. */
static bool begin_filling(struct weirpool *pool)
{
    wp_lock(pool);
    bool wanted = pool->live < pool->segment.workers && pool->course != WP_BROKEN && !pool->drained_reported;
    bool begins = wanted && !pool->filling && wp_os_now() >= pool->fill_after;
    pool->filling |= begins;
    wp_unlock(pool);
    return begins;
}

static int start_missing(struct weirpool *pool)
{
    int rc = 0;
    uint32_t number;
    while (rc == 0 && weirpool_worker_reserve(pool, &number) == 0) {
        rc = start_one(pool, number, NULL);
    }
    return rc;
}

/* With no worker at all nobody would run what waits. */
static void end_filling(struct weirpool *pool, int rc)
{
    wp_lock(pool);
    pool->filling = false;
    pool->fill_after = rc != 0 ? wp_os_now() + WP_LOOK_NS : 0;
    if (rc != 0 && pool->live == 0) {
        wp_break(pool, WP_NO_WORKER, WEIRPOOL_FAULT_NO_WORKER);
    }
    wp_unlock(pool);
}

int64_t wp_crew_fill(struct weirpool *pool)
{
    if (!pool->replaces || pool->program == NULL) {
        return WEIRPOOL_FOREVER;
    }
    if (begin_filling(pool)) {
        end_filling(pool, start_missing(pool));
    }
    wp_lock(pool);
    bool failed = pool->fill_after != 0 && !pool->filling;
    int64_t again = failed ? pool->fill_after : WEIRPOOL_FOREVER;
    wp_unlock(pool);
    return again;
}

/* ---- the end ---- */

static bool holds_a_task(const struct weirpool *pool, uint32_t worker)
{
    for (uint32_t i = 0; i < pool->segment.slots; i++) {
        uint64_t state = wp_load_acquire(&pool->segment.slot[i].state);
        if (wp_state_runs(state) && wp_state_worker(state) == worker) {
            return true;
        }
    }
    return false;
}

/* Waits for one worker; kills it when it is busy, or does not leave in time. */
static void end_one(struct weirpool *pool, uint32_t worker, int64_t deadline)
{
    struct wp_member *member = &pool->members[worker];
    struct timespec pause = {.tv_nsec = 1000000};
    int status;
    while (wp_os_process_reap(member->pid, &status) == 0) {
        if (holds_a_task(pool, worker) || wp_os_now() >= deadline) {
            wp_os_process_kill(member->process, member->pid);
        }
        nanosleep(&pause, NULL);
    }
}

void wp_crew_end(struct weirpool *pool)
{
    wp_store_seq_cst(&pool->segment.header->stop, WP_HALT);
    wp_wake_all(&pool->segment);
    int64_t deadline = wp_os_now() + GRACE_NS;
    for (uint32_t worker = 0; worker < pool->segment.workers; worker++) {
        if (pool->members[worker].own_child && pool->members[worker].process >= 0) {
            end_one(pool, worker, deadline);
        }
    }
}
