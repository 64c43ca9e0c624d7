#include "gate.h"

void wp_gate_init(struct wp_gate *gate, uint64_t bound)
{
    *gate = (struct wp_gate){.bound = bound};
    wp_list_init(&gate->waiting);
}

static bool has_room(const struct wp_gate *gate)
{
    return gate->bound == 0 || gate->outstanding < gate->bound;
}

static void issue(struct wp_gate *gate)
{
    gate->outstanding++;
    if (gate->outstanding > gate->peak) {
        gate->peak = gate->outstanding;
    }
}

bool wp_gate_try(struct wp_gate *gate)
{
    if (!has_room(gate) || !wp_list_is_empty(&gate->waiting)) {
        return false;
    }
    issue(gate);
    return true;
}

void wp_gate_force(struct wp_gate *gate)
{
    if (!has_room(gate)) {
        gate->over_bound++;
    }
    issue(gate);
}

void wp_gate_return(struct wp_gate *gate)
{
    gate->outstanding--;
}

void wp_gate_queue(struct wp_gate *gate, struct weirpool_ticket *ticket)
{
    wp_list_append(&gate->waiting, &ticket->link);
    gate->blocked++;
}

void wp_gate_withdraw(struct wp_gate *gate, struct weirpool_ticket *ticket)
{
    wp_list_remove(&ticket->link);
    gate->blocked--;
}

struct weirpool_ticket *wp_gate_dismiss_next(struct wp_gate *gate)
{
    struct wp_link *link = wp_list_pop(&gate->waiting);
    if (link == NULL) {
        return NULL;
    }
    gate->blocked--;
    return wp_container_of(link, struct weirpool_ticket, link);
}

struct weirpool_ticket *wp_gate_admit_next(struct wp_gate *gate)
{
    if (!has_room(gate)) {
        return NULL;
    }
    struct weirpool_ticket *ticket = wp_gate_dismiss_next(gate);
    if (ticket != NULL) {
        issue(gate);
    }
    return ticket;
}
