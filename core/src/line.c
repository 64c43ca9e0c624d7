/* Standing in line at the gate of a pool. A task that is left there is published by whoever makes room for it. */
#include <errno.h>
#include <stdlib.h>

#include "pool.h"

static int make_ticket(const struct weirpool_request *request, weirpool_ticket **out)
{
    weirpool_ticket *ticket = calloc(1, sizeof *ticket);
    *out = ticket;
    if (ticket == NULL) {
        return -ENOMEM;
    }
    ticket->permitted = request->permitted;
    ticket->bell = request->bell;
    ticket->bytes = request->weighed;
    if (request->parts == NULL) {
        return 0;
    }
    ticket->bytes = wp_parts_size(request->parts, request->count);
    ticket->task = wp_task_new(request, ticket->bytes);
    return ticket->task != NULL ? wp_task_keep(ticket->task, request->parts, request->count) : -ENOMEM;
}

/* With its task, unless that was published. */
static void free_ticket(weirpool_ticket *ticket, bool published)
{
    if (ticket != NULL && ticket->task != NULL && !published) {
        wp_task_free(ticket->task);
    }
    free(ticket);
}

/* Lock held. */
static int join_line(struct weirpool *pool, weirpool_ticket *ticket)
{
    if (pool->gate.closed != 0) {
        return pool->gate.closed;
    }
    ticket->since = wp_os_now();
    wp_gate_queue(&pool->gate, ticket);
    wp_flow(pool); /* room may have been made since the caller looked */
    return 0;
}

int weirpool_queue(weirpool *pool, const struct weirpool_request *request, weirpool_task **task, weirpool_ticket **out)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    if (!wp_can_grant(pool, request)) {
        return -EINVAL;
    }
    size_t size = request->parts != NULL ? wp_parts_size(request->parts, request->count) : 0;
    if (size > WEIRPOOL_PARK_LIMIT || wp_is_too_large(pool, size)) {
        return -EMSGSIZE;
    }
    weirpool_ticket *ticket;
    rc = make_ticket(request, &ticket);
    if (rc == 0) {
        if (task != NULL) {
            *task = ticket->task; /* before anybody can take it */
        }
        wp_lock(pool);
        rc = join_line(pool, ticket);
        wp_unlock(pool);
    }
    if (rc != 0) {
        free_ticket(ticket, false);
        return rc;
    }
    *out = ticket;
    return 0;
}

void wp_settle_ticket(struct weirpool *pool, struct weirpool_ticket *ticket, int outcome)
{
    ticket->outcome = outcome;
    wp_settle(pool, &ticket->word);
    if (ticket->bell > 0) { /* who waits for it takes the lock before it ends the ticket, and closes the bell */
        wp_os_bell_ring(ticket->bell);
    }
}

/* Lock held. The ticket is settled: its outcome, and its end. */
static int end_ticket(struct weirpool *pool, weirpool_ticket *ticket)
{
    int outcome = ticket->outcome;
    pool->gate.blocked_ns += (uint64_t)(wp_os_now() - ticket->since);
    free_ticket(ticket, outcome == 0);
    return outcome;
}

int weirpool_await(weirpool *pool, weirpool_ticket *ticket, int64_t deadline)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    rc = wp_sleep_until_settled(pool, &ticket->word, deadline);
    if (rc == 0) {
        rc = end_ticket(pool, ticket);
    }
    wp_unlock(pool);
    return rc;
}

int weirpool_leave(weirpool *pool, weirpool_ticket *ticket)
{
    int rc = wp_check_owner(pool);
    if (rc != 0) {
        return rc;
    }
    wp_lock(pool);
    if (wp_is_settled(wp_load_acquire(&ticket->word))) {
        rc = end_ticket(pool, ticket);
        rc = rc == 0 ? 1 : rc;
    } else {
        wp_gate_withdraw(&pool->gate, ticket);
        ticket->outcome = -ECANCELED;
        (void)end_ticket(pool, ticket);
        wp_flow(pool); /* it may have stood in the way of others that need less room */
    }
    wp_unlock(pool);
    return rc;
}

int wp_queue_and_wait(struct weirpool *pool, const struct weirpool_request *request, weirpool_task **task,
                      int64_t deadline)
{
    weirpool_ticket *ticket;
    int rc = weirpool_queue(pool, request, task, &ticket);
    if (rc != 0) {
        return rc;
    }
    rc = weirpool_await(pool, ticket, deadline);
    if (rc == -EAGAIN || rc == -ETIMEDOUT || rc == -EINTR) {
        int left = weirpool_leave(pool, ticket);
        rc = left == 0 ? rc : left == 1 ? 0 : left;
    }
    return rc;
}
