/* The memory for large payloads: against a model, at its limits, and that it gives pages back. */
#include "arena.h"

#include <errno.h>
#include <sys/resource.h>

#include "check.h"
#include "layout.h"
#include "os/os.h"

#define MIB (UINT64_C(1) << 20)
#define AT (4 * (uint64_t)WP_PAGE) /* the arena is not at the start of its memory */

static struct wp_arena arena;
static int memory;
static const unsigned char *view;

static void set_up(uint64_t size)
{
    memory = wp_os_memory_create(AT + size);
    CHECK(memory >= 0);
    CHECK_OK(wp_arena_init(&arena, memory, AT, size));
    void *address;
    CHECK_OK(wp_os_map(memory, AT, size, false, &address));
    view = address;
}

static void tear_down(void)
{
    CHECK(wp_arena_is_sound(&arena));
    wp_os_unmap((void *)view, arena.size);
    wp_arena_fini(&arena);
    close(memory);
}

static void write_pattern(struct wp_extent *extent, uint64_t size, uint64_t id)
{
    unsigned char *bytes = malloc(size);
    CHECK(bytes != NULL);
    fill_pattern(bytes, size, id, 0);
    struct iovec part = {.iov_base = bytes, .iov_len = size};
    CHECK_OK(wp_arena_write(&arena, extent, &part, 1));
    free(bytes);
}

/* ---- single properties ---- */

static void test_sizes(void)
{
    set_up(MIB);
    CHECK(wp_arena_alloc(&arena, 0) == NULL);
    CHECK(wp_arena_alloc(&arena, MIB + 1) == NULL);
    CHECK(wp_arena_alloc(&arena, UINT64_MAX) == NULL);
    CHECK_EQ(arena.used, 0);
    struct wp_extent *whole = wp_arena_alloc(&arena, MIB);
    CHECK(whole != NULL);
    CHECK_EQ(wp_extent_at(whole), 0);
    CHECK(wp_arena_alloc(&arena, 1) == NULL);
    wp_arena_free(&arena, whole);
    struct wp_extent *almost = wp_arena_alloc(&arena, MIB - 1);
    CHECK(almost != NULL);
    wp_arena_free(&arena, almost);
    tear_down();
}

static void test_size_is_whole_pages(void)
{
    set_up(3 * WP_PAGE);
    CHECK_EQ(arena.size, 3 * WP_PAGE);
    tear_down();
    memory = wp_os_memory_create(AT + MIB);
    CHECK_OK(wp_arena_init(&arena, memory, AT, 2 * WP_PAGE + 100));
    CHECK_EQ(arena.size, 2 * WP_PAGE);
    CHECK(wp_arena_is_sound(&arena));
    wp_arena_fini(&arena);
    close(memory);
}

static void test_full_arena(void)
{
    enum { COUNT = 64 };
    struct wp_extent *extents[COUNT];
    set_up(COUNT * 64 * 1024);
    for (int i = 0; i < COUNT; i++) {
        extents[i] = wp_arena_alloc(&arena, 64 * 1024);
        CHECK(extents[i] != NULL);
    }
    CHECK_EQ(arena.used, arena.size);
    CHECK(wp_arena_alloc(&arena, 1) == NULL);
    CHECK(wp_arena_is_sound(&arena));

    /* What comes back can be had again; two neighbours together too. */
    wp_arena_free(&arena, extents[10]);
    CHECK(wp_arena_alloc(&arena, 64 * 1024 + 1) == NULL);
    extents[10] = wp_arena_alloc(&arena, 64 * 1024);
    CHECK(extents[10] != NULL);
    wp_arena_free(&arena, extents[20]);
    wp_arena_free(&arena, extents[21]);
    extents[20] = wp_arena_alloc(&arena, 128 * 1024);
    CHECK(extents[20] != NULL);
    for (int i = 0; i < COUNT; i++) {
        if (i != 21) {
            wp_arena_free(&arena, extents[i]);
        }
    }
    CHECK_EQ(arena.used, 0);
    struct wp_extent *whole = wp_arena_alloc(&arena, arena.size);
    CHECK(whole != NULL); /* all joined again */
    wp_arena_free(&arena, whole);
    tear_down();
}

