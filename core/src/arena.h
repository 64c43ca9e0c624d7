/*
 * Memory for payloads that do not fit their slot. The bookkeeping is the parent's alone, in private memory: a worker
 * can only read the arena.
 *
 * Freed memory is kept warm (its pages stay) up to WP_WARM_BYTES; past that it turns cold (its pages are given back).
 * Warm extents join only warm neighbours and cold only cold ones, so that what is held is always known.
 *
 * Cold memory is written through the descriptor, where a lack of memory is an error and no SIGBUS. Warm memory has all
 * its pages, and is written through a mapping: a copy without the kernel's part, which costs as much again.
 */
#ifndef WP_ARENA_H
#define WP_ARENA_H

#include <stdint.h>
#include <sys/uio.h>

#define WP_WARM_BYTES (UINT64_C(128) << 20)
#define WP_SIZE_CLASSES 48

struct wp_extent;

/* All fields: the parent, under the pool lock. */
struct wp_arena {
    int fd;
    uint64_t at; /* offset of the arena in fd */
    uint64_t size;
    unsigned char *view; /* the parent's mapping, for warm memory; NULL where address space is limited */
    uint64_t used; /* bytes allocated */
    uint64_t warm; /* bytes free and warm */
    uint64_t most_held; /* used and warm together: past it nothing is kept warm */
    struct wp_extent *first;
    struct wp_extent *free[2][WP_SIZE_CLASSES]; /* by temperature and size */
};

int wp_arena_init(struct wp_arena *arena, int fd, uint64_t at, uint64_t size);
void wp_arena_fini(struct wp_arena *arena);

/* Freed memory is kept warm only while this and what is used are no more than `bytes`. 0: no such limit. */
void wp_arena_limit(struct wp_arena *arena, uint64_t bytes);

/* An extent of at least `size` bytes (1 or more), or NULL: no room, or no memory for the bookkeeping. */
struct wp_extent *wp_arena_alloc(struct wp_arena *arena, uint64_t size);
void wp_arena_free(struct wp_arena *arena, struct wp_extent *extent);

/* Writes all parts into an extent that is large enough, to its last 64 bytes or last page. Needs no lock; the extent is
 * its caller's. -ENOMEM, or another -errno of writing. */
int wp_arena_write(const struct wp_arena *arena, struct wp_extent *extent, const struct iovec *parts, int count);

/* Offset of an extent from the start of the arena. */
uint64_t wp_extent_at(const struct wp_extent *extent);

/* Do extents tile the arena, and do the sums agree? */
_Bool wp_arena_is_sound(const struct wp_arena *arena);

#endif
