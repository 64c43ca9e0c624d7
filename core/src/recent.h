/*
 * The last ten seconds of a pool: what its workers were busy with, and how much of their time that was. Time is cut
 * into slices of about a second; a slice that is too old makes room for a new one. Private memory, no locks of its own.
 */
#ifndef WP_RECENT_H
#define WP_RECENT_H

#include <stdint.h>

#define WP_SLICE_BITS 30 /* a slice is 2^30 ns */
#define WP_SLICES 16u /* kept: a power of two */
#define WP_RECENT_SLICES 10 /* looked at, the one that is not over among them */

struct wp_slice {
    int64_t number; /* its time, in slices */
    uint64_t busy_ns; /* of all workers together */
    uint64_t live_ns;
    uint64_t tasks; /* that ended in it */
};

struct wp_recent {
    int64_t began;
    int64_t counted; /* up to here workers' time is in live_ns */
    struct wp_slice slice[WP_SLICES];
};

struct wp_recent_sum {
    int64_t since; /* where the ten seconds begin: not before the pool did */
    uint64_t busy_ns;
    uint64_t live_ns;
    uint64_t tasks;
};

void wp_recent_init(struct wp_recent *recent, int64_t now);

/* A worker ran a task. started <= finished. */
void wp_recent_ran(struct wp_recent *recent, int64_t started, int64_t finished);

/* There have been so many workers since this was called last. */
void wp_recent_lived(struct wp_recent *recent, uint32_t workers, int64_t now);

struct wp_recent_sum wp_recent_sum(const struct wp_recent *recent, int64_t now);

#endif
