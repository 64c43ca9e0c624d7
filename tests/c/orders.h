/*
 * What the workers of the pool's tests do: a task's payload is an order, and its result a pattern that shows any byte
 * out of place.
 */
#ifndef WP_TEST_ORDERS_H
#define WP_TEST_ORDERS_H

#include <sys/mman.h>

#include "check.h"
#include "workers.h"

/* Shared by the test and its workers, also forked ones. */
struct board {
    _Atomic bool hold; /* tasks with HOLD do not end before this is false */
    _Atomic uint32_t held; /* how many of them have started */
    _Atomic uint32_t runs[65536]; /* of each task, by its id */
};

enum verb {
    ANSWER,
    HOLD,
    DIE,              /* killed in the handler */
    DIE_ONCE,         /* the same, and an answer when it runs again */
    HOLD_ONCE,        /* the same of HOLD, whatever `hold` says */
    DIE_AFTER_ANSWER, /* the result is delivered, but not said to be done */
    EXIT,             /* a handler that calls exit(3) */
};

/* The head of a payload; the rest of it is a pattern. A payload too short for it is sent back. */
struct order {
    uint64_t id;
    uint64_t result_size;
    uint32_t verb;
    uint32_t lasts_us; /* before it answers it is busy for so long */
};

static inline struct board *board_new(void)
{
    struct board *board =
        mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(board != MAP_FAILED);
    return board;
}

static inline void board_free(struct board *board)
{
    munmap(board, sizeof *board);
}

static inline void obey_hold(struct board *board)
{
    atomic_fetch_add(&board->held, 1);
    while (atomic_load(&board->hold)) {
        check_nap();
    }
}

static inline _Noreturn void obey_for_ever(struct board *board)
{
    atomic_fetch_add(&board->held, 1);
    for (;;) {
        pause();
    }
}

static inline int answer_pattern(weirpool_reply *reply, uint64_t id, size_t size)
{
    unsigned char *result = malloc(size + 1);
    CHECK(result != NULL);
    fill_pattern(result, size, ~id, 0);
    int rc = weirpool_answer(reply, result, size);
    free(result);
    return rc;
}

/* The handler. Its status is the task's id; -1: the payload was not what was sent. */
static inline int obey(const void *payload, size_t size, weirpool_reply *reply, void *context)
{
    struct board *board = context;
    struct order order;
    if (size < sizeof order) {
        (void)weirpool_answer(reply, payload, size);
        return (int)size;
    }
    memcpy(&order, payload, sizeof order);
    if (!is_pattern((const unsigned char *)payload + sizeof order, size - sizeof order, order.id, 0)) {
        return -1;
    }
    uint32_t before = board != NULL ? atomic_fetch_add(&board->runs[order.id % 65536], 1) : 0;
    if (order.verb == HOLD) {
        obey_hold(board);
    } else if (order.verb == HOLD_ONCE && before == 0) {
        obey_for_ever(board);
    } else if (order.verb == DIE || (order.verb == DIE_ONCE && before == 0)) {
        die_here();
    } else if (order.verb == EXIT) {
        exit(3);
    }
    for (int64_t end = check_now() + (int64_t)order.lasts_us * 1000; order.lasts_us > 0 && check_now() < end;) {
    }
    (void)answer_pattern(reply, order.id, order.result_size);
    if (order.verb == DIE_AFTER_ANSWER) {
        die_here();
    }
    return (int)order.id;
}

/* A payload of `size` bytes, to be freed. */
static inline unsigned char *make_order(const struct order *order, size_t size)
{
    unsigned char *payload = malloc(size + 1);
    CHECK(payload != NULL && size >= sizeof *order);
    memcpy(payload, order, sizeof *order);
    fill_pattern(payload + sizeof *order, size - sizeof *order, order->id, 0);
    return payload;
}

/* `user` of each task is its id. */
static inline int give(weirpool *pool, const struct order *order, size_t size, int64_t deadline, weirpool_task **task)
{
    unsigned char *payload = make_order(order, size);
    int rc = weirpool_submit(pool, payload, size, (void *)(uintptr_t)order->id, deadline, task);
    free(payload);
    return rc;
}

/* The common one: a small order. */
static inline void order(weirpool *pool, enum verb verb, uint64_t id)
{
    struct order small = {.id = id, .verb = verb, .result_size = id % 300};
    CHECK_OK(give(pool, &small, sizeof small, WEIRPOOL_NOW, NULL));
}

/* A task's end as it should be. */
static inline void check_answer(const struct weirpool_completion *completion, uint64_t result_size)
{
    uint64_t id = (uintptr_t)completion->user;
    CHECK_RC(completion->error, 0);
    CHECK_EQ(completion->status, (int)id);
    CHECK_EQ(completion->result_size, result_size);
    CHECK(is_pattern(completion->result, completion->result_size, ~id, 0));
}

static inline int next(weirpool *pool, struct weirpool_completion *completion)
{
    int rc = weirpool_next(pool, completion, weirpool_deadline(PATIENCE_NS));
    CHECK(rc != -ETIMEDOUT);
    return rc;
}

/* The next task to end is `id`, with `error`. */
static inline void expect(weirpool *pool, uint64_t id, int error)
{
    struct weirpool_completion completion;
    CHECK_OK(next(pool, &completion));
    CHECK_EQ((uintptr_t)completion.user, id);
    CHECK_RC(completion.error, error);
    weirpool_release(pool, completion.task);
}

#endif
