#include "crew.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "worker.h"

#define VARIABLE "WEIRPOOL_WORKER"
#define GRACE_NS INT64_C(1000000000)

/* ---- In the child ---- */

static _Noreturn void serve_and_exit(const struct weirpool_channel *channel, uint32_t number,
                                     const struct weirpool_options *options)
{
    weirpool_worker *worker;
    int rc = weirpool_attach(&worker, channel, number);
    if (rc == 0) {
        rc = wp_serve(worker, options->handler, options->context);
    }
    fflush(NULL);
    _exit(rc == 0 ? 0 : 1);
}

static _Noreturn void start_program(const struct weirpool_channel *channel, uint32_t number, char *const *program)
{
    char value[80];
    snprintf(value, sizeof value, "%d,%d,%d,%u", channel->segment, channel->doorbell, channel->parent, number);
    bool ready = setenv(VARIABLE, value, 1) == 0 && wp_os_pass_on(channel->segment) == 0 &&
                 wp_os_pass_on(channel->doorbell) == 0 && wp_os_pass_on(channel->parent) == 0;
    if (ready) {
        execvp(program[0], program);
    }
    _exit(127);
}

int weirpool_serve(weirpool_handler *handler, void *context)
{
    struct weirpool_channel channel;
    unsigned number;
    const char *value = getenv(VARIABLE);
    if (value == NULL ||
        sscanf(value, "%d,%d,%d,%u", &channel.segment, &channel.doorbell, &channel.parent, &number) != 4) {
        return -EINVAL;
    }
    weirpool_worker *worker;
    int rc = weirpool_attach(&worker, &channel, number);
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
    int rc = weirpool_worker_watch(pool, number, process, pid);
    wp_os_close(process);
    pool->members[number].own_child = rc == 0;
    return rc;
}

static int start_one(struct weirpool *pool, const struct weirpool_options *options)
{
    uint32_t number;
    struct weirpool_channel channel;
    weirpool_channel(pool, &channel);
    int rc = weirpool_worker_reserve(pool, &number);
    if (rc != 0) {
        return rc;
    }
    pid_t pid = fork();
    if (pid == 0 && options->program != NULL) {
        start_program(&channel, number, options->program);
    }
    if (pid == 0) {
        serve_and_exit(&channel, number, options);
    }
    rc = pid < 0 ? -errno : watch_child(pool, number, pid);
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
    fflush(NULL); /* or each worker would print what is buffered once more */
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < pool->segment.workers; i++) {
        rc = start_one(pool, options);
    }
    if (rc != 0) {
        wp_crew_end(pool);
    }
    return rc;
}

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
