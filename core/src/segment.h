/* The shared segment: one sealed piece of memory, and each process's view of it. */
#ifndef WP_SEGMENT_H
#define WP_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "atomic.h"
#include "layout.h"

/*
 * A process's view. The sizes are copies, checked once when the segment was mapped: what is shared could be scribbled
 * over later.
 */
struct wp_segment {
    int fd;
    uint32_t slots;
    uint32_t workers;
    uint64_t arena_at;
    uint64_t arena_size;
    uint64_t control_size; /* all before the arena */
    struct wp_header *header;
    struct wp_record *records;
    _Atomic uint64_t *done;
    struct wp_slot *slot;
    struct wp_stream *streams;
    const unsigned char *arena; /* in workers only: the parent writes the arena through the descriptor */
};

/* Makes a segment. The arena is halved until it can be mapped and the file made. `slots` is a power of two. */
int wp_segment_create(struct wp_segment *segment, uint32_t slots, uint32_t workers, uint64_t arena_size);

/* Maps a segment that another process made, after checking that it is one. -EPROTO: it is not. */
int wp_segment_attach(struct wp_segment *segment, int fd);

/* Does the header still say what was written into it when the segment was made? */
bool wp_segment_is_intact(const struct wp_segment *segment);

/* Unmaps. The descriptor stays open. */
void wp_segment_unmap(struct wp_segment *segment);

/* Where a position lies: a position and the one `slots` later share a slot. */
static inline uint32_t wp_index_of(const struct wp_segment *segment, uint64_t position)
{
    return (uint32_t)(position & (segment->slots - 1));
}

static inline struct wp_slot *wp_slot_at(const struct wp_segment *segment, uint64_t position)
{
    return &segment->slot[wp_index_of(segment, position)];
}

#endif