/* Many small extents leave many size classes with holes; everything joins when all is free. */
static void test_small_extents_join_again(void)
{
    enum { COUNT = 2000 };
    static struct wp_extent *extents[COUNT];
    struct dice dice = new_dice(0);
    set_up(8 * MIB);
    for (int i = 0; i < COUNT; i++) {
        extents[i] = wp_arena_alloc(&arena, 1 + roll(&dice, 4095));
        CHECK(extents[i] != NULL);
        CHECK_EQ(wp_extent_at(extents[i]) % 64, 0);
    }
    for (int i = COUNT - 1; i >= 0; i--) { /* free them in random order */
        uint64_t k = roll(&dice, (uint64_t)i + 1);
        wp_arena_free(&arena, extents[k]);
        extents[k] = extents[i];
    }
    struct wp_extent *whole = wp_arena_alloc(&arena, arena.size);
    CHECK(whole != NULL);
    wp_arena_free(&arena, whole);
    tear_down();
}

/* ---- warm and cold ---- */

/* Bytes that are held past what is used and warm: pages that small extents share, and the kernel's own. */
static uint64_t excess(void)
{
    uint64_t held = wp_os_memory_held(memory);
    uint64_t accounted = arena.used + arena.warm;
    return held > accounted ? held - accounted : 0;
}

static void test_pages_are_given_back(void)
{
    enum { COUNT = 160 };
    struct wp_extent *extents[COUNT];
    set_up(COUNT * MIB);
    for (int i = 0; i < COUNT; i++) {
        extents[i] = wp_arena_alloc(&arena, MIB);
        CHECK(extents[i] != NULL);
        write_pattern(extents[i], MIB, (uint64_t)i);
    }
    CHECK(wp_os_memory_held(memory) >= COUNT * MIB);
    CHECK_EQ(arena.warm, 0);
    for (int i = 0; i < COUNT; i++) {
        CHECK(is_pattern(view + wp_extent_at(extents[i]), MIB, (uint64_t)i, 0));
        wp_arena_free(&arena, extents[i]);
        CHECK(arena.warm <= WP_WARM_BYTES);
        CHECK_EQ(excess(), 0);
    }
    CHECK_EQ(arena.used, 0);
    CHECK_EQ(arena.warm, WP_WARM_BYTES); /* kept warm: up to the limit, and no less */
    CHECK(wp_os_memory_held(memory) <= WP_WARM_BYTES);

    /* What is warm is used first: no new page is needed. */
    uint64_t held = wp_os_memory_held(memory);
    for (int i = 0; i < 64; i++) {
        extents[i] = wp_arena_alloc(&arena, MIB);
        write_pattern(extents[i], MIB, 1);
    }
    CHECK_EQ(wp_os_memory_held(memory), held);
    for (int i = 0; i < 64; i++) {
        wp_arena_free(&arena, extents[i]);
    }
    tear_down();
}

/* Warm memory is written without asking the system for pages: all of them have to be there. */
static void test_warm_memory_has_all_its_pages(void)
{
    enum { UNEVEN = WP_PAGE + 1 }; /* two pages, which begin in the middle of one: three are touched */
    set_up(MIB);
    struct wp_extent *small = wp_arena_alloc(&arena, 64);
    struct wp_extent *large = wp_arena_alloc(&arena, UNEVEN);
    write_pattern(small, 64, 1);
    write_pattern(large, UNEVEN, 2);
    CHECK_EQ(wp_os_memory_held(memory), 3 * WP_PAGE);
    CHECK(is_pattern(view + wp_extent_at(large), UNEVEN, 2, 0));
    wp_arena_free(&arena, large);
    large = wp_arena_alloc(&arena, 2 * WP_PAGE);
    write_pattern(large, 2 * WP_PAGE, 3);
    CHECK(is_pattern(view + wp_extent_at(large), 2 * WP_PAGE, 3, 0));
    CHECK(is_pattern(view + wp_extent_at(small), 64, 1, 0));
    CHECK_EQ(wp_os_memory_held(memory), 3 * WP_PAGE);
    wp_arena_free(&arena, large);
    wp_arena_free(&arena, small);
    tear_down();
}

