/* A pool that replaces its workers, under load: they are killed at any moment, tasks are stopped, and run over their
 * limits. Each task ends exactly once, and in a way that what happened to it explains. */
#include <pthread.h>
#include <signal.h>

#include "replace_rig.h"

#define PRODUCERS 4
#define EACH ((uint64_t)SCALED(480))
#define TOTAL (PRODUCERS * EACH)

/* What task `id` is: the same for whoever asks. */
struct plan {
    struct order order;
    size_t size;
    uint32_t retries;
    uint64_t limit_ns;
    bool to_be_stopped;
    long stop_after_ns;
};

static struct plan plan_of(uint64_t id)
{
    struct dice dice = new_dice(id);
    struct plan plan = {.order = {.id = id}, .retries = (uint32_t)roll(&dice, 4)};
    plan.size = sizeof plan.order + (roll(&dice, 20) == 0 ? roll(&dice, MIB) : roll(&dice, 400));
    plan.order.result_size = roll(&dice, 20) == 0 ? roll(&dice, 3 * MIB) : roll(&dice, 2 * WP_INLINE_RESULT);
    plan.order.lasts_us = (uint32_t)(roll(&dice, 4) == 0 ? roll(&dice, 2000) : 0);
    plan.limit_ns = roll(&dice, 6) == 0 ? 100000 + roll(&dice, 2000000) : 0;
    plan.to_be_stopped = roll(&dice, 6) == 0;
    plan.stop_after_ns = (long)roll(&dice, 1000000);
    return plan;
}

struct fate {
    _Atomic uint32_t ends;
    _Atomic bool stopped;
    weirpool_task *_Atomic task; /* released at the end only: producers may still stop it */
};

static struct fate *fates;
static _Atomic uint64_t ended;

static void note_end(weirpool_task *task)
{
    struct weirpool_completion completion;
    weirpool_describe(task, &completion);
    struct fate *fate = &fates[(uintptr_t)completion.user];
    CHECK_EQ(atomic_fetch_add(&fate->ends, 1), 0);
    atomic_store(&fate->task, task);
    atomic_fetch_add(&ended, 1);
}

static void *produce(void *argument)
{
    uint64_t first = (uint64_t)(uintptr_t)argument;
    for (uint64_t id = first; id < first + EACH; id++) {
        struct plan plan = plan_of(id);
        weirpool_task *task = submit_order(&plan.order, plan.size, plan.retries, plan.limit_ns);
        if (!plan.to_be_stopped) {
            if (id % 8 == 0) { /* waits, and takes results for all meanwhile */
                CHECK_OK(weirpool_wait(rig.pool, task, weirpool_deadline(PATIENCE_NS)));
            }
            continue;
        }
        nanosleep(&(struct timespec){.tv_nsec = plan.stop_after_ns}, NULL);
        int rc = weirpool_stop(rig.pool, task);
        CHECK(rc == 0 || rc == -EBUSY);
        if (rc == 0) {
            atomic_store(&fates[id].stopped, true);
            note_end(task);
        }
    }
    return NULL;
}

/* Kills one worker, when the one before it has been replaced, and so that no three die in a row. */
static uint64_t kill_some(struct dice *dice, uint32_t *victim, pid_t *its_pid)
{
    wp_lock(rig.pool);
    bool may = rig.pool->deaths_in_a_row < WEIRPOOL_DEATHS_IN_A_ROW - 1;
    wp_unlock(rig.pool);
    if (!may || rig.pids[*victim] == *its_pid || roll(dice, 10) != 0) {
        return 0;
    }
    *victim = (uint32_t)roll(dice, rig.workers);
    *its_pid = rig.pids[*victim];
    CHECK_SYS(kill(*its_pid, SIGKILL));
    return 1;
}

