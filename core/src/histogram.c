#include "histogram.h"

/* Bucket 0 is what counts as nothing; then each octave has its 16 buckets. */
static uint32_t bucket_of(uint64_t ns)
{
    if (ns < UINT64_C(1) << WP_LEAST_BITS) {
        return 0;
    }
    if (ns >= UINT64_C(1) << WP_MOST_BITS) {
        return WP_BUCKETS - 1;
    }
    uint32_t octave = 63u - (uint32_t)__builtin_clzll(ns);
    uint32_t step = (uint32_t)(ns >> (octave - WP_OCTAVE_BITS)) & ((1u << WP_OCTAVE_BITS) - 1);
    return 1 + ((octave - WP_LEAST_BITS) << WP_OCTAVE_BITS) + step;
}

static uint64_t middle_of(uint32_t bucket)
{
    if (bucket == 0) {
        return 0;
    }
    uint32_t octave = WP_LEAST_BITS + ((bucket - 1) >> WP_OCTAVE_BITS);
    uint64_t step = (bucket - 1) & ((1u << WP_OCTAVE_BITS) - 1);
    uint64_t width = UINT64_C(1) << (octave - WP_OCTAVE_BITS);
    return (UINT64_C(1) << octave) + step * width + width / 2;
}

void wp_histogram_add(struct wp_histogram *histogram, int64_t ns)
{
    histogram->count++;
    histogram->sum_ns += (uint64_t)ns;
    histogram->bucket[bucket_of((uint64_t)ns)]++;
}

uint64_t wp_histogram_quantile(const struct wp_histogram *histogram, double share)
{
    if (histogram->count == 0) {
        return 0;
    }
    uint64_t rank = (uint64_t)(share * (double)(histogram->count - 1));
    uint64_t seen = 0;
    uint32_t bucket = 0;
    while ((seen += histogram->bucket[bucket]) <= rank && bucket < WP_BUCKETS - 1) {
        bucket++;
    }
    return middle_of(bucket);
}