/* What could not be written may lack pages: it is never taken for warm. */
static void test_spoiled_memory_is_not_warm(void)
{
    unsigned char byte = 0;
    struct iovec nowhere = {.iov_base = NULL, .iov_len = WP_PAGE};
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    set_up(MIB);
    struct wp_extent *extent = wp_arena_alloc(&arena, WP_PAGE);
    CHECK_EQ(wp_arena_write(&arena, extent, &nowhere, 1), -EFAULT);
    wp_arena_free(&arena, extent);
    CHECK_EQ(arena.warm, 0);
    extent = wp_arena_alloc(&arena, WP_PAGE);
    CHECK_OK(wp_arena_write(&arena, extent, &part, 1));
    wp_arena_free(&arena, extent);
    CHECK_EQ(arena.warm, WP_PAGE);
    tear_down();
}

/* Where address space is limited the arena takes none of it. */
static void test_without_a_view(void)
{
    struct rlimit before, limited;
    CHECK_OK(getrlimit(RLIMIT_AS, &before));
    limited = before;
    limited.rlim_cur = RLIM_INFINITY - 1;
    CHECK_OK(setrlimit(RLIMIT_AS, &limited));
    set_up(MIB);
    CHECK(arena.view == NULL);
    for (uint64_t i = 0; i < 3; i++) { /* cold, then warm */
        struct wp_extent *extent = wp_arena_alloc(&arena, MIB / 2);
        write_pattern(extent, MIB / 2, i);
        CHECK(is_pattern(view + wp_extent_at(extent), MIB / 2, i, 0));
        wp_arena_free(&arena, extent);
    }
    tear_down();
    CHECK_OK(setrlimit(RLIMIT_AS, &before));
}

/* One extent larger than the warm limit is given back at once. */
static void test_huge_extent_is_never_warm(void)
{
    set_up(WP_WARM_BYTES + 8 * MIB);
    struct wp_extent *huge = wp_arena_alloc(&arena, WP_WARM_BYTES + MIB);
    CHECK(huge != NULL);
    write_pattern(huge, 4 * MIB, 0);
    CHECK(wp_os_memory_held(memory) >= 4 * MIB);
    wp_arena_free(&arena, huge);
    CHECK_EQ(arena.warm, 0);
    CHECK_EQ(wp_os_memory_held(memory), 0);
    tear_down();
}

/* Neither what is warm nor what is cold is enough alone: the warm turns cold, and what is used keeps its bytes. */
static void test_chilling(void)
{
    set_up(WP_WARM_BYTES + 64 * MIB);
    struct wp_extent *first = wp_arena_alloc(&arena, WP_WARM_BYTES);
    struct wp_extent *second = wp_arena_alloc(&arena, 60 * MIB);
    struct wp_extent *third = wp_arena_alloc(&arena, 4 * MIB);
    CHECK(first != NULL && second != NULL && third != NULL);
    write_pattern(first, MIB, 1);
    write_pattern(third, 4 * MIB, 3);
    wp_arena_free(&arena, first);
    wp_arena_free(&arena, second);
    CHECK_EQ(arena.warm, WP_WARM_BYTES);
    struct wp_extent *both = wp_arena_alloc(&arena, WP_WARM_BYTES + 60 * MIB);
    CHECK(both != NULL);
    CHECK_EQ(wp_extent_at(both), 0);
    CHECK_EQ(arena.warm, 0);
    CHECK(wp_os_memory_held(memory) <= 4 * MIB);
    CHECK(is_pattern(view + wp_extent_at(third), 4 * MIB, 3, 0));
    wp_arena_free(&arena, both);
    wp_arena_free(&arena, third);
    tear_down();
}

/* ---- against a model ---- */

#define MOST 400

struct held {
    struct wp_extent *extent;
    uint64_t size;
    uint64_t id;
};

