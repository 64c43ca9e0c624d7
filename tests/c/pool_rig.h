/* A pool with workers that obey orders: what the tests of whole pools begin and end with. */
#ifndef WP_TEST_POOL_RIG_H
#define WP_TEST_POOL_RIG_H

#include "check.h"
#include "orders.h"
#include "workers.h"

#define MIB ((size_t)1 << 20)

static struct board *board;
static struct rig rig;

static inline void set_up(enum kind kind, uint32_t workers, uint64_t bound, uint64_t arena_bytes)
{
    struct weirpool_options options = {.workers = workers, .bound = bound, .arena_bytes = arena_bytes};
    board = board_new();
    rig_open(&rig, kind, &options, obey, board);
}

static inline void tear_down(void)
{
    atomic_store(&board->hold, false);
    rig_close(&rig);
    board_free(board);
}

static inline struct weirpool_stats stats(void)
{
    struct weirpool_stats now;
    CHECK_OK(weirpool_stats(rig.pool, &now));
    return now;
}

#endif