static uint64_t collect_all(void)
{
    struct dice dice = new_dice(TOTAL);
    uint32_t victim = 0;
    pid_t its_pid = 0;
    uint64_t kills = 0;
    int64_t patience = check_now() + 2 * PATIENCE_NS;
    for (uint64_t rounds = 0; atomic_load(&ended) < TOTAL; rounds++) {
        weirpool_task *tasks[4];
        struct weirpool_event event;
        int n = weirpool_collect(rig.pool, tasks, 4, &event, weirpool_deadline(1000000));
        CHECK(n >= 0 || n == -ETIMEDOUT);
        for (int i = 0; i < n; i++) {
            note_end(tasks[i]);
        }
        CHECK(event.kind == WEIRPOOL_NOTHING || event.kind == WEIRPOOL_WORKER_LEFT);
        if (event.kind == WEIRPOOL_WORKER_LEFT) {
            reap(event.worker);
            start_worker();
        }
        kills += kill_some(&dice, &victim, &its_pid);
        if (rounds % 64 == 0) {
            check_pool(rig.pool);
        }
        CHECK(check_now() < patience);
    }
    return kills;
}

static void check_end_of(uint64_t id)
{
    struct plan plan = plan_of(id);
    struct weirpool_completion end;
    weirpool_describe(atomic_load(&fates[id].task), &end);
    uint32_t runs = atomic_load(&board->runs[id]);
    CHECK(runs <= end.attempts && end.attempts <= plan.retries + 1);
    switch (-end.error) {
    case 0:
        check_answer(&end, plan.order.result_size);
        CHECK(runs >= 1 && end.attempts >= 1);
        break;
    case ECANCELED:
        CHECK(atomic_load(&fates[id].stopped));
        break;
    case ETIME:
        CHECK(plan.limit_ns != 0);
        CHECK_EQ(end.attempts, plan.retries + 1);
        break;
    default:
        CHECK_RC(end.error, -EOWNERDEAD);
        CHECK(end.worker_pid != 0);
        CHECK_EQ(end.attempts, plan.retries + 1);
    }
    CHECK(end.error == -ECANCELED || !atomic_load(&fates[id].stopped));
    weirpool_release(rig.pool, end.task);
}

static void check_numbers(uint64_t kills)
{
    struct weirpool_stats now = stats();
    uint64_t cancelled = 0, attempts = 0;
    for (uint64_t id = 0; id < TOTAL; id++) {
        struct weirpool_completion end;
        weirpool_describe(atomic_load(&fates[id].task), &end);
        cancelled += end.error == -ECANCELED;
        attempts += end.attempts;
    }
    printf("    %" PRIu64 " tasks, %" PRIu64 " attempts, %" PRIu64 " kills, %" PRIu64 " stopped, %" PRIu64
           " cancelled\n",
           TOTAL, attempts, kills, now.stopped, now.cancelled);
    CHECK_EQ(now.submitted, TOTAL);
    CHECK_EQ(now.finished, TOTAL);
    CHECK_EQ(now.cancelled, cancelled);
    CHECK(now.workers_died <= kills); /* one that is being stopped may be hit, too */
    CHECK(now.workers_died + now.stopped >= now.retried);
    CHECK_EQ(now.completed + now.failed + now.cancelled, TOTAL);
    CHECK(attempts >= now.retried && attempts <= TOTAL + now.retried);
}

static void run_load(const struct weirpool_options *options)
{
    pthread_t producers[PRODUCERS];
    set_up_replacing(3, options);
    fates = calloc(TOTAL, sizeof *fates);
    CHECK(fates != NULL);
    atomic_store(&ended, 0);
    for (uint64_t i = 0; i < PRODUCERS; i++) {
        CHECK_OK(pthread_create(&producers[i], NULL, produce, (void *)(uintptr_t)(i * EACH)));
    }
    uint64_t kills = collect_all();
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(producers[i], NULL);
    }
    await_workers();
    check_numbers(kills);
    for (uint64_t id = 0; id < TOTAL; id++) {
        check_end_of(id);
    }
    free(fates);
    tear_down_idle();
}

static void test_without_bound(void)
{
    run_load(&(struct weirpool_options){0});
}

static void test_bounded(void)
{
    run_load(&(struct weirpool_options){.bound = 8});
}

static void test_bounded_in_starts_and_bytes(void)
{
    run_load(&(struct weirpool_options){.bound = 16, .max_unstarted = 4, .max_bytes = MIB, .arena_bytes = 4 * MIB});
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN_UNLESS_TSAN(test_without_bound);
    RUN_UNLESS_TSAN(test_bounded);
    RUN_UNLESS_TSAN(test_bounded_in_starts_and_bytes);
    return check_end();
}
