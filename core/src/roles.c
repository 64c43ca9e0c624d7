/*
 * Who of the parent's threads looks for results, and how threads sleep.
 *
 * The collector (whoever calls weirpool_collect) sleeps in an epoll. Of the threads that wait for a task or at the gate
 * one is the helper: it sleeps on a futex that workers wake without a system call of the parent, and takes results for
 * everybody. The others sleep on the word that they wait for. `addressee` tells workers whom to ring.
 *
 * Whenever somebody waits, somebody is helper: a thread that goes to sleep takes the role if it is free, and one that
 * leaves it pokes another sleeper. So no thread waits for a collector that is busy with user code.
 */
#include <errno.h>
#include <limits.h>

#include "pool.h"

void wp_address(struct weirpool *pool)
{
    uint32_t whom = WP_NOBODY;
    if (pool->helper_word != NULL) {
        whom = pool->helper_asleep ? WP_HELPER : WP_NOBODY; /* awake it looks by itself */
    } else if (pool->collector_asleep) {
        whom = WP_COLLECTOR;
    }
    /* seq_cst against the done bits: a worker sees this, or whoever looks after this sees its bit (ring, worker.c). */
    wp_store_seq_cst(&pool->segment.header->addressee, whom);
}

void wp_ring_collector(struct weirpool *pool)
{
    if (pool->collector_asleep && !pool->collector_rung) {
        pool->collector_rung = true;
        wp_os_bell_ring(pool->doorbell);
    }
}

static void ring_helper(struct weirpool *pool)
{
    wp_fetch_add_seq_cst(&pool->segment.header->helper_bell, 1);
    wp_os_futex_wake(&pool->segment.header->helper_bell, 1, WP_SHARED);
}

void wp_pass_on(struct weirpool *pool)
{
    if (pool->helper_word != NULL) {
        ring_helper(pool);
    } else {
        wp_ring_collector(pool);
    }
}

uint32_t wp_settle(struct weirpool *pool, _Atomic uint32_t *word)
{
    uint32_t before = wp_fetch_or_acq_rel(word, WP_SETTLED);
    if (before & WP_WAITED) {
        wp_os_futex_wake(word, INT_MAX, WP_PRIVATE);
    }
    if (pool->helper_word == word) {
        ring_helper(pool);
    }
    return before;
}

/* Offers the helper's role to a sleeper. Its word changes, so that it cannot miss offers, however many, on its way to
 * sleep. */
static void poke_a_sleeper(struct weirpool *pool)
{
    if (pool->helper_word == NULL && !wp_list_is_empty(&pool->sleepers)) {
        struct wp_sleeper *next = wp_container_of(pool->sleepers.next, struct wp_sleeper, link);
        wp_fetch_add_relaxed(next->word, WP_POKED);
        wp_os_futex_wake(next->word, INT_MAX, WP_PRIVATE);
    }
}

/* A wait ended with `rc`: does that end the wait for `deadline`? Returns 0 to go on. */
static int verdict(int rc, int64_t deadline)
{
    if (rc == -EINTR) {
        return -EINTR;
    }
    return wp_os_now() >= deadline ? wp_too_late(deadline) : 0;
}

/* The look once a second. While the collector is in user code, which may wait for us, we see to dead workers too. */
static void look_when_due(struct weirpool *pool)
{
    int64_t now = wp_os_now();
    if (now - pool->helper_looked < WP_LOOK_NS) {
        return;
    }
    pool->helper_looked = now;
    wp_look(&pool->segment);
    wp_audit(pool);
    if (!pool->collecting) {
        (void)wp_see_to_workers(pool, WEIRPOOL_NOW);
    }
}

struct wait {
    const struct weirpool *pool;
    _Atomic uint32_t *word; /* what the helper waits for */
    uint32_t seen; /* of the bell, before the helper looked last */
    bool takes; /* results; of a pool that has broken they stay */
};

