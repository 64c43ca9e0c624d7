/*
 * The weir: permits, first come first served. Pure bookkeeping under its owner's lock (of a pool the pool lock);
 * sleeping is roles.c's part (of a weirpool_gate: weir.c's), publishing queue.c's.
 *
 * A permit covers one task, from its admission to its end: the task is outstanding, it is unstarted until a worker
 * starts it, and it weighs what its bytes weigh. Each of the three has a bound. A task that is heavier than the bound
 * weighs as much as the bound: it is admitted when nothing else weighs anything.
 *
 * A producer whose task is large does not know what it will weigh before it has the permit. It is admitted without
 * weight and then waits for its bytes alone, in a second line. Lighter tasks may overtake the head of that line, which
 * needs more room than they, but only so often.
 */
#ifndef WP_GATE_H
#define WP_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "list.h"

struct weirpool_task;

/* 0: no bound. */
struct wp_bounds {
    uint64_t tasks; /* outstanding ones */
    uint64_t unstarted;
    uint64_t bytes;
};

/*
 * The place of a producer that waits.
 *
 * field     writer                          protection
 * link      producer, admitter              the owner's lock
 * word      producer (WAITED), admitter     atomic; the futex on which the producer sleeps
 * outcome   whoever sets WP_SETTLED in word the owner's lock
 * since     the producer                    before it queues
 * bytes     the producer                    before it queues: the size of its task, 0 if not known yet
 * permitted the producer                    before it queues: it has its permit, and waits for the bytes alone
 * bell      the producer                    before it queues: an eventfd to ring when it is settled; 0: none
 * task      the producer: left here for whoever frees a permit; NULL: it waits for a bare permit
 */
struct weirpool_ticket {
    struct wp_link link;
    _Atomic uint32_t word;
    int outcome;
    bool permitted;
    int bell;
    uint64_t bytes;
    struct weirpool_task *task;
    int64_t since;
};

/* All fields: the owner's lock. */
struct wp_gate {
    struct wp_bounds bound;
    uint64_t outstanding; /* permits that are out */
    uint64_t unstarted; /* of these: no worker is known to have started the task */
    uint64_t bytes; /* what the tasks weigh, each at most the bound */
    uint64_t held; /* what they really have */
    uint64_t peak;
    uint64_t over_bound; /* admissions past a bound, ever */
    int closed; /* 0, or the -errno for whoever comes */
    uint64_t blocked;
    uint64_t blocked_ns;
    struct wp_link waiting; /* for a permit */
    struct wp_link heavy; /* with a permit, for room for their bytes */
    uint64_t overtaken; /* how often the first of these was */
    uint64_t patience; /* how often it may be */
};

void wp_gate_init(struct wp_gate *gate, const struct wp_bounds *bound, uint32_t workers);

/* A permit for a task of so many bytes, if there is room for it and nobody waits who comes first. */
bool wp_gate_try(struct wp_gate *gate, uint64_t bytes);

/* A permit whatever the bounds are. */
void wp_gate_force(struct wp_gate *gate, uint64_t bytes);

/* The permit's task has this weight: if there is room for it and nobody waits for the same; whatever the bound is. */
bool wp_gate_try_weigh(struct wp_gate *gate, uint64_t bytes);
void wp_gate_force_weigh(struct wp_gate *gate, uint64_t bytes);

/* The permit's task weighs something else than was thought. More than there is room for counts as over the bound. */
void wp_gate_reweigh(struct wp_gate *gate, uint64_t from, uint64_t to);

/* The task of a permit was started, or will never be. */
void wp_gate_start(struct wp_gate *gate);

/* A permit comes back, after wp_gate_start(), with the weight of so many bytes. */
void wp_gate_return(struct wp_gate *gate, uint64_t bytes);

/* Is there a bound on unstarted tasks, and is it reached? Then it pays to look which were started. */
bool wp_gate_lacks_starts(const struct wp_gate *gate);

/* Into the line, at its end; out of it. */
void wp_gate_queue(struct wp_gate *gate, struct weirpool_ticket *ticket);
void wp_gate_withdraw(struct wp_gate *gate, struct weirpool_ticket *ticket);

/* The next producer in line, with what it waits for, if there is room for that; else NULL. */
struct weirpool_ticket *wp_gate_admit_next(struct wp_gate *gate);

/* Would wp_gate_admit_next() find somebody? */
bool wp_gate_could_admit(const struct wp_gate *gate);

/* The next producer in line, without it: for turning them all away. */
struct weirpool_ticket *wp_gate_dismiss_next(struct wp_gate *gate);

#endif
