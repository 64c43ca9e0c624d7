/* A segment with a slot table: what the tests below the pool begin and end with. */
#ifndef WP_TEST_TABLE_RIG_H
#define WP_TEST_TABLE_RIG_H

#include <unistd.h>

#include "check.h"
#include "table.h"
#include "task.h"

#define MIB (UINT64_C(1) << 20)

static struct wp_segment segment;
static struct wp_table table;
static struct weirpool_task some_task; /* the table keeps pointers, and looks at none */

static inline void set_up_table(uint32_t slots, uint32_t workers)
{
    CHECK_OK(wp_segment_create(&segment, slots, workers, MIB));
    CHECK_OK(wp_table_init(&table, &segment));
}

static inline void tear_down(void)
{
    wp_table_fini(&table);
    int fd = segment.fd;
    wp_segment_unmap(&segment);
    close(fd);
}

static inline uint64_t publish(void)
{
    uint64_t position = wp_table_reserve(&table, &some_task);
    wp_table_publish(&table, position);
    return position;
}

#endif
