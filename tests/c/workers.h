/*
 * Pools for tests, whose workers are threads of this process over the pool's own mapping (ThreadSanitizer sees them),
 * processes that the pool forks, or processes that the test forks and attaches. Also a worker that does nothing by
 * itself: the test claims and finishes for it, step by step.
 */
#ifndef WP_TEST_WORKERS_H
#define WP_TEST_WORKERS_H

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>

#include "check.h"
#include "pool.h"
#include "worker.h"

#define MAX_HANDS 16
#define NO_PROCESS 100000000 /* more than Linux numbers: killing it hurts nobody */

/* ---- one worker over the pool's mapping ---- */

struct hand {
    weirpool *pool;
    uint32_t number;
    struct wp_segment segment;
    weirpool_worker *worker;
    int death; /* an eventfd in the place of a pidfd */
    pthread_t thread;
    weirpool_handler *handler;
    void *context;
    _Atomic bool gone;
};

static inline void hand_open(struct hand *hand, weirpool *pool)
{
    *hand = (struct hand){.pool = pool, .segment = pool->segment};
    struct weirpool_channel channel;
    weirpool_channel(pool, &channel);
    CHECK_OK(weirpool_worker_reserve(pool, &hand->number));
    hand->death = eventfd(0, EFD_CLOEXEC);
    CHECK_SYS(hand->death);
    CHECK_OK(weirpool_worker_watch(pool, hand->number, hand->death, NO_PROCESS + (int)hand->number));
    void *arena = NULL;
    CHECK_OK(wp_os_map(hand->segment.fd, hand->segment.arena_at, hand->segment.arena_size, false, &arena));
    hand->segment.arena = arena;
    CHECK_OK(wp_worker_open(&hand->worker, &hand->segment, &channel, weirpool_worker_badge(hand->pool, hand->number)));
    weirpool_announce(hand->worker, WEIRPOOL_UP);
}

/* Its "process" ends. */
static inline void hand_die(struct hand *hand)
{
    uint64_t one = 1;
    CHECK_EQ(write(hand->death, &one, sizeof one), sizeof one);
}

static inline void hand_close(struct hand *hand)
{
    wp_os_unmap((void *)hand->segment.arena, hand->segment.arena_size);
    free(hand->worker); /* weirpool_detach() would unmap what is the pool's */
    close(hand->death);
}

/* Claims the next task, which has to be there. */
static inline struct weirpool_claimed hand_claim(struct hand *hand)
{
    struct weirpool_claimed claimed;
    CHECK_OK(weirpool_claim(hand->worker, &claimed, weirpool_deadline(PATIENCE_NS)));
    return claimed;
}

static inline void hand_finish(struct hand *hand, const void *result, size_t size)
{
    struct iovec part = {.iov_base = (void *)result, .iov_len = size};
    CHECK_OK(weirpool_finish(hand->worker, 0, &part, 1));
}

/* ---- many workers ---- */

enum kind { THREADS, FORKED, ATTACHED };

static const char *const kind_names[] = {"threads", "forked by the pool", "attached"};

struct rig {
    weirpool *pool;
    enum kind kind;
    uint32_t workers;
    struct hand hands[MAX_HANDS];
    pid_t pids[MAX_HANDS]; /* ATTACHED */
};

static inline void hand_gone(void *argument)
{
    struct hand *hand = argument;
    atomic_store(&hand->gone, true);
    hand_die(hand);
}

static inline void *hand_serve(void *argument)
{
    struct hand *hand = argument;
    pthread_cleanup_push(hand_gone, hand);
    (void)wp_serve(hand->worker, hand->handler, hand->context);
    pthread_cleanup_pop(1);
    return NULL;
}

static pid_t check_main_pid;

/* In a handler: this worker is killed, here. */
static inline _Noreturn void die_here(void)
{
    if (getpid() == check_main_pid) {
        pthread_exit(NULL);
    }
    kill(getpid(), SIGKILL);
    for (;;) {
        pause();
    }
}

