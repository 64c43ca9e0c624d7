/*
 * A bound that finds itself: between one more than there are workers and 4 times as many (8 times where tasks take less
 * than 10 ms). It rises when workers had to wait for the next task although producers were blocked, and falls, slowly,
 * while tasks are always left in the queue. A pure function of measurements; whoever takes results feeds it.
 */
#ifndef WP_ADAPT_H
#define WP_ADAPT_H

#include <stdbool.h>
#include <stdint.h>

/* What was measured since the last step. */
struct wp_measure {
    uint64_t tasks; /* that workers finished: more than none */
    uint64_t busy_ns; /* with these */
    uint64_t dry_ns; /* workers were free, the queue was empty, and a producer had been blocked */
    uint64_t slack; /* the fewest tasks that were queued when somebody took results */
    bool contended; /* a producer was blocked */
};

/* `bound` is the answer; the rest is memory between steps. */
struct wp_adapt {
    uint32_t workers; /* 0: the bound is not adaptive */
    uint64_t bound;
    uint32_t calm; /* steps in a row with more in the queue than is needed */
    uint32_t patience; /* how many of these it takes to lower the bound */
    uint32_t lowered; /* steps since it was lowered, as far as that is recent; 0: it was not */
    uint64_t run_ns; /* a task's mean time when `patience` was learned */
};

void wp_adapt_init(struct wp_adapt *adapt, uint32_t workers);

/* The largest bound that it may come to. */
uint64_t wp_adapt_limit(uint32_t workers);

void wp_adapt_step(struct wp_adapt *adapt, const struct wp_measure *measure);

#endif
