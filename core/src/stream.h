/*
 * One worker's ring for results that do not fit a slot: a sequence of heads and bodies, written in fragments as room
 * allows. The worker's side writes and waits for room; the parent's side reads. What the messages mean is take.c's.
 */
#ifndef WP_STREAM_H
#define WP_STREAM_H

#include <stdbool.h>

#include "atomic.h"
#include "layout.h"

/* ---- The worker ---- */

/* Writes as much as there is room for; returns how much. */
size_t wp_stream_write(struct wp_stream *stream, const void *data, size_t size);

/* Waits until there is room, by `deadline`. 0: look again; -ETIMEDOUT; -EINTR. */
int wp_stream_wait_for_room(struct wp_stream *stream, int64_t deadline);

/* ---- The parent: one thread at a time ---- */

/* How far the parent has read: its own copy, which no worker can change. */
struct wp_stream_cursor {
    uint64_t drained;
};

/* Bytes that can be read; more than the ring holds means that the worker's counter is corrupt: returns false. */
bool wp_stream_available(const struct wp_stream *stream, const struct wp_stream_cursor *cursor, size_t *available);

/* Reads `size` bytes that are available; `to` may be NULL to discard them. */
void wp_stream_read(struct wp_stream *stream, struct wp_stream_cursor *cursor, void *to, size_t size);

/* Lets the worker use the room of what was read, and wakes it if it waits for that. */
void wp_stream_give_room(struct wp_stream *stream, const struct wp_stream_cursor *cursor);

/* The worker is dead: what it left is dropped, and its successor finds an empty ring. */
void wp_stream_clear(struct wp_stream *stream, struct wp_stream_cursor *cursor);

/* Of a stream that is read to its end: the worker sees all the room, whatever somebody wrote over the parent's counter. */
void wp_stream_correct(struct wp_stream *stream, const struct wp_stream_cursor *cursor);

/* Any thread: if the worker waits for room, it looks around. */
void wp_stream_rouse(struct wp_stream *stream);

#endif
