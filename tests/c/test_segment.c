/* The shared segment: its layout, what may be attached, its seals, and its size under limits. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "check.h"
#include "os/os.h"
#include "segment.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static void destroy(struct wp_segment *segment)
{
    int fd = segment->fd;
    wp_segment_unmap(segment);
    close(fd);
}

/* ---- layout ---- */

static uint64_t offset_in(const struct wp_segment *segment, const void *part)
{
    return (uint64_t)((const char *)part - (const char *)segment->header);
}

static void check_layout(uint32_t slots, uint32_t workers)
{
    struct wp_segment segment;
    CHECK_OK(wp_segment_create(&segment, slots, workers, MIB + 1));
    const struct wp_header *header = segment.header;
    CHECK_EQ(header->magic, WP_MAGIC);
    CHECK_EQ(header->format, WP_FORMAT);
    CHECK_EQ(segment.slots, slots);
    CHECK_EQ(segment.workers, workers);

    /* One after another, none over its neighbour, each on its own pages. */
    const uint64_t starts[] = {offset_in(&segment, segment.records),
                               offset_in(&segment, segment.done),
                               offset_in(&segment, segment.slot),
                               offset_in(&segment, segment.streams),
                               segment.arena_at,
                               header->total};
    const uint64_t sizes[] = {workers * sizeof(struct wp_record), slots / 8, slots * sizeof(struct wp_slot),
                              workers * sizeof(struct wp_stream), MIB + 1};
    CHECK(starts[0] >= sizeof(struct wp_header));
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(starts[i] % WP_PAGE, 0);
        CHECK(starts[i] + sizes[i] <= starts[i + 1]);
    }
    CHECK_EQ(segment.control_size, segment.arena_at);
    CHECK_EQ(segment.arena_at + segment.arena_size, header->total);

    struct stat about;
    CHECK_SYS(fstat(segment.fd, &about));
    CHECK_EQ(about.st_size, header->total);
    destroy(&segment);
}

static void test_layout(void)
{
    check_layout(WP_MIN_SLOTS, 1);
    check_layout(WP_MIN_SLOTS, 3);
    check_layout(4096, 64);
    check_layout(WP_MAX_SLOTS, 65);
}

/* Size is a limit, not a cost. */
static void test_sparse(void)
{
    struct wp_segment segment;
    CHECK_OK(wp_segment_create(&segment, WP_MIN_SLOTS, 8, GIB));
    CHECK(wp_os_memory_held(segment.fd) <= 16 * WP_PAGE);
    destroy(&segment);
}

static void test_starts_empty(void)
{
    struct wp_segment segment;
    CHECK_OK(wp_segment_create(&segment, WP_MIN_SLOTS, 2, MIB));
    CHECK_EQ(wp_load_relaxed(&segment.header->head), 0);
    CHECK_EQ(wp_load_relaxed(&segment.header->tail), 0);
    CHECK_EQ(wp_load_relaxed(&segment.header->stop), WP_RUN);
    for (uint32_t i = 0; i < segment.slots; i++) {
        CHECK_EQ(wp_state_tag(wp_load_relaxed(&segment.slot[i].state)), WP_FREE);
    }
    for (uint32_t i = 0; i < segment.workers; i++) {
        CHECK_EQ(wp_load_relaxed(&segment.records[i].standing), WP_VACANT);
    }
    destroy(&segment);
}

/* ---- attaching ---- */

static void test_attach(void)
{
    struct wp_segment mine, theirs;
    CHECK_OK(wp_segment_create(&mine, WP_MIN_SLOTS, 2, MIB));
    CHECK_OK(wp_segment_attach(&theirs, mine.fd));
    CHECK(theirs.header != mine.header);
    CHECK_EQ(theirs.slots, mine.slots);
    CHECK_EQ(theirs.workers, mine.workers);
    CHECK_EQ(theirs.arena_size, mine.arena_size);

    mine.slot[WP_MIN_SLOTS - 1].payload_size = 42;
    CHECK_EQ(theirs.slot[WP_MIN_SLOTS - 1].payload_size, 42);
    theirs.streams[1].ring[WP_STREAM_BYTES - 1] = 7;
    CHECK_EQ(mine.streams[1].ring[WP_STREAM_BYTES - 1], 7);

    char text[] = "the end of the arena";
    struct iovec part = {.iov_base = text, .iov_len = sizeof text};
    uint64_t at = mine.arena_size - sizeof text;
    CHECK_OK(wp_os_memory_write(mine.fd, mine.arena_at + at, &part, 1));
    CHECK(memcmp(theirs.arena + at, text, sizeof text) == 0);

    wp_segment_unmap(&theirs);
    destroy(&mine);
}

