/*
 * Linux as os.h has it, but for time and memory. Time is virtual: it passes at each look at the clock, and whoever would
 * sleep finds that his deadline has come. So one thread can play the parent and its workers, always in the same way,
 * and in milliseconds what takes seconds. Memory that is mapped lies between pages that nobody may touch. For one file
 * of an executable: what is defined here takes the place of the library's, as os.h allows.
 */
#ifndef WP_FUZZ_VIRTUAL_OS_H
#define WP_FUZZ_VIRTUAL_OS_H

#include <sys/mman.h>

#include "os/os.h"

#define wp_os_now linux_now
#define wp_os_map linux_map
#define wp_os_unmap linux_unmap
#define wp_os_futex_wait linux_futex_wait
#define wp_os_watch_wait linux_watch_wait
#define wp_os_alarm_set linux_alarm_set
#define wp_os_process_wait linux_process_wait
#define wp_os_process_kill linux_process_kill
int64_t linux_now(void);
int linux_map(int fd, uint64_t offset, uint64_t size, bool writable, void **address);
void linux_unmap(void *address, uint64_t size);
int linux_futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline, enum wp_futex_scope scope);
int linux_watch_wait(int watch, uint32_t *keys, int room, int64_t deadline);
void linux_alarm_set(int alarm, int64_t at);
bool linux_process_wait(int process, int64_t deadline);
void linux_process_kill(int process, pid_t pid);
#include "os/linux.c"
#undef wp_os_now
#undef wp_os_map
#undef wp_os_unmap
#undef wp_os_futex_wait
#undef wp_os_watch_wait
#undef wp_os_alarm_set
#undef wp_os_process_wait
#undef wp_os_process_kill

#include "check.h"
#include "pool.h"
#include "sanitizer.h"

/* ---- time ---- */

#define TICK_NS 500
#define MOST_TICKS 3000000 /* of one step, which is a call into the core: whoever needs more goes round in circles */

static int64_t virtual_now = INT64_C(1000000000000);
static uint64_t ticks;
static int64_t alarm_at = INT64_MAX;

/* Called instead of a sleep; what the others do meanwhile. Returns whether they did anything. */
static bool (*while_asleep)(void);

/* Called at each look at the clock: what the others do meanwhile. */
static void (*while_awake)(void);

static void begin_step(void)
{
    ticks = 0;
}

static void tick(int64_t until)
{
    CHECK(++ticks < MOST_TICKS);
    CHECK(until < INT64_MAX / 2); /* everybody looks around once a second */
    virtual_now = until > virtual_now + TICK_NS ? until : virtual_now + TICK_NS;
}

int64_t wp_os_now(void)
{
    tick(0);
    if (while_awake != NULL) {
        while_awake();
    }
    return virtual_now;
}

int wp_os_futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline, enum wp_futex_scope scope)
{
    (void)scope;
    if (atomic_load(word) != seen || (while_asleep != NULL && while_asleep())) {
        tick(0);
        return 0;
    }
    tick(deadline);
    return -ETIMEDOUT;
}

int wp_os_watch_wait(int watch, uint32_t *keys, int room, int64_t deadline)
{
    struct epoll_event events[16];
    int n = epoll_wait(watch, events, room < 16 ? room : 16, 0);
    for (int i = 0; i < n; i++) {
        keys[i] = events[i].data.u32;
    }
    if (n == 0 && alarm_at <= virtual_now) {
        keys[n++] = WP_ALARM;
    }
    tick(n == 0 ? (deadline < alarm_at ? deadline : alarm_at) : 0);
    return n < 0 ? -errno : n;
}

/* There is one pool at a time. */
void wp_os_alarm_set(int alarm, int64_t at)
{
    (void)alarm;
    alarm_at = at;
}

/* ---- processes, which are eventfds ---- */

void wp_os_process_kill(int process, pid_t pid)
{
    (void)pid;
    uint64_t one = 1;
    CHECK_EQ(write(process, &one, sizeof one), sizeof one);
}

bool wp_os_process_wait(int process, int64_t deadline)
{
    bool ended = process >= 0 && wp_os_process_ended(process);
    tick(ended ? 0 : deadline);
    return ended;
}

/* ---- memory ---- */

#define GUARD ((size_t)1 << 16)

int wp_os_map(int fd, uint64_t offset, uint64_t size, bool writable, void **address)
{
    char *room = mmap(NULL, size + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(room != MAP_FAILED);
    int access = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void *p = mmap(room + GUARD, size, access, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, (off_t)offset);
    CHECK(p != MAP_FAILED);
    *address = p;
    return 0;
}

void wp_os_unmap(void *address, uint64_t size)
{
    size = (size + 4095) / 4096 * 4096;
    CHECK_SYS(munmap((char *)address - GUARD, size + 2 * GUARD));
}

#endif
