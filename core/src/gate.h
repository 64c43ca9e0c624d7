/*
 * The weir: permits for outstanding tasks, first come first served. Pure bookkeeping under the pool lock; sleeping is
 * roles.c's part and publishing queue.c's.
 */
#ifndef WP_GATE_H
#define WP_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "list.h"

struct weirpool_task;

/*
 * The place of a producer that waits.
 *
 * field     writer                          protection
 * link      producer, admitter              pool lock
 * word      producer (WAITED), admitter     atomic; the futex on which the producer sleeps
 * outcome   whoever sets WP_SETTLED in word pool lock
 * since     the producer                    before it queues
 * task      the producer: left here for whoever frees a permit; NULL: it waits for a bare permit
 */
struct weirpool_ticket {
    struct wp_link link;
    _Atomic uint32_t word;
    int outcome;
    struct weirpool_task *task;
    int64_t since;
};

/* All fields: pool lock. */
struct wp_gate {
    uint64_t bound; /* 0: none */
    uint64_t outstanding; /* permits that are out */
    uint64_t peak;
    uint64_t over_bound; /* admissions past the bound, ever */
    int closed; /* 0, or the -errno for whoever comes */
    uint64_t blocked;
    uint64_t blocked_ns;
    struct wp_link waiting;
};

void wp_gate_init(struct wp_gate *gate, uint64_t bound);

/* A permit, if there is room and nobody waits for it. */
bool wp_gate_try(struct wp_gate *gate);

/* A permit whatever the bound is. */
void wp_gate_force(struct wp_gate *gate);

/* A permit comes back. */
void wp_gate_return(struct wp_gate *gate);

void wp_gate_queue(struct wp_gate *gate, struct weirpool_ticket *ticket);
void wp_gate_withdraw(struct wp_gate *gate, struct weirpool_ticket *ticket);

/* The producer that has waited longest, with a permit, if there is room for it; else NULL. */
struct weirpool_ticket *wp_gate_admit_next(struct wp_gate *gate);

/* The producer that has waited longest, without a permit: for turning them all away. */
struct weirpool_ticket *wp_gate_dismiss_next(struct wp_gate *gate);

#endif
