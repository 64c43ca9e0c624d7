/* The C face's worker processes: forked, or started from a program, and reaped by the core. */
#ifndef WP_CREW_H
#define WP_CREW_H

#include "pool.h"

/* Starts all workers, if the options name a handler or a program. On an error none is left. */
int wp_crew_start(struct weirpool *pool, const struct weirpool_options *options);

/* In a pool that replaces: starts a worker in the place of each that is gone. Without the lock. Returns when to try
 * again if that failed, else WEIRPOOL_FOREVER. With no worker left a failure breaks the pool. */
int64_t wp_crew_fill(struct weirpool *pool);

/* Ends and reaps the workers that the core started. No other thread may use the pool. */
void wp_crew_end(struct weirpool *pool);

#endif