/* Half of them small, the rest spread over all sizes up to a few MiB. */
static uint64_t random_size(struct dice *dice)
{
    if (roll(dice, 2) == 0) {
        return 1 + roll(dice, 2 * WP_PAGE);
    }
    return 1 + roll(dice, UINT64_C(1) << roll(dice, 23));
}

static void check_no_overlap(const struct held *held, int count, const struct held *new)
{
    uint64_t from = wp_extent_at(new->extent), to = from + new->size;
    CHECK(to <= arena.size);
    for (int i = 0; i < count; i++) {
        uint64_t at = wp_extent_at(held[i].extent);
        CHECK(to <= at || at + held[i].size <= from);
    }
}

/* The first and the last bytes carry the pattern: enough to see a page that was given back by mistake. */
static void write_ends(const struct held *h)
{
    unsigned char bytes[128];
    uint64_t n = h->size < sizeof bytes ? h->size : sizeof bytes;
    const uint64_t ends[] = {0, h->size - n};
    for (int i = 0; i < 2; i++) {
        fill_pattern(bytes, n, h->id, ends[i]);
        struct iovec part = {.iov_base = bytes, .iov_len = n};
        CHECK_OK(wp_os_memory_write(memory, AT + wp_extent_at(h->extent) + ends[i], &part, 1));
    }
}

static void check_ends(const struct held *h)
{
    uint64_t n = h->size < 128 ? h->size : 128;
    const unsigned char *bytes = view + wp_extent_at(h->extent);
    CHECK(is_pattern(bytes, n, h->id, 0));
    CHECK(is_pattern(bytes + h->size - n, n, h->id, h->size - n));
}

static void play(uint64_t size, uint64_t rounds, struct dice *dice)
{
    static struct held held[MOST];
    int count = 0, refused = 0;
    set_up(size);
    for (uint64_t id = 0; id < rounds; id++) {
        if (count < MOST && roll(dice, 20) < 11) {
            struct held new = {.size = random_size(dice), .id = id};
            new.extent = wp_arena_alloc(&arena, new.size);
            refused += new.extent == NULL;
            if (new.extent != NULL) {
                check_no_overlap(held, count, &new);
                write_ends(&new);
                held[count++] = new;
            }
        } else if (count > 0) {
            uint64_t k = roll(dice, (uint64_t)count);
            check_ends(&held[k]);
            wp_arena_free(&arena, held[k].extent);
            held[k] = held[--count];
        }
        CHECK(arena.warm <= WP_WARM_BYTES);
        if (id % 64 == 0) {
            CHECK(wp_arena_is_sound(&arena));
            /* Extents of less than a page share their pages with cold neighbours. */
            CHECK(excess() <= (uint64_t)(count + 2) * 2 * WP_PAGE);
        }
    }
    printf("    %" PRIu64 " MiB: %d held at the end, %d refused\n", size / MIB, count, refused);
    while (count > 0) {
        check_ends(&held[--count]);
        wp_arena_free(&arena, held[count].extent);
    }
    CHECK_EQ(arena.used, 0);
    CHECK(wp_os_memory_held(memory) <= WP_WARM_BYTES);
    struct wp_extent *whole = wp_arena_alloc(&arena, arena.size);
    CHECK(whole != NULL);
    CHECK_EQ(wp_os_memory_held(memory), 0); /* it took everything back to cold */
    wp_arena_free(&arena, whole);
    tear_down();
}

static void test_random_against_a_model(void)
{
    struct dice dice = new_dice(1);
    play(512 * MIB, SCALED(30000), &dice); /* never full, often past the warm limit */
    play(24 * MIB, SCALED(30000), &dice);  /* sometimes full: chills what is warm */
    play(6 * MIB, SCALED(30000), &dice);   /* often full */
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN(test_sizes);
    RUN(test_size_is_whole_pages);
    RUN(test_full_arena);
    RUN(test_small_extents_join_again);
    RUN(test_pages_are_given_back);
    RUN(test_warm_memory_has_all_its_pages);
    RUN(test_spoiled_memory_is_not_warm);
    RUN(test_without_a_view);
    RUN(test_huge_extent_is_never_warm);
    RUN(test_chilling);
    RUN(test_random_against_a_model);
    return check_end();
}
