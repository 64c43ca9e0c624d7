/*
 * What the core asks of the operating system beyond POSIX: the only system calls of Linux's own. Functions return 0
 * (or a non-negative value) or -errno. Deadlines are nanoseconds of wp_os_now(). Tests may link another implementation.
 */
#ifndef WP_OS_H
#define WP_OS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t wp_os_now(void);

/* ---- memory ---- */

/* Makes `size` bytes of zeroed, sparse, anonymous shared memory, sealed in its size where the system can do that.
 * Returns its descriptor. */
int wp_os_memory_create(uint64_t size);

/* How many bytes it has been made for. -EINVAL: the descriptor is no memory. */
int64_t wp_os_memory_size(int fd);

/* Bytes that the memory really holds. */
uint64_t wp_os_memory_held(int fd);

/* Writes all parts at `offset`. A lack of memory is an error here, where a store would be SIGBUS. */
int wp_os_memory_write(int fd, uint64_t offset, const struct iovec *parts, int count);

/* Gives whole pages back to the system; they read as zero afterwards. */
int wp_os_memory_punch(int fd, uint64_t offset, uint64_t size);

int wp_os_map(int fd, uint64_t offset, uint64_t size, bool writable, void **address);
void wp_os_unmap(void *address, uint64_t size);

/* Private memory that is about to be filled: let large pages be used, where there is room for one. */
void wp_os_use_large_pages(void *address, uint64_t size);

/* Children of fork() will not have this mapping. */
int wp_os_hide_from_children(void *address, uint64_t size);

/* Is the address space of this process limited (RLIMIT_AS)? */
bool wp_os_address_space_is_limited(void);

/* The most bytes that memory made here may have (RLIMIT_FSIZE), and the machine's physical memory. */
uint64_t wp_os_file_limit(void);
uint64_t wp_os_physical_memory(void);

/* ---- sleeping and waking ---- */

enum wp_futex_scope { WP_SHARED = 0, WP_PRIVATE = 1 };

/* Sleeps while *word == seen. 0: woken, or the word has another value; -ETIMEDOUT; -EINTR. */
int wp_os_futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline, enum wp_futex_scope scope);

/* Wakes up to `most` sleepers; returns how many. */
int wp_os_futex_wake(_Atomic uint32_t *word, int most, enum wp_futex_scope scope);

/* A doorbell: a descriptor that is readable from a ring until it is cleared. */
int wp_os_bell_create(void);
void wp_os_bell_ring(int bell);
void wp_os_bell_clear(int bell);

/* A watch over descriptors, each with a key that wp_os_watch_wait() returns. */
int wp_os_watch_create(void);
int wp_os_watch_add(int watch, int fd, uint32_t key);
void wp_os_watch_remove(int watch, int fd);

/* Waits for readable descriptors. Returns how many keys were filled in, 0 at the deadline, -EINTR. */
int wp_os_watch_wait(int watch, uint32_t *keys, int room, int64_t deadline);

/* An alarm: a descriptor that is readable from the time that was set last. INT64_MAX: it is not readable. */
int wp_os_alarm_create(void);
void wp_os_alarm_set(int alarm, int64_t at);

/* ---- processes ---- */

unsigned wp_os_cores(void);

/* A descriptor of a process (pidfd). */
int wp_os_process_open(pid_t pid);

/* Has the process behind the descriptor ended? */
bool wp_os_process_ended(int process);

/* Reaps an own child. Returns 1 with its waitpid() status, 0 if it still runs, -errno. */
int wp_os_process_reap(pid_t pid, int *status);

/* Waits by `deadline` until it has ended. Returns whether it has; a negative descriptor only waits. */
bool wp_os_process_wait(int process, int64_t deadline);

/* Kills it; by its number if the descriptor, by which its end is seen, is no pidfd. */
void wp_os_process_kill(int process, pid_t pid);

int wp_os_dup(int fd);
void wp_os_close(int fd);

/* Lets a descriptor survive exec(). */
int wp_os_pass_on(int fd);

#endif
