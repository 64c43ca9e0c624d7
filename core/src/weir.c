/*
 * A gate alone, for executors that are not ours. The bookkeeping is a pool's (gate.c); what is told of starts and ends
 * its user tells, and producers sleep on their tickets: nobody has results to take meanwhile, and whoever could wake
 * them is in the same process, so that no look around is needed.
 */
#include <limits.h>
#include <stdlib.h>

#include "fork.h"
#include "pool.h"

struct weirpool_gate {
    pthread_mutex_t lock; /* of everything below */
    unsigned generation;
    struct wp_gate gate;
};

int weirpool_gate_open(weirpool_gate **out, uint64_t tasks, uint64_t unstarted)
{
    weirpool_gate *weir = calloc(1, sizeof *weir);
    if (weir == NULL) {
        return -ENOMEM;
    }
    const struct wp_bounds bounds = {.tasks = tasks, .unstarted = unstarted};
    wp_gate_init(&weir->gate, &bounds, 1);
    weir->generation = wp_fork_generation();
    pthread_mutex_init(&weir->lock, NULL);
    *out = weir;
    return 0;
}

int weirpool_gate_close(weirpool_gate *weir)
{
    if (wp_forked_since(weir->generation)) {
        return -ECHILD;
    }
    pthread_mutex_destroy(&weir->lock);
    free(weir);
    return 0;
}

/* In a forked child another thread of the parent's may seem to hold the lock. */
static int enter(weirpool_gate *weir)
{
    if (wp_forked_since(weir->generation)) {
        return -ECHILD;
    }
    pthread_mutex_lock(&weir->lock);
    return 0;
}

static void leave(weirpool_gate *weir)
{
    pthread_mutex_unlock(&weir->lock);
}

/* ---- with the lock held ---- */

/* The producer takes the lock before it ends its ticket: that lives until we let go of it. */
static void settle(weirpool_ticket *ticket, int outcome)
{
    ticket->outcome = outcome;
    /* Release: with the producer's acquire in sleep_until_settled(). */
    if (wp_fetch_or_acq_rel(&ticket->word, WP_SETTLED) & WP_WAITED) {
        wp_os_futex_wake(&ticket->word, INT_MAX, WP_PRIVATE);
    }
    if (ticket->bell > 0) {
        wp_os_bell_ring(ticket->bell);
    }
}

static void flow(struct wp_gate *gate)
{
    weirpool_ticket *ticket;
    while ((ticket = wp_gate_admit_next(gate)) != NULL) {
        settle(ticket, 0);
    }
}

static int join_line(struct wp_gate *gate, weirpool_ticket *ticket)
{
    if (gate->closed != 0) {
        return gate->closed;
    }
    ticket->since = wp_os_now();
    wp_gate_queue(gate, ticket);
    flow(gate);
    return 0;
}

/* Lets go of the lock meanwhile. 0: settled; else why it is not. */
static int sleep_until_settled(weirpool_gate *weir, weirpool_ticket *ticket, int64_t deadline)
{
    for (;;) {
        uint32_t seen = wp_fetch_or_acq_rel(&ticket->word, WP_WAITED) | WP_WAITED;
        if (wp_is_settled(seen)) {
            return 0;
        }
        if (wp_os_now() >= deadline) {
            return wp_too_late(deadline);
        }
        leave(weir);
        int rc = wp_os_futex_wait(&ticket->word, seen, deadline, WP_PRIVATE);
        pthread_mutex_lock(&weir->lock);
        if (rc == -EINTR && !wp_is_settled(wp_load_acquire(&ticket->word))) {
            return -EINTR;
        }
    }
}

static int end_wait(struct wp_gate *gate, const weirpool_ticket *ticket)
{
    gate->blocked_ns += (uint64_t)(wp_os_now() - ticket->since);
    return ticket->outcome;
}

/* Gives the place up. 1: its turn had come. */
static int leave_line(struct wp_gate *gate, weirpool_ticket *ticket)
{
    if (wp_is_settled(wp_load_acquire(&ticket->word))) {
        int outcome = end_wait(gate, ticket);
        return outcome == 0 ? 1 : outcome;
    }
    wp_gate_withdraw(gate, ticket);
    (void)end_wait(gate, ticket);
    return 0;
}