static bool has_news(const void *what)
{
    const struct wait *wait = what;
    return wp_load_seq_cst(&wait->pool->segment.header->helper_bell) != wait->seen ||
           wp_is_settled(wp_load_acquire(wait->word)) || (wait->takes && wp_has_results(wait->pool));
}

static bool spin_as_helper(struct weirpool *pool, const struct wait *wait)
{
    if (!wp_spin_pays(&pool->helper_spin)) {
        return false;
    }
    wp_unlock(pool);
    bool news = wp_spin(&pool->helper_spin, has_news, wait);
    wp_lock(pool);
    return news;
}

static int sleep_on_bell(struct weirpool *pool, uint32_t seen, int64_t deadline)
{
    _Atomic uint32_t *bell = &pool->segment.header->helper_bell;
    int64_t now = wp_os_now();
    int64_t until = wp_sooner(deadline, now + WP_LOOK_NS);
    wp_unlock(pool);
    int rc = wp_os_futex_wait(bell, seen, until, WP_SHARED);
    wp_lock(pool);
    wp_spin_slept(&pool->helper_spin, wp_os_now() - now);
    return rc;
}

/* Lock held at entry and exit. 0: look again. */
static int wait_as_helper(struct weirpool *pool, struct wait *wait, int64_t deadline)
{
    wait->takes = pool->course != WP_BROKEN;
    if (spin_as_helper(pool, wait)) {
        return 0;
    }
    wait->takes = pool->course != WP_BROKEN;
    pool->helper_asleep = true;
    wp_address(pool);
    int rc = has_news(wait) ? 0 : sleep_on_bell(pool, wait->seen, deadline); /* nobody rang while we were awake */
    pool->helper_asleep = false;
    wp_address(pool);
    return rc;
}

/* Lock held at entry and exit. Returns 0 once `word` is settled. */
static int serve_as_helper(struct weirpool *pool, _Atomic uint32_t *word, int64_t deadline)
{
    struct wait wait = {.pool = pool, .word = word};
    int rc = 0;
    pool->helper_word = word;
    wp_address(pool);
    for (;;) {
        wait.seen = wp_load_seq_cst(&pool->segment.header->helper_bell);
        bool more = wp_take(pool);
        if (wp_is_settled(wp_load_acquire(word)) || rc != 0) { /* rc: of the sleep before; what came with it is taken */
            break;
        }
        rc = verdict(more ? 0 : wait_as_helper(pool, &wait, deadline), deadline);
        look_when_due(pool);
    }
    pool->helper_word = NULL;
    wp_address(pool);
    poke_a_sleeper(pool);
    if (wp_take(pool)) { /* for workers that rang the helper while it left */
        wp_pass_on(pool);
    }
    return wp_is_settled(wp_load_acquire(word)) ? 0 : rc;
}

static int sleep_on_word(struct weirpool *pool, _Atomic uint32_t *word, int64_t deadline)
{
    uint32_t seen = wp_fetch_or_acq_rel(word, WP_WAITED) | WP_WAITED;
    if (wp_is_settled(seen)) {
        return 0;
    }
    wp_unlock(pool);
    int rc = wp_os_futex_wait(word, seen, wp_sooner(deadline, wp_os_now() + WP_LOOK_NS), WP_PRIVATE);
    wp_lock(pool);
    return verdict(rc, deadline);
}

int wp_sleep_until_settled(struct weirpool *pool, _Atomic uint32_t *word, int64_t deadline)
{
    struct wp_sleeper me = {.word = word};
    wp_list_append(&pool->sleepers, &me.link);
    int rc = 0;
    while (rc == 0 && !wp_is_settled(wp_load_acquire(word))) {
        if (pool->helper_word == NULL) {
            rc = serve_as_helper(pool, word, deadline);
        } else {
            rc = sleep_on_word(pool, word, deadline);
        }
    }
    wp_list_remove(&me.link);
    poke_a_sleeper(pool); /* the offer may have come to us */
    return wp_is_settled(wp_load_acquire(word)) ? 0 : rc;
}