/* Makes a segment whose header differs from a good one, and sees that it is refused. */
static void refuse(void (*spoil)(struct wp_header *))
{
    struct wp_segment mine, theirs;
    CHECK_OK(wp_segment_create(&mine, WP_MIN_SLOTS, 2, MIB));
    CHECK_OK(wp_segment_attach(&theirs, mine.fd));
    wp_segment_unmap(&theirs);
    spoil(mine.header);
    CHECK_RC(wp_segment_attach(&theirs, mine.fd), -EPROTO);
    destroy(&mine);
}

static void spoil_magic(struct wp_header *h)
{
    h->magic ^= 1;
}

static void spoil_format(struct wp_header *h)
{
    h->format++;
}

static void spoil_slots(struct wp_header *h)
{
    h->slots *= 2;
}

static void spoil_slots_power(struct wp_header *h)
{
    h->slots -= 1;
}

static void spoil_workers(struct wp_header *h)
{
    h->workers = 0;
}

static void spoil_workers_more(struct wp_header *h)
{
    h->workers = WEIRPOOL_MAX_WORKERS + 1;
}

static void spoil_unused(struct wp_header *h)
{
    h->unused = 1;
}

static void spoil_offset(struct wp_header *h)
{
    h->streams_at += WP_PAGE;
}

static void spoil_arena(struct wp_header *h)
{
    h->arena_at = h->total;
}

/* Consistent in itself, but the memory is smaller: reading there would be SIGBUS. */
static void spoil_total(struct wp_header *h)
{
    h->total += GIB;
}

static void test_attach_wrong_header(void)
{
    refuse(spoil_magic);
    refuse(spoil_format);
    refuse(spoil_slots);
    refuse(spoil_slots_power);
    refuse(spoil_workers);
    refuse(spoil_workers_more);
    refuse(spoil_unused);
    refuse(spoil_offset);
    refuse(spoil_arena);
    refuse(spoil_total);
}

static void refuse_memory(uint64_t size)
{
    struct wp_segment theirs;
    int fd = wp_os_memory_create(size);
    CHECK(fd >= 0);
    CHECK_RC(wp_segment_attach(&theirs, fd), -EPROTO);
    close(fd);
}

static void test_attach_no_segment(void)
{
    refuse_memory(0);
    refuse_memory(1);
    refuse_memory(WP_PAGE);
    refuse_memory(MIB);

    struct wp_segment theirs;
    int ends[2];
    CHECK_SYS(pipe(ends));
    CHECK_RC(wp_segment_attach(&theirs, ends[0]), -EPROTO);
    close(ends[0]);
    close(ends[1]);
    CHECK_RC(wp_segment_attach(&theirs, ends[0]), -EBADF);
    CHECK_RC(wp_segment_attach(&theirs, -1), -EBADF);
}

/* ---- seals ---- */

static void test_sealed(void)
{
    struct wp_segment segment;
    CHECK_OK(wp_segment_create(&segment, WP_MIN_SLOTS, 1, MIB));
    int seals = fcntl(segment.fd, F_GET_SEALS);
    if (seals < 0) {
        printf("    not a memfd here (%s): nothing to seal\n", strerror(errno));
        destroy(&segment);
        return;
    }
    CHECK((seals & F_SEAL_SHRINK) != 0);
    CHECK((seals & F_SEAL_GROW) != 0);
    CHECK((seals & F_SEAL_SEAL) != 0);
    CHECK(ftruncate(segment.fd, 0) == -1 && errno == EPERM);
    CHECK(ftruncate(segment.fd, (off_t)(4 * GIB)) == -1 && errno == EPERM);
    CHECK((fcntl(segment.fd, F_GETFD) & FD_CLOEXEC) != 0);
    destroy(&segment);
}

