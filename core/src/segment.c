#include "segment.h"

#include <errno.h>
#include <string.h>

#include "os/os.h"

#define SMALLEST_ARENA (UINT64_C(64) << 20)

static uint64_t page_up(uint64_t n)
{
    return (n + WP_PAGE - 1) & ~(uint64_t)(WP_PAGE - 1);
}

/* Lays the parts out one after another; the arena comes last because its size is the only one that may give way. */
static struct wp_header plan(uint32_t slots, uint32_t workers, uint64_t arena_size)
{
    struct wp_header h = {.magic = WP_MAGIC, .format = WP_FORMAT, .slots = slots, .workers = workers};
    h.records_at = WP_PAGE;
    h.done_at = page_up(h.records_at + workers * sizeof(struct wp_record));
    h.slots_at = page_up(h.done_at + slots / 8);
    h.streams_at = page_up(h.slots_at + slots * sizeof(struct wp_slot));
    h.arena_at = page_up(h.streams_at + workers * sizeof(struct wp_stream));
    h.total = h.arena_at + page_up(arena_size);
    return h;
}

static void adopt(struct wp_segment *segment, int fd, char *base, const struct wp_header *plan)
{
    *segment = (struct wp_segment){
        .fd = fd,
        .slots = plan->slots,
        .workers = plan->workers,
        .arena_at = plan->arena_at,
        .arena_size = plan->total - plan->arena_at,
        .control_size = plan->arena_at,
        .header = (struct wp_header *)base,
        .records = (struct wp_record *)(base + plan->records_at),
        .done = (_Atomic uint64_t *)(base + plan->done_at),
        .slot = (struct wp_slot *)(base + plan->slots_at),
        .streams = (struct wp_stream *)(base + plan->streams_at),
    };
}

/* Workers will map the arena under the same limits as this process: see whether it could. */
static int try_arena(int fd, const struct wp_header *plan)
{
    void *arena;
    uint64_t size = plan->total - plan->arena_at;
    int rc = wp_os_map(fd, plan->arena_at, size, false, &arena);
    if (rc == 0) {
        wp_os_unmap(arena, size);
    }
    return rc;
}

static int create_once(struct wp_segment *segment, const struct wp_header *plan)
{
    int fd = wp_os_memory_create(plan->total);
    if (fd < 0) {
        return fd;
    }
    void *base = NULL;
    int rc = wp_os_map(fd, 0, plan->arena_at, true, &base);
    if (rc == 0) {
        rc = try_arena(fd, plan);
        if (rc != 0) {
            wp_os_unmap(base, plan->arena_at);
        }
    }
    if (rc != 0) {
        wp_os_close(fd);
        return rc;
    }
    memcpy(base, plan, offsetof(struct wp_header, head));
    (void)wp_os_hide_from_children(base, plan->arena_at);
    adopt(segment, fd, base, plan);
    return 0;
}

int wp_segment_create(struct wp_segment *segment, uint32_t slots, uint32_t workers, uint64_t arena_size)
{
    uint64_t limit = wp_os_file_limit();
    for (;;) {
        struct wp_header h = plan(slots, workers, arena_size);
        int rc = h.total > limit ? -EFBIG : create_once(segment, &h);
        bool too_large = rc == -ENOMEM || rc == -EFBIG || rc == -EINVAL;
        if (!too_large || arena_size / 2 < SMALLEST_ARENA) {
            return rc == -EFBIG ? -ENOMEM : rc;
        }
        arena_size /= 2;
    }
}

static bool is_power_of_two(uint32_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

/* The offsets must be those that this version would have planned: anything else is another format. */
static bool is_ours(const struct wp_header *found)
{
    if (found->magic != WP_MAGIC || found->format != WP_FORMAT) {
        return false;
    }
    if (!is_power_of_two(found->slots) || found->slots > WP_MAX_SLOTS) {
        return false;
    }
    if (found->workers == 0 || found->workers > WEIRPOOL_MAX_WORKERS || found->total <= found->arena_at) {
        return false;
    }
    struct wp_header expected = plan(found->slots, found->workers, found->total - found->arena_at);
    return memcmp(&expected, found, offsetof(struct wp_header, head)) == 0;
}

/* The size is asked first: reading what a file does not have would be SIGBUS. */
static int read_header(int fd, struct wp_header *copy)
{
    int64_t size = wp_os_memory_size(fd);
    if (size < (int64_t)WP_PAGE) {
        return size == -EBADF ? -EBADF : -EPROTO;
    }
    void *page;
    int rc = wp_os_map(fd, 0, WP_PAGE, false, &page);
    if (rc != 0) {
        return rc;
    }
    memcpy(copy, page, offsetof(struct wp_header, head));
    wp_os_unmap(page, WP_PAGE);
    return is_ours(copy) && copy->total == (uint64_t)size ? 0 : -EPROTO;
}

int wp_segment_attach(struct wp_segment *segment, int fd)
{
    struct wp_header h;
    int rc = read_header(fd, &h);
    if (rc != 0) {
        return rc;
    }
    void *base;
    rc = wp_os_map(fd, 0, h.arena_at, true, &base);
    if (rc != 0) {
        return rc;
    }
    void *arena;
    rc = wp_os_map(fd, h.arena_at, h.total - h.arena_at, false, &arena);
    if (rc != 0) {
        wp_os_unmap(base, h.arena_at);
        return rc;
    }
    adopt(segment, fd, base, &h);
    segment->arena = arena;
    return 0;
}

bool wp_segment_is_intact(const struct wp_segment *segment)
{
    struct wp_header expected = plan(segment->slots, segment->workers, segment->arena_size);
    return memcmp(&expected, segment->header, offsetof(struct wp_header, head)) == 0;
}

void wp_segment_unmap(struct wp_segment *segment)
{
    if (segment->arena != NULL) {
        wp_os_unmap((void *)segment->arena, segment->arena_size);
    }
    if (segment->header != NULL) {
        wp_os_unmap(segment->header, segment->control_size);
    }
    segment->arena = NULL;
    segment->header = NULL;
}
