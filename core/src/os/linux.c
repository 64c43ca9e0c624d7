/* os.h for Linux 5.3 and newer. */
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/memfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define NS_PER_S INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)

int64_t wp_os_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* ---- memory ---- */

static int memory_open(void)
{
    int fd = memfd_create("weirpool", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) {
        fd = memfd_create("weirpool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    }
    if (fd < 0 && (errno == ENOSYS || errno == EPERM)) {
        fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
    }
    return fd < 0 ? -errno : fd;
}

int wp_os_memory_create(uint64_t size)
{
    int fd = memory_open();
    if (fd < 0) {
        return fd;
    }
    if (ftruncate(fd, (off_t)size) != 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    /* An unnamed file of O_TMPFILE cannot be sealed: there a broken worker could resize it. */
    (void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    return fd;
}

int64_t wp_os_memory_size(int fd)
{
    struct stat about;
    if (fstat(fd, &about) != 0) {
        return -errno;
    }
    return S_ISREG(about.st_mode) ? about.st_size : -EINVAL;
}

uint64_t wp_os_memory_held(int fd)
{
    struct stat about;
    return fstat(fd, &about) == 0 ? (uint64_t)about.st_blocks * 512 : 0;
}

static int write_fully(int fd, const char *data, size_t size, off_t offset)
{
    while (size > 0) {
        ssize_t n = pwrite(fd, data, size, offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 && errno != ENOSPC && errno != EFBIG ? -errno : -ENOMEM;
        }
        data += n;
        size -= (size_t)n;
        offset += n;
    }
    return 0;
}

int wp_os_memory_write(int fd, uint64_t offset, const struct iovec *parts, int count)
{
    for (int i = 0; i < count; i++) {
        int rc = write_fully(fd, parts[i].iov_base, parts[i].iov_len, (off_t)offset);
        if (rc != 0) {
            return rc;
        }
        offset += parts[i].iov_len;
    }
    return 0;
}

int wp_os_memory_punch(int fd, uint64_t offset, uint64_t size)
{
    int rc = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size);
    return rc == 0 ? 0 : -errno;
}

int wp_os_map(int fd, uint64_t offset, uint64_t size, bool writable, void **address)
{
    int access = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void *p = mmap(NULL, size, access, MAP_SHARED | MAP_NORESERVE, fd, (off_t)offset);
    if (p == MAP_FAILED) {
        return -errno;
    }
    *address = p;
    return 0;
}

void wp_os_unmap(void *address, uint64_t size)
{
    munmap(address, size);
}

void wp_os_use_large_pages(void *address, uint64_t size)
{
    const uintptr_t large = (uintptr_t)2 * 1024 * 1024;
    uintptr_t from = ((uintptr_t)address + large - 1) / large * large;
    uintptr_t to = ((uintptr_t)address + size) / large * large;
    if (from < to) {
        (void)madvise((void *)from, to - from, MADV_HUGEPAGE); /* as good without, only slower */
    }
}

int wp_os_hide_from_children(void *address, uint64_t size)
{
    return madvise(address, size, MADV_DONTFORK) == 0 ? 0 : -errno;
}

bool wp_os_address_space_is_limited(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
}

uint64_t wp_os_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        return INT64_MAX;
    }
    return limit.rlim_cur;
}

uint64_t wp_os_physical_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_C(1) << 30;
}

/* ---- sleeping and waking ---- */

int wp_os_futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline, enum wp_futex_scope scope)
{
    int flag = scope == WP_PRIVATE ? FUTEX_PRIVATE_FLAG : 0;
    struct timespec until = {.tv_sec = deadline / NS_PER_S, .tv_nsec = deadline % NS_PER_S};
    long rc = syscall(SYS_futex, word, FUTEX_WAIT_BITSET | flag, seen, &until, NULL, FUTEX_BITSET_MATCH_ANY);
    return rc == 0 || errno == EAGAIN ? 0 : -errno;
}

