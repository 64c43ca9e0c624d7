/*
 * What a broken worker may write: any value at any field of the segment, those included that only the parent has to
 * write; and the arena, which workers have mapped for reading only, through the descriptor, which they have too. Looks
 * at nothing of the parent's own, so that it may be done at any moment, in any thread.
 */
#ifndef WP_FUZZ_SCRIBBLE_H
#define WP_FUZZ_SCRIBBLE_H

#include "check.h"
#include "pool.h"
#include "script.h"

/* Slots are used in their order, so that tasks lie in the first ones. */
static uint32_t take_slot(const weirpool *pool, struct script *script)
{
    uint32_t n = take_byte(script);
    return n < 224 ? n % 12 : take_below(script, pool->segment.slots);
}

static uint32_t take_worker(const weirpool *pool, struct script *script)
{
    return take_below(script, pool->segment.workers);
}

#define SCRIBBLE(script, field) atomic_store((field), take_value((script), atomic_load(field)))

static void scribble_header(const weirpool *pool, struct script *script)
{
    struct wp_header *header = pool->segment.header;
    switch (take_byte(script) % 12) {
    case 0:
        SCRIBBLE(script, &header->head);
        break;
    case 1:
        SCRIBBLE(script, &header->tail);
        break;
    case 2:
        SCRIBBLE(script, &header->waking);
        break;
    case 3:
        SCRIBBLE(script, &header->addressee);
        break;
    case 4:
        SCRIBBLE(script, &header->stop);
        break;
    case 5:
        SCRIBBLE(script, &header->want_starts);
        break;
    case 6:
        SCRIBBLE(script, &header->helper_bell);
        break;
    case 7:
        SCRIBBLE(script, &header->started);
        break;
    case 8:
        SCRIBBLE(script, &header->parked[take_byte(script) % 2]);
        break;
    case 9:
        SCRIBBLE(script, &header->streaming[take_byte(script) % 2]);
        break;
    case 10:
        SCRIBBLE(script, &pool->segment.done[take_below(script, pool->segment.slots / 64)]);
        break;
    default: { /* magic to total, which nobody writes again */
        uint64_t *word = (uint64_t *)header + take_below(script, offsetof(struct wp_header, head) / 8);
        *word = take_value(script, *word);
    }
    }
}

static void scribble_record(const weirpool *pool, struct script *script)
{
    struct wp_record *record = &pool->segment.records[take_worker(pool, script)];
    if (take_byte(script) % 2 == 0) {
        SCRIBBLE(script, &record->standing);
    } else {
        SCRIBBLE(script, &record->parked);
    }
}

/* A state that might be, of the task that is there or of none; or any. */
static uint64_t take_state(const weirpool *pool, struct script *script, uint32_t index)
{
    uint64_t old = atomic_load(&pool->segment.slot[index].state);
    uint8_t kind = take_byte(script) % 4;
    if (kind == 3) {
        return take_value(script, old);
    }
    uint64_t position = wp_state_position(old);
    position = kind == 0 ? position : take_value(script, position);
    return wp_state(position, take_byte(script) % (pool->segment.workers + 1), (enum wp_tag)(take_byte(script) % 6));
}

static void scribble_slot(const weirpool *pool, struct script *script)
{
    uint32_t index = take_slot(pool, script);
    struct wp_slot *slot = &pool->segment.slot[index];
    switch (take_byte(script) % 12) {
    case 0:
        SCRIBBLE(script, &slot->payload_size);
        break;
    case 1:
        SCRIBBLE(script, &slot->payload_at);
        break;
    case 2:
        SCRIBBLE(script, &slot->result_size);
        break;
    case 3:
        SCRIBBLE(script, &slot->status);
        break;
    case 4:
        SCRIBBLE(script, &slot->started);
        break;
    case 5:
        SCRIBBLE(script, &slot->finished);
        break;
    case 6:
        SCRIBBLE(script, &slot->free_since);
        break;
    default:
        atomic_store(&slot->state, take_state(pool, script, index));
    }
    if (take_byte(script) % 2 == 0) {
        atomic_fetch_or(&pool->segment.done[index / 64], UINT64_C(1) << index % 64);
    }
}

/* ---- streams ---- */

static void mark_streaming(const weirpool *pool, uint32_t worker)
{
    atomic_fetch_or(&pool->segment.header->streaming[worker / 64], UINT64_C(1) << worker % 64);
}

static void append(struct wp_stream *stream, const void *data, size_t size)
{
    uint64_t written = atomic_load(&stream->written);
    for (size_t i = 0; i < size; i++) {
        stream->ring[(written + i) % WP_STREAM_BYTES] =
            data != NULL ? ((const unsigned char *)data)[i] : (unsigned char)i;
    }
    atomic_store(&stream->written, written + size);
}

static uint64_t take_position(const weirpool *pool, struct script *script)
{
    uint64_t position = wp_state_position(atomic_load(&pool->segment.slot[take_slot(pool, script)].state));
    return take_byte(script) % 4 == 0 ? take_value(script, position) : position;
}

static void append_head(const weirpool *pool, struct script *script, uint32_t worker)
{
    struct wp_stream_head head = {.position = take_position(pool, script)};
    head.size = take_byte(script) % 2 == 0 ? 209 + take_below(script, 65536) : take_value(script, 209);
    append(&pool->segment.streams[worker], &head, sizeof head);
}

static void scribble_stream(const weirpool *pool, struct script *script)
{
    uint32_t worker = take_worker(pool, script);
    struct wp_stream *stream = &pool->segment.streams[worker];
    switch (take_byte(script) % 8) {
    case 0:
        SCRIBBLE(script, &stream->written);
        break;
    case 1:
        SCRIBBLE(script, &stream->drained);
        break;
    case 2:
        SCRIBBLE(script, &stream->starved);
        break;
    case 3:
        SCRIBBLE(script, &stream->room_bell);
        break;
    case 4:
        append(stream, NULL, take_below(script, 65536));
        break;
    case 5:
        stream->ring[take_below(script, 65536)] ^= take_byte(script);
        break;
    default:
        append_head(pool, script, worker);
    }
    if (take_byte(script) % 4 != 0) {
        mark_streaming(pool, worker);
    }
}

/* ---- anything ---- */

static void scribble_anywhere(const weirpool *pool, struct script *script)
{
    uint64_t at = (uint64_t)take_below(script, 65536) << 8 | take_byte(script);
    unsigned char *byte = (unsigned char *)pool->segment.header + at % (pool->segment.control_size - 64);
    for (int n = take_byte(script) % 64; n >= 0; n--) {
        byte[n] = take_byte(script);
    }
}

static void scribble_arena(const weirpool *pool, struct script *script)
{
    uint64_t noise = take_word(script);
    uint64_t at = take_below(script, 65536) % (pool->segment.arena_size - sizeof noise);
    CHECK_EQ(pwrite(pool->segment.fd, &noise, sizeof noise, (off_t)(pool->segment.arena_at + at)), sizeof noise);
}

static void scribble(const weirpool *pool, struct script *script)
{
    switch (take_byte(script) % 12) {
    case 0:
    case 1:
        scribble_header(pool, script);
        break;
    case 2:
        scribble_record(pool, script);
        break;
    case 3:
    case 4:
    case 5:
        scribble_stream(pool, script);
        break;
    case 6:
        scribble_anywhere(pool, script);
        break;
    case 7:
        scribble_arena(pool, script);
        break;
    default:
        scribble_slot(pool, script);
    }
}

#endif