/* ---- limits ---- */

static void limit(int resource, uint64_t most)
{
    struct rlimit both = {.rlim_cur = most, .rlim_max = most};
    CHECK_SYS(setrlimit(resource, &both));
}

static uint64_t address_space_used(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL);
    CHECK_EQ(fscanf(file, "%lu", &pages), 1);
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void create_in_small_address_space(void)
{
    uint64_t room = GIB;
    limit(RLIMIT_AS, address_space_used() + room);
    struct wp_segment segment;
    CHECK_OK(wp_segment_create(&segment, WP_MIN_SLOTS, 2, 16 * GIB));
    CHECK(segment.arena_size < room);
    CHECK(segment.arena_size >= room / 4); /* halved no more than needed */
    CHECK_EQ(16 * GIB % segment.arena_size, 0);

    struct wp_segment worker; /* has the same limits, and needs the arena too */
    CHECK_OK(wp_segment_attach(&worker, segment.fd));
    wp_segment_unmap(&worker);
    destroy(&segment);

    limit(RLIMIT_AS, address_space_used() + 16 * MIB);
    int before = count_descriptors();
    CHECK_RC(wp_segment_create(&segment, WP_MIN_SLOTS, 2, 16 * GIB), -ENOMEM);
    CHECK_EQ(count_descriptors(), before);
}

static void test_address_space_limit(void)
{
    if (UNDER_ASAN) {
        printf("    skipped, AddressSanitizer itself needs terabytes of address space\n");
        return;
    }
    check_in_child(create_in_small_address_space);
}

static void create_with_small_files(void)
{
    limit(RLIMIT_FSIZE, 300 * MIB);
    struct wp_segment segment;
    CHECK_OK(wp_segment_create(&segment, WP_MIN_SLOTS, 2, 4 * GIB));
    CHECK_EQ(segment.arena_size, 256 * MIB);

    /* Its last byte can be written: no SIGXFSZ. */
    char last = 'x';
    struct iovec part = {.iov_base = &last, .iov_len = 1};
    CHECK_OK(wp_os_memory_write(segment.fd, segment.arena_at + segment.arena_size - 1, &part, 1));
    destroy(&segment);

    limit(RLIMIT_FSIZE, 16 * MIB);
    CHECK_RC(wp_segment_create(&segment, WP_MIN_SLOTS, 2, 4 * GIB), -ENOMEM);
}

static void test_file_size_limit(void)
{
    check_in_child(create_with_small_files);
}

/* ---- fork ---- */

static struct wp_segment inherited;

static void look_for_mapping(void)
{
    unsigned char present;
    CHECK(mincore(inherited.header, WP_PAGE, &present) == -1 && errno == ENOMEM);
    CHECK(mincore(inherited.slot, WP_PAGE, &present) == -1 && errno == ENOMEM);

    struct wp_segment attached; /* the descriptor is what a worker inherits */
    CHECK_OK(wp_segment_attach(&attached, inherited.fd));
    CHECK_EQ(attached.header->magic, WP_MAGIC);
}

static void test_fork_does_not_inherit_the_mapping(void)
{
    CHECK_OK(wp_segment_create(&inherited, WP_MIN_SLOTS, 1, MIB));
    unsigned char present;
    CHECK_SYS(mincore(inherited.header, WP_PAGE, &present));
    check_in_child(look_for_mapping);
    destroy(&inherited);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN(test_layout);
    RUN(test_sparse);
    RUN(test_starts_empty);
    RUN(test_attach);
    RUN(test_attach_wrong_header);
    RUN(test_attach_no_segment);
    RUN(test_sealed);
    RUN_UNLESS_TSAN(test_address_space_limit);
    RUN_UNLESS_TSAN(test_file_size_limit);
    RUN_UNLESS_TSAN(test_fork_does_not_inherit_the_mapping);
    return check_end();
}