static int wait_in_line(weirpool_gate *weir, int64_t deadline)
{
    weirpool_ticket ticket = {.bell = 0};
    int rc = join_line(&weir->gate, &ticket);
    if (rc != 0) {
        return rc;
    }
    rc = sleep_until_settled(weir, &ticket, deadline);
    if (rc == 0) {
        return end_wait(&weir->gate, &ticket);
    }
    (void)leave_line(&weir->gate, &ticket); /* not settled, and the lock is ours */
    return rc;
}

static int admit(weirpool_gate *weir, enum weirpool_admission admission, int64_t deadline)
{
    if (weir->gate.closed != 0) {
        return weir->gate.closed;
    }
    if (wp_gate_try(&weir->gate, 0)) {
        return 0;
    }
    if (admission == WEIRPOOL_OVER_BOUND) {
        wp_gate_force(&weir->gate, 0);
        return 0;
    }
    return deadline == WEIRPOOL_NOW ? -EAGAIN : wait_in_line(weir, deadline);
}

/* ---- permits ---- */

int weirpool_gate_admit(weirpool_gate *weir, enum weirpool_admission admission, int64_t deadline)
{
    int rc = enter(weir);
    if (rc == 0) {
        rc = admit(weir, admission, deadline);
        leave(weir);
    }
    return rc;
}

int weirpool_gate_start(weirpool_gate *weir)
{
    int rc = enter(weir);
    if (rc == 0) {
        wp_gate_start(&weir->gate);
        flow(&weir->gate);
        leave(weir);
    }
    return rc;
}

int weirpool_gate_return(weirpool_gate *weir, bool started)
{
    int rc = enter(weir);
    if (rc == 0) {
        if (!started) {
            wp_gate_start(&weir->gate);
        }
        wp_gate_return(&weir->gate, 0);
        flow(&weir->gate);
        leave(weir);
    }
    return rc;
}

/* ---- tickets ---- */

int weirpool_gate_queue(weirpool_gate *weir, int bell, weirpool_ticket **out)
{
    if (wp_forked_since(weir->generation)) {
        return -ECHILD;
    }
    weirpool_ticket *ticket = calloc(1, sizeof *ticket);
    if (ticket == NULL) {
        return -ENOMEM;
    }
    ticket->bell = bell;
    pthread_mutex_lock(&weir->lock);
    int rc = join_line(&weir->gate, ticket);
    leave(weir);
    if (rc != 0) {
        free(ticket);
        return rc;
    }
    *out = ticket;
    return 0;
}

int weirpool_gate_await(weirpool_gate *weir, weirpool_ticket *ticket, int64_t deadline)
{
    int rc = enter(weir);
    if (rc != 0) {
        return rc;
    }
    rc = sleep_until_settled(weir, ticket, deadline);
    if (rc == 0) {
        rc = end_wait(&weir->gate, ticket);
        free(ticket);
    }
    leave(weir);
    return rc;
}

int weirpool_gate_leave(weirpool_gate *weir, weirpool_ticket *ticket)
{
    int rc = enter(weir);
    if (rc == 0) {
        rc = leave_line(&weir->gate, ticket);
        free(ticket);
        leave(weir);
    }
    return rc;
}

/* ---- the whole ---- */

int weirpool_gate_shut(weirpool_gate *weir)
{
    int rc = enter(weir);
    if (rc != 0) {
        return rc;
    }
    weir->gate.closed = -ESHUTDOWN;
    weirpool_ticket *ticket;
    while ((ticket = wp_gate_dismiss_next(&weir->gate)) != NULL) {
        settle(ticket, -ESHUTDOWN);
    }
    leave(weir);
    return 0;
}

int weirpool_gate_stats(weirpool_gate *weir, struct weirpool_stats *stats)
{
    int rc = enter(weir);
    if (rc != 0) {
        return rc;
    }
    const struct wp_gate *gate = &weir->gate;
    *stats = (struct weirpool_stats){
        .bound = gate->bound.tasks,
        .outstanding = gate->outstanding,
        .waiting = gate->unstarted,
        .running = gate->outstanding - gate->unstarted,
        .peak_outstanding = gate->peak,
        .admitted_over_bound = gate->over_bound,
        .blocked_producers = gate->blocked,
        .blocked_ns = gate->blocked_ns,
    };
    leave(weir);
    return 0;
}
