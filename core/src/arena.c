#include "arena.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include "layout.h"
#include "os/os.h"
#include "task.h"

#define GRAIN UINT64_C(64)

enum temperature { WARM = 0, COLD = 1 };

/* `before` and `after` are neighbours in the arena; `next` and `previous` are links of the free list of its class. */
struct wp_extent {
    uint64_t at;
    uint64_t size;
    struct wp_extent *before, *after;
    struct wp_extent *next, *previous;
    bool used;
    bool spoiled; /* could not be written: some pages may be missing */
    enum temperature temperature; /* of a used one: what it was made of */
};

static unsigned log2_floor(uint64_t n)
{
    return 63u - (unsigned)__builtin_clzll(n);
}

/* Class c holds free extents of 2^c up to 2^(c+1) - 1 grains. */
static unsigned class_of(uint64_t size)
{
    unsigned c = log2_floor(size / GRAIN);
    return c < WP_SIZE_CLASSES ? c : WP_SIZE_CLASSES - 1;
}

/* Small extents are packed; from a page on they are whole pages, which can be given back one by one. */
static uint64_t round_up(uint64_t size)
{
    uint64_t unit = size < WP_PAGE ? GRAIN : WP_PAGE;
    return (size + unit - 1) / unit * unit;
}

static void list_free(struct wp_arena *arena, struct wp_extent *e)
{
    struct wp_extent **list = &arena->free[e->temperature][class_of(e->size)];
    e->used = false;
    e->previous = NULL;
    e->next = *list;
    if (e->next != NULL) {
        e->next->previous = e;
    }
    *list = e;
    arena->warm += e->temperature == WARM ? e->size : 0;
}

static void unlist_free(struct wp_arena *arena, struct wp_extent *e)
{
    if (e->previous != NULL) {
        e->previous->next = e->next;
    } else {
        arena->free[e->temperature][class_of(e->size)] = e->next;
    }
    if (e->next != NULL) {
        e->next->previous = e->previous;
    }
    arena->warm -= e->temperature == WARM ? e->size : 0;
}

/* Where address space is limited it is the program's: we do without. */
static void open_view(struct wp_arena *arena)
{
    void *view;
    if (wp_os_address_space_is_limited() || wp_os_map(arena->fd, arena->at, arena->size, true, &view) != 0) {
        return;
    }
    (void)wp_os_hide_from_children(view, arena->size);
    arena->view = view;
}

int wp_arena_init(struct wp_arena *arena, int fd, uint64_t at, uint64_t size)
{
    *arena = (struct wp_arena){.fd = fd, .at = at, .size = size / WP_PAGE * WP_PAGE, .most_held = UINT64_MAX};
    struct wp_extent *whole = calloc(1, sizeof *whole);
    if (whole == NULL) {
        return -ENOMEM;
    }
    whole->size = arena->size;
    whole->temperature = COLD;
    arena->first = whole;
    list_free(arena, whole);
    open_view(arena);
    return 0;
}

void wp_arena_fini(struct wp_arena *arena)
{
    if (arena->view != NULL) {
        wp_os_unmap(arena->view, arena->size);
        arena->view = NULL;
    }
    struct wp_extent *e = arena->first;
    while (e != NULL) {
        struct wp_extent *after = e->after;
        free(e);
        e = after;
    }
    arena->first = NULL;
}

static struct wp_extent *first_fit(struct wp_extent *list, uint64_t size)
{
    enum { TRIES = 8 };
    for (int i = 0; i < TRIES && list != NULL; i++, list = list->next) {
        if (list->size >= size) {
            return list;
        }
    }
    return NULL;
}

/* An extent of a higher class always fits; one of the same class may. */
static struct wp_extent *find(const struct wp_arena *arena, enum temperature temperature, uint64_t size)
{
    struct wp_extent *const *lists = arena->free[temperature];
    struct wp_extent *found = first_fit(lists[class_of(size)], size);
    for (unsigned c = class_of(size) + 1; found == NULL && c < WP_SIZE_CLASSES; c++) {
        found = lists[c];
    }
    return found;
}

/* Cuts what is past `size` off an extent that is in no list, and lists the rest as free. */
static int split(struct wp_arena *arena, struct wp_extent *e, uint64_t size)
{
    if (e->size == size) {
        return 0;
    }
    struct wp_extent *rest = calloc(1, sizeof *rest);
    if (rest == NULL) {
        return -ENOMEM;
    }
    *rest = (struct wp_extent){.at = e->at + size, .size = e->size - size, .before = e, .after = e->after};
    rest->temperature = e->temperature;
    if (rest->after != NULL) {
        rest->after->before = rest;
    }
    e->after = rest;
    e->size = size;
    list_free(arena, rest);
    return 0;
}

/* Joins `e` and its neighbour `after`, neither of which is in a list. */
static void join_after(struct wp_extent *e)
{
    struct wp_extent *gone = e->after;
    e->size += gone->size;
    e->after = gone->after;
    if (e->after != NULL) {
        e->after->before = e;
    }
    free(gone);
}

static bool is_free_and(const struct wp_extent *e, enum temperature temperature)
{
    return e != NULL && !e->used && e->temperature == temperature;
}

