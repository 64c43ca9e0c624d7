#include "gate.h"

#define MAX_BYTES (UINT64_MAX / 4) /* sums of weights do not wrap */

void wp_gate_init(struct wp_gate *gate, const struct wp_bounds *bound, uint32_t workers)
{
    *gate = (struct wp_gate){.bound = *bound, .patience = 2 * (uint64_t)workers};
    gate->bound.bytes = bound->bytes < MAX_BYTES ? bound->bytes : MAX_BYTES;
    wp_list_init(&gate->waiting);
    wp_list_init(&gate->heavy);
}

/* ---- room ---- */

static uint64_t weight(const struct wp_gate *gate, uint64_t bytes)
{
    return bytes < gate->bound.bytes ? bytes : gate->bound.bytes;
}

static bool has_place(const struct wp_gate *gate)
{
    const struct wp_bounds *bound = &gate->bound;
    return (bound->tasks == 0 || gate->outstanding < bound->tasks) && !wp_gate_lacks_starts(gate);
}

static bool has_bytes(const struct wp_gate *gate, uint64_t bytes)
{
    return gate->bound.bytes == 0 || gate->bytes + weight(gate, bytes) <= gate->bound.bytes;
}

bool wp_gate_lacks_starts(const struct wp_gate *gate)
{
    return gate->bound.unstarted != 0 && gate->unstarted >= gate->bound.unstarted;
}

/* May a task of these bytes go ahead of those that wait with a permit for theirs? */
static bool may_overtake(const struct wp_gate *gate, uint64_t bytes)
{
    return weight(gate, bytes) == 0 || wp_list_is_empty(&gate->heavy) || gate->overtaken < gate->patience;
}

static void load(struct wp_gate *gate, uint64_t bytes)
{
    gate->bytes += weight(gate, bytes);
    gate->held += bytes;
    gate->overtaken += weight(gate, bytes) > 0 && !wp_list_is_empty(&gate->heavy);
}

/* ---- permits ---- */

static void issue(struct wp_gate *gate, uint64_t bytes)
{
    gate->outstanding++;
    gate->unstarted++;
    if (gate->outstanding > gate->peak) {
        gate->peak = gate->outstanding;
    }
    load(gate, bytes);
}

static bool has_room(const struct wp_gate *gate, uint64_t bytes)
{
    return has_place(gate) && has_bytes(gate, bytes) && may_overtake(gate, bytes);
}

bool wp_gate_try(struct wp_gate *gate, uint64_t bytes)
{
    if (!wp_list_is_empty(&gate->waiting) || !has_room(gate, bytes)) {
        return false;
    }
    issue(gate, bytes);
    return true;
}

void wp_gate_force(struct wp_gate *gate, uint64_t bytes)
{
    gate->over_bound += !has_place(gate) || !has_bytes(gate, bytes);
    issue(gate, bytes);
}

bool wp_gate_try_weigh(struct wp_gate *gate, uint64_t bytes)
{
    if (!wp_list_is_empty(&gate->heavy) || !has_bytes(gate, bytes)) {
        return false;
    }
    load(gate, bytes);
    return true;
}

void wp_gate_force_weigh(struct wp_gate *gate, uint64_t bytes)
{
    gate->over_bound += !has_bytes(gate, bytes);
    load(gate, bytes);
}

void wp_gate_reweigh(struct wp_gate *gate, uint64_t from, uint64_t to)
{
    gate->bytes += weight(gate, to) - weight(gate, from);
    gate->held += to - from;
    gate->over_bound += to > from && gate->bytes > gate->bound.bytes;
}

void wp_gate_start(struct wp_gate *gate)
{
    gate->unstarted--;
}

void wp_gate_return(struct wp_gate *gate, uint64_t bytes)
{
    gate->outstanding--;
    gate->bytes -= weight(gate, bytes);
    gate->held -= bytes;
}

/* ---- the lines ---- */

void wp_gate_queue(struct wp_gate *gate, struct weirpool_ticket *ticket)
{
    wp_list_append(ticket->permitted ? &gate->heavy : &gate->waiting, &ticket->link);
    gate->blocked++;
}

static bool is_first_of_heavy(const struct wp_gate *gate, const struct weirpool_ticket *ticket)
{
    return gate->heavy.next == &ticket->link;
}

void wp_gate_withdraw(struct wp_gate *gate, struct weirpool_ticket *ticket)
{
    if (is_first_of_heavy(gate, ticket)) {
        gate->overtaken = 0;
    }
    wp_list_remove(&ticket->link);
    gate->blocked--;
}

static struct weirpool_ticket *first(const struct wp_link *line)
{
    return wp_list_is_empty(line) ? NULL : wp_container_of(line->next, struct weirpool_ticket, link);
}

struct weirpool_ticket *wp_gate_dismiss_next(struct wp_gate *gate)
{
    struct weirpool_ticket *ticket = first(&gate->heavy);
    ticket = ticket != NULL ? ticket : first(&gate->waiting);
    if (ticket != NULL) {
        wp_gate_withdraw(gate, ticket);
    }
    return ticket;
}

static struct weirpool_ticket *next_heavy(const struct wp_gate *gate)
{
    struct weirpool_ticket *ticket = first(&gate->heavy);
    return ticket != NULL && has_bytes(gate, ticket->bytes) ? ticket : NULL;
}

static struct weirpool_ticket *next_waiting(const struct wp_gate *gate)
{
    struct weirpool_ticket *ticket = first(&gate->waiting);
    return ticket != NULL && has_room(gate, ticket->bytes) ? ticket : NULL;
}

bool wp_gate_could_admit(const struct wp_gate *gate)
{
    return next_heavy(gate) != NULL || next_waiting(gate) != NULL;
}

struct weirpool_ticket *wp_gate_admit_next(struct wp_gate *gate)
{
    struct weirpool_ticket *ticket = next_heavy(gate);
    if (ticket != NULL) {
        wp_gate_withdraw(gate, ticket);
        gate->bytes += weight(gate, ticket->bytes);
        gate->held += ticket->bytes;
        return ticket;
    }
    ticket = next_waiting(gate);
    if (ticket != NULL) {
        wp_gate_withdraw(gate, ticket);
        issue(gate, ticket->bytes);
    }
    return ticket;
}
