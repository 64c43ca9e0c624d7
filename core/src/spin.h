/*
 * Spinning before sleeping: a wake-up by the system costs some 20 us, more than many a task. Whoever waits spins for
 * a moment if that has paid lately. After spins in vain it sleeps the more often at once, the more there were.
 */
#ifndef WP_SPIN_H
#define WP_SPIN_H

#include <stdbool.h>
#include <stdint.h>

#define WP_SPIN_NS INT64_C(50000)

/* Belongs to one thread at a time. */
struct wp_spin {
    bool allowed; /* there is a core for it */
    uint32_t misses; /* how many short waits to sleep through before the next try: 0 after a spin that paid */
    uint32_t slept; /* of these */
};

/* Is it worth trying now? */
static inline bool wp_spin_pays(const struct wp_spin *spin)
{
    return spin->allowed && spin->slept >= spin->misses;
}

/* Spins until `is_over(what)`, for WP_SPIN_NS at most. Returns whether it came to that, and remembers. */
bool wp_spin(struct wp_spin *spin, bool (*is_over)(const void *what), const void *what);

/* A sleep took so long. */
void wp_spin_slept(struct wp_spin *spin, int64_t ns);

#endif
