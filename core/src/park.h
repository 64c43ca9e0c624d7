/*
 * How workers sleep and who wakes them. At most one woken worker is on its way at a time: it wakes the next one when it
 * has found work. `waking` names it, with the time, and counts for 100 us only, so that a worker that was stopped or
 * killed on its way delays others, but stalls nobody: every sleeper looks again once a second whatever happens.
 */
#ifndef WP_PARK_H
#define WP_PARK_H

#include "segment.h"

/* The longest that anybody in the pool sleeps without a look. */
#define WP_LOOK_NS INT64_C(1000000000)

/* A worker found nothing: sleep until somebody wakes it, by `deadline`. 0: look again; -ETIMEDOUT; -EINTR. */
int wp_park(const struct wp_segment *segment, uint32_t me, int64_t deadline);

/* Worker `me` looks for work without sleeping: it counts as one on its way until wp_stop_search(). */
void wp_start_search(const struct wp_segment *segment, uint32_t me);

/* After this it has to look once more: whoever published meanwhile relied on it. */
void wp_stop_search(const struct wp_segment *segment, uint32_t me);

/* Work was published: see that a worker is awake or on its way. */
void wp_wake_one(const struct wp_segment *segment);

/* `stop` changed: everybody has to see it. */
void wp_wake_all(const struct wp_segment *segment);

/* Worker `gone` is dead: it is neither asleep nor on its way any more, and nobody relies on whom it was about to wake.
 * wp_look() has to follow. */
void wp_unpark_dead(const struct wp_segment *segment, uint32_t gone);

/* The look once a second: work queued although a worker sleeps means that a wake-up got lost with its waker. */
void wp_look(const struct wp_segment *segment);

#endif
