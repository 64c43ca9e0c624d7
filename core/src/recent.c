#include "recent.h"

#include <stddef.h>

void wp_recent_init(struct wp_recent *recent, int64_t now)
{
    *recent = (struct wp_recent){.began = now, .counted = now};
}

/* NULL: that time has made room for a later one. */
static struct wp_slice *slice_of(struct wp_recent *recent, int64_t number)
{
    struct wp_slice *slice = &recent->slice[(uint64_t)number % WP_SLICES];
    if (slice->number < number) {
        *slice = (struct wp_slice){.number = number};
    }
    return slice->number == number ? slice : NULL;
}

/* Adds `times` the time from `from` to `to` to a field of the slices that it touches, as far back as slices go. */
static void spread(struct wp_recent *recent, size_t field, uint64_t times, int64_t from, int64_t to)
{
    int64_t last = to >> WP_SLICE_BITS;
    int64_t number = from >> WP_SLICE_BITS;
    number = number > last - (int64_t)WP_SLICES ? number : last - (int64_t)WP_SLICES + 1;
    for (; number <= last; number++) {
        struct wp_slice *slice = slice_of(recent, number);
        int64_t begin = number << WP_SLICE_BITS;
        int64_t end = (number + 1) << WP_SLICE_BITS;
        begin = begin > from ? begin : from;
        end = end < to ? end : to;
        if (slice != NULL && begin < end) {
            *(uint64_t *)((char *)slice + field) += times * (uint64_t)(end - begin);
        }
    }
}

void wp_recent_ran(struct wp_recent *recent, int64_t started, int64_t finished)
{
    spread(recent, offsetof(struct wp_slice, busy_ns), 1, started, finished);
    struct wp_slice *slice = slice_of(recent, finished >> WP_SLICE_BITS);
    if (slice != NULL) {
        slice->tasks++;
    }
}

void wp_recent_lived(struct wp_recent *recent, uint32_t workers, int64_t now)
{
    if (now > recent->counted) {
        spread(recent, offsetof(struct wp_slice, live_ns), workers, recent->counted, now);
        recent->counted = now;
    }
}

struct wp_recent_sum wp_recent_sum(const struct wp_recent *recent, int64_t now)
{
    int64_t first = (now >> WP_SLICE_BITS) - WP_RECENT_SLICES + 1;
    int64_t since = first << WP_SLICE_BITS;
    struct wp_recent_sum sum = {.since = since > recent->began ? since : recent->began};
    for (uint32_t i = 0; i < WP_SLICES; i++) {
        const struct wp_slice *slice = &recent->slice[i];
        if (slice->number >= first) {
            sum.busy_ns += slice->busy_ns;
            sum.live_ns += slice->live_ns;
            sum.tasks += slice->tasks;
        }
    }
    return sum;
}
