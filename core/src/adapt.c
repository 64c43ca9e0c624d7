#include "adapt.h"

#define SHORT_NS UINT64_C(10000000)
#define LEAST_PATIENCE 2u
#define MOST_PATIENCE 64u
#define RECENT 8u /* steps in which a rise says that the lowering before it was wrong */
#define RAISE 0.01 /* of the workers' time was dry */
#define LOWER 0.0025 /* or less: apart from RAISE, so that noise does not move the bound to and fro */

void wp_adapt_init(struct wp_adapt *adapt, uint32_t workers)
{
    *adapt = (struct wp_adapt){.workers = workers, .bound = 2 * (uint64_t)workers, .patience = LEAST_PATIENCE};
}

uint64_t wp_adapt_limit(uint32_t workers)
{
    return 8 * (uint64_t)workers;
}

static uint64_t clamp(const struct wp_adapt *adapt, uint64_t bound, uint64_t run_ns)
{
    uint64_t floor = (uint64_t)adapt->workers + 1;
    uint64_t top = run_ns < SHORT_NS ? wp_adapt_limit(adapt->workers) : 4 * (uint64_t)adapt->workers;
    bound = bound < top ? bound : top;
    return bound > floor ? bound : floor;
}

/* What was learned of other tasks is worth nothing. */
static void forget_other_tasks(struct wp_adapt *adapt, uint64_t run_ns)
{
    if (run_ns > 4 * adapt->run_ns || adapt->run_ns > 4 * run_ns) {
        adapt->run_ns = run_ns;
        adapt->patience = LEAST_PATIENCE;
        adapt->lowered = 0;
        adapt->calm = 0;
    }
}

/* Twice the places that wait, or what the lag asks for: about W * (1 + lag / t). */
static void raise(struct wp_adapt *adapt, const struct wp_measure *measure)
{
    double need =
        (double)adapt->workers * (1 + (double)measure->dry_ns / (double)(measure->busy_ns > 0 ? measure->busy_ns : 1));
    uint64_t limit = wp_adapt_limit(adapt->workers);
    uint64_t wanted = need < (double)limit ? (uint64_t)need + 1 : limit;
    uint64_t more = 2 * adapt->bound - adapt->workers;
    adapt->bound = more > wanted ? more : wanted;
    if (adapt->lowered > 0) {
        adapt->patience = 2 * adapt->patience < MOST_PATIENCE ? 2 * adapt->patience : MOST_PATIENCE;
    }
    adapt->lowered = 0;
    adapt->calm = 0;
}

/* By half of what was never needed. */
static void lower(struct wp_adapt *adapt, uint64_t slack)
{
    adapt->bound -= (slack + 1) / 2 < adapt->bound ? (slack + 1) / 2 : 0;
    adapt->lowered = 1;
    adapt->calm = 0;
}

void wp_adapt_step(struct wp_adapt *adapt, const struct wp_measure *measure)
{
    uint64_t run_ns = measure->busy_ns / measure->tasks;
    double dry = (double)measure->dry_ns / ((double)measure->dry_ns + (double)measure->busy_ns + 1);
    forget_other_tasks(adapt, run_ns);
    adapt->lowered = adapt->lowered > 0 && adapt->lowered <= RECENT ? adapt->lowered + 1 : 0;
    bool spare = measure->contended && dry < LOWER && measure->slack > 0;
    adapt->calm = spare ? adapt->calm + 1 : 0;
    if (measure->contended && dry > RAISE) {
        raise(adapt, measure);
    } else if (adapt->calm >= adapt->patience) {
        lower(adapt, measure->slack);
    }
    adapt->bound = clamp(adapt, adapt->bound, run_ns);
}