/* Joins a free extent, in no list yet, with its free neighbours of the same temperature. */
static struct wp_extent *join_neighbours(struct wp_arena *arena, struct wp_extent *e)
{
    if (is_free_and(e->after, e->temperature)) {
        unlist_free(arena, e->after);
        join_after(e);
    }
    if (is_free_and(e->before, e->temperature)) {
        e = e->before;
        unlist_free(arena, e);
        join_after(e);
    }
    return e;
}

/* Gives back the pages that lie wholly inside free cold memory and were touched by [at, at + size). */
static void punch(const struct wp_arena *arena, const struct wp_extent *cold, uint64_t at, uint64_t size)
{
    uint64_t from = at / WP_PAGE * WP_PAGE;
    uint64_t to = (at + size + WP_PAGE - 1) / WP_PAGE * WP_PAGE;
    from = from < cold->at ? from + WP_PAGE : from;
    to = to > cold->at + cold->size ? to - WP_PAGE : to;
    if (from < to) {
        (void)wp_os_memory_punch(arena->fd, arena->at + from, to - from);
    }
}

/* Lists an extent that is in no list as free, cold memory. */
static void chill(struct wp_arena *arena, struct wp_extent *e)
{
    uint64_t at = e->at;
    uint64_t size = e->size;
    e->used = false;
    e->temperature = COLD;
    e = join_neighbours(arena, e);
    punch(arena, e, at, size);
    list_free(arena, e);
}

static struct wp_extent *any_warm(const struct wp_arena *arena)
{
    for (unsigned c = 0; c < WP_SIZE_CLASSES; c++) {
        if (arena->free[WARM][c] != NULL) {
            return arena->free[WARM][c];
        }
    }
    return NULL;
}

/* Lets everything free grow together, at the cost of its pages. */
static void chill_all(struct wp_arena *arena)
{
    for (struct wp_extent *e = any_warm(arena); e != NULL; e = any_warm(arena)) {
        unlist_free(arena, e);
        chill(arena, e);
    }
}

static struct wp_extent *find_any(struct wp_arena *arena, uint64_t size)
{
    struct wp_extent *e = find(arena, WARM, size);
    if (e == NULL) {
        e = find(arena, COLD, size);
    }
    if (e == NULL && arena->warm > 0) {
        chill_all(arena);
        e = find(arena, COLD, size);
    }
    return e;
}

struct wp_extent *wp_arena_alloc(struct wp_arena *arena, uint64_t size)
{
    if (size == 0 || size > arena->size) {
        return NULL;
    }
    size = round_up(size);
    struct wp_extent *e = find_any(arena, size);
    if (e == NULL) {
        return NULL;
    }
    unlist_free(arena, e);
    if (split(arena, e, size) != 0) {
        list_free(arena, e);
        return NULL;
    }
    e->used = true;
    e->spoiled = false;
    arena->used += e->size;
    return e;
}

void wp_arena_limit(struct wp_arena *arena, uint64_t bytes)
{
    arena->most_held = bytes != 0 ? bytes : UINT64_MAX;
}

void wp_arena_free(struct wp_arena *arena, struct wp_extent *e)
{
    arena->used -= e->size;
    bool too_much = arena->used + arena->warm + e->size > arena->most_held || arena->warm + e->size > WP_WARM_BYTES;
    if (e->spoiled || too_much) {
        chill(arena, e);
        return;
    }
    e->used = false;
    e->temperature = WARM;
    list_free(arena, join_neighbours(arena, e));
}

/* The page of an extent's last byte, which the payload may not reach, gets a byte of its own: warm memory has all its
 * pages. */
static int write_last_page(const struct wp_arena *arena, const struct wp_extent *e, uint64_t written)
{
    uint64_t last = e->at + e->size - 1;
    if ((e->at + written - 1) / WP_PAGE == last / WP_PAGE) {
        return 0;
    }
    struct iovec byte = {.iov_base = "", .iov_len = 1};
    return wp_os_memory_write(arena->fd, arena->at + last, &byte, 1);
}

int wp_arena_write(const struct wp_arena *arena, struct wp_extent *extent, const struct iovec *parts, int count)
{
    if (extent->temperature == WARM && arena->view != NULL) {
        wp_parts_copy(arena->view + extent->at, parts, count);
        return 0;
    }
    int rc = wp_os_memory_write(arena->fd, arena->at + extent->at, parts, count);
    if (rc == 0) {
        rc = write_last_page(arena, extent, wp_parts_size(parts, count));
    }
    extent->spoiled = rc != 0;
    return rc;
}

uint64_t wp_extent_at(const struct wp_extent *extent)
{
    return extent->at;
}

bool wp_arena_is_sound(const struct wp_arena *arena)
{
    uint64_t at = 0, used = 0, warm = 0;
    for (const struct wp_extent *e = arena->first; e != NULL; e = e->after) {
        if (e->at != at || e->size == 0 || (e->after != NULL && e->after->before != e)) {
            return false;
        }
        at += e->size;
        used += e->used ? e->size : 0;
        warm += !e->used && e->temperature == WARM ? e->size : 0;
    }
    return at == arena->size && used == arena->used && warm == arena->warm;
}
