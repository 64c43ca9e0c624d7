/*
 * A pool whose worker does nothing by itself: the test claims and finishes for it. Nobody looks once a second here: a
 * wake-up that is lost hangs. And producers that wait, each in its thread.
 */
#ifndef WP_TEST_GATE_RIG_H
#define WP_TEST_GATE_RIG_H

#include <pthread.h>

#include "check.h"
#include "gate.h"
#include "os_hooks.h"
#include "workers.h"

#define LARGE (WEIRPOOL_PARK_LIMIT + 1)
#define MAX_PRODUCERS 64

static weirpool *pool;
static struct hand hand;

static inline void set_up_with(struct weirpool_options options)
{
    options.size = sizeof options;
    options.workers = 1;
    CHECK_OK(weirpool_open(&pool, &options));
    hand_open(&hand, pool);
    atomic_store(&without_looks, true);
}

static inline void set_up(uint64_t bound)
{
    set_up_with((struct weirpool_options){.bound = bound});
}

static inline void tear_down(void)
{
    check_pool(pool);
    hand_close(&hand);
    CHECK_OK(weirpool_close(pool));
    atomic_store(&without_looks, false);
}

static inline struct weirpool_stats stats(void)
{
    struct weirpool_stats now;
    CHECK_OK(weirpool_stats(pool, &now));
    return now;
}

static inline int submit_now(uint32_t id)
{
    return weirpool_submit(pool, &id, sizeof id, NULL, WEIRPOOL_NOW, NULL);
}

/* The worker runs the next task; returns its number. */
static inline uint32_t run_one(void)
{
    uint32_t id;
    struct weirpool_claimed claimed = hand_claim(&hand);
    CHECK(claimed.size >= sizeof id);
    memcpy(&id, claimed.payload, sizeof id);
    hand_finish(&hand, "", 0);
    return id;
}

static inline int fetch(int expected_error, int64_t deadline)
{
    struct weirpool_completion completion;
    int rc = weirpool_next(pool, &completion, deadline);
    if (rc == 0) {
        CHECK_RC(completion.error, expected_error);
        weirpool_release(pool, completion.task);
    }
    return rc;
}

/* Runs and fetches everything that is outstanding; permits are zero afterwards. */
static inline void run_dry(void)
{
    int rc;
    while ((rc = fetch(0, WEIRPOOL_NOW)) == 0 || stats().outstanding > 0) {
        CHECK(rc == 0 || rc == -EAGAIN);
        if (stats().waiting > 0) {
            run_one();
        }
    }
    CHECK_EQ(stats().outstanding, 0);
    CHECK_EQ(stats().blocked_producers, 0);
    check_pool(pool);
}

/* ---- producers that wait, each in its thread ---- */

struct producer {
    pthread_t thread;
    uint32_t id;
    size_t size;
    int64_t deadline;
    _Atomic bool returned;
    int rc;
};

static struct producer producers[MAX_PRODUCERS];

static inline void *produce(void *argument)
{
    struct producer *me = argument;
    unsigned char *bytes = calloc(1, me->size);
    CHECK(bytes != NULL);
    memcpy(bytes, &me->id, sizeof me->id);
    me->rc = weirpool_submit(pool, bytes, me->size, NULL, me->deadline, NULL);
    free(bytes);
    atomic_store(&me->returned, true);
    return NULL;
}

static inline struct producer *launch_producer(uint32_t id, size_t size, int64_t deadline)
{
    struct producer *p = &producers[id];
    *p = (struct producer){.id = id, .size = size, .deadline = deadline};
    CHECK_OK(pthread_create(&p->thread, NULL, produce, p));
    return p;
}

/* Starts one, and waits until it waits. */
static inline struct producer *start_producer(uint32_t id, size_t size, int64_t deadline)
{
    uint64_t before = blocked(pool);
    struct producer *p = launch_producer(id, size, deadline);
    AWAIT(blocked(pool) == before + 1);
    return p;
}

static inline void join_producer(struct producer *p, int expected)
{
    AWAIT(atomic_load(&p->returned));
    pthread_join(p->thread, NULL);
    CHECK_RC(p->rc, expected);
}

/* A task that was started ends. */
static void give_back(struct wp_gate *gate, uint64_t bytes)
{
    wp_gate_start(gate);
    wp_gate_return(gate, bytes);
}

#endif
