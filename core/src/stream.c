#include "stream.h"

#include <string.h>

#include "crash.h"
#include "os/os.h"

#define MASK (WP_STREAM_BYTES - 1)

static_assert((WP_STREAM_BYTES & MASK) == 0, "a ring's size is a power of two");

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Counters that cannot be, because somebody scribbled over them, leave no room: the parent looks at the stream then. */
static size_t room(struct wp_stream *stream, uint64_t written)
{
    /* Acquires the room that wp_stream_give_room() released. */
    uint64_t used = written - wp_load_seq_cst(&stream->drained);
    return used < WP_STREAM_BYTES ? (size_t)(WP_STREAM_BYTES - used) : 0;
}

size_t wp_stream_write(struct wp_stream *stream, const void *data, size_t size)
{
    uint64_t written = wp_load_relaxed(&stream->written);
    size_t n = smaller(size, room(stream, written));
    size_t at = written & MASK;
    size_t first = smaller(n, WP_STREAM_BYTES - at);
    memcpy(stream->ring + at, data, first);
    memcpy(stream->ring, (const char *)data + first, n - first);
    WP_CRASH("before_written");
    wp_store_release(&stream->written, written + n); /* pairs with the acquire in wp_stream_available() */
    return n;
}

int wp_stream_wait_for_room(struct wp_stream *stream, int64_t deadline)
{
    uint32_t bell = wp_load_seq_cst(&stream->room_bell);
    wp_store_seq_cst(&stream->starved, 1);
    WP_CRASH("after_starved");
    int rc = 0;
    /* Look again: room that was given before `starved` was seen rings no bell. */
    if (room(stream, wp_load_relaxed(&stream->written)) == 0) {
        rc = wp_os_futex_wait(&stream->room_bell, bell, deadline, WP_SHARED);
    }
    WP_CRASH("after_room");
    wp_store_seq_cst(&stream->starved, 0);
    return rc;
}

bool wp_stream_available(const struct wp_stream *stream, const struct wp_stream_cursor *cursor, size_t *available)
{
    uint64_t n = wp_load_acquire(&stream->written) - cursor->drained;
    *available = (size_t)n;
    return n <= WP_STREAM_BYTES;
}

void wp_stream_read(struct wp_stream *stream, struct wp_stream_cursor *cursor, void *to, size_t size)
{
    if (to != NULL) {
        size_t at = cursor->drained & MASK;
        size_t first = smaller(size, WP_STREAM_BYTES - at);
        memcpy(to, stream->ring + at, first);
        memcpy((char *)to + first, stream->ring, size - first);
    }
    cursor->drained += size;
}

void wp_stream_give_room(struct wp_stream *stream, const struct wp_stream_cursor *cursor)
{
    wp_store_seq_cst(&stream->drained, cursor->drained);
    WP_CRASH("after_drained");
    wp_stream_rouse(stream);
}

void wp_stream_clear(struct wp_stream *stream, struct wp_stream_cursor *cursor)
{
    cursor->drained = wp_load_acquire(&stream->written); /* whatever it says: counters only have to agree */
    wp_store_seq_cst(&stream->drained, cursor->drained);
    WP_CRASH("while_clearing");
    wp_store_seq_cst(&stream->starved, 0);
}

void wp_stream_correct(struct wp_stream *stream, const struct wp_stream_cursor *cursor)
{
    if (wp_load_seq_cst(&stream->drained) != cursor->drained) {
        wp_stream_give_room(stream, cursor);
    }
}

void wp_stream_rouse(struct wp_stream *stream)
{
    if (wp_load_seq_cst(&stream->starved) != 0) {
        wp_fetch_add_seq_cst(&stream->room_bell, 1);
        wp_os_futex_wake(&stream->room_bell, 1, WP_SHARED);
    }
}
