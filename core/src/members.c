/* The parent's list of workers: numbers, and descriptors by which their ends are seen. */
#include <errno.h>

#include "crash.h"
#include "pool.h"

void weirpool_channel(const weirpool *pool, struct weirpool_channel *channel)
{
    *channel = (struct weirpool_channel){
        .segment = pool->segment.fd,
        .doorbell = pool->doorbell,
        .parent = pool->parent,
    };
}

bool wp_is_worker_wanted(const struct weirpool *pool)
{
    return pool->gate.outstanding > pool->live && pool->live < pool->segment.workers;
}

static uint32_t badge_of(const struct weirpool *pool, uint32_t worker)
{
    return wp_badge(worker, pool->members[worker].reservation);
}

static int reserve(struct weirpool *pool, uint32_t *worker)
{
    if (pool->course == WP_BROKEN) {
        return -EPIPE;
    }
    if (pool->drained_reported) {
        return -ESHUTDOWN;
    }
    for (uint32_t i = 0; i < pool->segment.workers; i++) {
        if (!pool->members[i].reserved) {
            pool->members[i].reserved = true;
            pool->members[i].own_child = false;
            pool->members[i].stopped = false;
            pool->members[i].exit_status = 0;
            pool->members[i].tasks = 0;
            pool->members[i].busy_ns = 0;
            pool->members[i].counted = true;
            pool->members[i].gone = false;
            pool->members[i].reservation++;
            pool->live++;
            /* Pairs with the compare-and-swap in take_number(). */
            wp_store_release(&pool->segment.records[i].standing, wp_starting_with(badge_of(pool, i)));
            *worker = i;
            return 0;
        }
    }
    return -EAGAIN;
}

int weirpool_worker_reserve(weirpool *pool, uint32_t *worker)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    rc = reserve(pool, worker);
    WP_CRASH("after_starting");
    wp_unlock(pool);
    return rc;
}

uint32_t weirpool_worker_badge(weirpool *pool, uint32_t worker)
{
    if (wp_check_owner(pool) != 0) {
        return wp_badge(WEIRPOOL_MAX_WORKERS, 0);
    }
    wp_lock(pool);
    uint32_t badge = badge_of(pool, worker);
    wp_unlock(pool);
    return badge;
}

int wp_watch_worker(struct weirpool *pool, uint32_t worker, int fd, int pid, bool own_child)
{
    int copy = wp_check_owner(pool);
    if (copy == 0) {
        copy = wp_os_dup(fd);
    }
    if (copy < 0) {
        return copy;
    }
    wp_lock(pool);
    pool->members[worker].process = copy;
    pool->members[worker].pid = pid;
    pool->members[worker].own_child = own_child;
    int rc = wp_os_watch_add(pool->watch, copy, worker);
    if (rc != 0) {
        pool->members[worker].process = -1;
        pool->members[worker].own_child = false;
        wp_os_close(copy);
    }
    wp_kill_if_stopped(pool, worker); /* it may have claimed a task before it was watched */
    wp_unlock(pool);
    return rc;
}

int weirpool_worker_watch(weirpool *pool, uint32_t worker, int fd, int pid)
{
    return wp_watch_worker(pool, worker, fd, pid, false);
}

int weirpool_worker_revoke(weirpool *pool, uint32_t worker)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    uint32_t starting = wp_starting_with(badge_of(pool, worker));
    bool revoked = wp_cas_acq_rel(&pool->segment.records[worker].standing, &starting, WP_LEAVES);
    wp_unlock(pool);
    return revoked ? 0 : -EALREADY;
}

void weirpool_worker_vacate(weirpool *pool, uint32_t worker)
{
    if (wp_check_owner(pool) == 0) {
        wp_lock(pool);
        pool->members[worker].reserved = false;
        wp_unlock(pool);
    }
}

void weirpool_worker_abandon(weirpool *pool, uint32_t worker)
{
    if (wp_check_owner(pool) == 0) {
        wp_lock(pool);
        wp_worker_failed(pool, worker);
        wp_unlock(pool);
    }
}

int weirpool_worker_wanted(weirpool *pool)
{
    int rc = wp_check_owner(pool);
    if (rc == 0) {
        wp_lock(pool);
        rc = wp_is_worker_wanted(pool);
        wp_unlock(pool);
    }
    return rc;
}