/* Forks a process that is a worker of the pool. Returns 0 there, with `worker`. */
static inline pid_t fork_worker(weirpool *pool, uint32_t *number, weirpool_worker **worker)
{
    struct weirpool_channel channel;
    weirpool_channel(pool, &channel);
    CHECK_OK(weirpool_worker_reserve(pool, number));
    uint32_t badge = weirpool_worker_badge(pool, *number);
    fflush(NULL);
    pid_t pid = fork();
    CHECK_SYS(pid);
    if (pid == 0) {
        CHECK_OK(weirpool_attach(worker, &channel, badge));
    }
    return pid;
}

static inline pid_t attach_process(weirpool *pool, weirpool_handler *handler, void *context)
{
    uint32_t number;
    weirpool_worker *worker;
    pid_t pid = fork_worker(pool, &number, &worker);
    if (pid == 0) {
        int rc = wp_serve(worker, handler, context);
        weirpool_detach(worker);
        _exit(rc == 0 ? 0 : 1);
    }
    int process = wp_os_process_open(pid);
    CHECK(process >= 0);
    CHECK_OK(weirpool_worker_watch(pool, number, process, pid));
    close(process);
    return pid;
}

static inline void rig_open(struct rig *rig, enum kind kind, const struct weirpool_options *given,
                            weirpool_handler *handler, void *context)
{
    check_main_pid = getpid();
    struct weirpool_options options = *given;
    options.size = sizeof options;
    options.handler = kind == FORKED ? handler : NULL;
    options.context = kind == FORKED ? context : NULL;
    *rig = (struct rig){.kind = kind, .workers = options.workers};
    CHECK(options.workers <= MAX_HANDS);
    CHECK_OK(weirpool_open(&rig->pool, &options));
    for (uint32_t i = 0; i < rig->workers; i++) {
        struct hand *hand = &rig->hands[i];
        if (kind == THREADS) {
            hand_open(hand, rig->pool);
            hand->handler = handler;
            hand->context = context;
            CHECK_OK(pthread_create(&hand->thread, NULL, hand_serve, hand));
        } else if (kind == ATTACHED) {
            rig->pids[i] = attach_process(rig->pool, handler, context);
        }
    }
}

static inline void check_pool(weirpool *pool)
{
    char why[100];
    if (weirpool_check(pool, why, sizeof why) != 0) {
        check_failed(__FILE__, __LINE__, "weirpool_check()", why);
    }
}

static inline uint64_t outstanding(weirpool *pool)
{
    struct weirpool_stats stats;
    CHECK_OK(weirpool_stats(pool, &stats));
    CHECK_EQ(stats.waiting + stats.running, stats.outstanding);
    return stats.outstanding;
}

static inline uint64_t blocked(weirpool *pool)
{
    struct weirpool_stats stats;
    CHECK_OK(weirpool_stats(pool, &stats));
    return stats.blocked_producers;
}

static inline void reap_attached(pid_t pid)
{
    int64_t patience = check_now() + INT64_C(3000000000);
    int status;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (check_now() > patience) {
            kill(pid, SIGKILL); /* in a handler that never ends */
        }
        check_nap();
    }
}

static inline void rig_close(struct rig *rig)
{
    check_pool(rig->pool);
    wp_store_seq_cst(&rig->pool->segment.header->stop, WP_HALT);
    wp_wake_all(&rig->pool->segment);
    for (uint32_t i = 0; i < rig->workers; i++) {
        if (rig->kind == THREADS) {
            pthread_join(rig->hands[i].thread, NULL);
            hand_close(&rig->hands[i]);
        } else if (rig->kind == ATTACHED) {
            reap_attached(rig->pids[i]);
        }
    }
    CHECK_OK(weirpool_close(rig->pool));
}

/* The kinds that this build can see. */
static inline bool kind_is_possible(enum kind kind)
{
    if (UNDER_TSAN && kind != THREADS) {
        return false;
    }
    printf("    workers: %s\n", kind_names[kind]);
    fflush(stdout);
    return true;
}

#define FOR_EACH_KIND(kind)                                                                                            \
    for (enum kind kind = THREADS; kind <= ATTACHED; kind++)                                                           \
        if (kind_is_possible(kind))

#endif