int wp_os_futex_wake(_Atomic uint32_t *word, int most, enum wp_futex_scope scope)
{
    int flag = scope == WP_PRIVATE ? FUTEX_PRIVATE_FLAG : 0;
    long woken = syscall(SYS_futex, word, FUTEX_WAKE | flag, most, NULL, NULL, 0);
    return woken > 0 ? (int)woken : 0;
}

int wp_os_bell_create(void)
{
    int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return bell < 0 ? -errno : bell;
}

void wp_os_bell_ring(int bell)
{
    uint64_t one = 1;
    /* It can only fail by being full of rings, which is rung enough. */
    ssize_t n = write(bell, &one, sizeof one);
    (void)n;
}

void wp_os_bell_clear(int bell)
{
    uint64_t rings;
    ssize_t n = read(bell, &rings, sizeof rings);
    (void)n;
}

int wp_os_watch_create(void)
{
    int watch = epoll_create1(EPOLL_CLOEXEC);
    return watch < 0 ? -errno : watch;
}

int wp_os_watch_add(int watch, int fd, uint32_t key)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.u32 = key}};
    return epoll_ctl(watch, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

void wp_os_watch_remove(int watch, int fd)
{
    (void)epoll_ctl(watch, EPOLL_CTL_DEL, fd, NULL);
}

static int milliseconds_until(int64_t deadline)
{
    int64_t now = wp_os_now();
    if (deadline <= now) {
        return 0;
    }
    int64_t left = deadline - now;
    int64_t ms = left / NS_PER_MS + (left % NS_PER_MS != 0);
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

int wp_os_watch_wait(int watch, uint32_t *keys, int room, int64_t deadline)
{
    struct epoll_event events[16];
    int most = room < 16 ? room : 16;
    int n = epoll_wait(watch, events, most, milliseconds_until(deadline));
    for (int i = 0; i < n; i++) {
        keys[i] = events[i].data.u32;
    }
    return n < 0 ? -errno : n;
}

int wp_os_alarm_create(void)
{
    int alarm = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    return alarm < 0 ? -errno : alarm;
}

void wp_os_alarm_set(int alarm, int64_t at)
{
    struct itimerspec when = {.it_value = {.tv_sec = at / NS_PER_S, .tv_nsec = at % NS_PER_S}};
    if (at == INT64_MAX) {
        when = (struct itimerspec){.it_value = {.tv_sec = 0}};
    }
    (void)timerfd_settime(alarm, TFD_TIMER_ABSTIME, &when, NULL);
}

/* ---- processes ---- */

unsigned wp_os_cores(void)
{
    cpu_set_t usable;
    if (sched_getaffinity(0, sizeof usable, &usable) == 0) {
        return (unsigned)CPU_COUNT(&usable);
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (unsigned)online : 1;
}

int wp_os_process_open(pid_t pid)
{
    long fd = syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : (int)fd;
}

bool wp_os_process_wait(int process, int64_t deadline)
{
    struct pollfd p = {.fd = process, .events = POLLIN};
    return poll(&p, 1, milliseconds_until(deadline)) > 0;
}

bool wp_os_process_ended(int process)
{
    return wp_os_process_wait(process, 0);
}

int wp_os_process_reap(pid_t pid, int *status)
{
    pid_t reaped = waitpid(pid, status, WNOHANG);
    return reaped < 0 ? -errno : reaped > 0;
}

void wp_os_process_kill(int process, pid_t pid)
{
    long rc = syscall(SYS_pidfd_send_signal, process, SIGKILL, NULL, 0);
    if (rc != 0 && errno != ESRCH && pid > 0 && !wp_os_process_ended(process)) {
        (void)kill(pid, SIGKILL); /* not reaped while it has not ended, so that the number is its own */
    }
}

int wp_os_dup(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return copy < 0 ? -errno : copy;
}

void wp_os_close(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

int wp_os_pass_on(int fd)
{
    return fcntl(fd, F_SETFD, 0) == 0 ? 0 : -errno;
}
