/*
 * How long something took, over a pool's life: counts in buckets that are 3 to 6 % wide, from 64 ns to some twenty
 * hours. Of fixed size, private memory of whoever has it, no locks of its own.
 */
#ifndef WP_HISTOGRAM_H
#define WP_HISTOGRAM_H

#include <stdint.h>

#define WP_OCTAVE_BITS 4 /* buckets in an octave: 16 */
#define WP_LEAST_BITS 6 /* what is under 64 ns counts as nothing */
#define WP_MOST_BITS 46
#define WP_BUCKETS (1u + ((WP_MOST_BITS - WP_LEAST_BITS) << WP_OCTAVE_BITS))

struct wp_histogram {
    uint64_t count;
    uint64_t sum_ns;
    uint64_t bucket[WP_BUCKETS];
};

/* `ns` is not negative. What is past the last bucket counts there. */
void wp_histogram_add(struct wp_histogram *histogram, int64_t ns);

/* The middle of the bucket that holds the value below which `share` (0 to 1) of all are. 0 if there is none. */
uint64_t wp_histogram_quantile(const struct wp_histogram *histogram, double share);

#endif
