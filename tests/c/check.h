/*
 * What the tests of the core share: checks that say what was wrong and where, random numbers whose seed is printed, and
 * a runner that sees what a test left behind.
 *
 *     static void test_something(void)
 *     {
 *         CHECK(list != NULL);
 *         CHECK_EQ(count(list), 3);
 *         CHECK_RC(close(list), -EBUSY);
 *     }
 *
 *     int main(int argc, char **argv)
 *     {
 *         check_start(argc, argv);
 *         RUN(test_something);
 *         return check_end();
 *     }
 *
 * A failed check aborts: there is a core to look at, and nothing runs on a broken state. Names given on the command
 * line run those tests alone; WEIRPOOL_SEED repeats a run's random numbers.
 */
#ifndef WP_TEST_CHECK_H
#define WP_TEST_CHECK_H

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#else
#define UNDER_TSAN 0
#endif
#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#else
#define UNDER_ASAN 0
#endif

/* Leaves room for the slowness of a sanitizer without making the plain run weak. */
#define SCALED(n) (UNDER_TSAN || UNDER_ASAN ? (n) / 8 : (n))

/* How long a wait that must end may take before it counts as lost: never what decides on a healthy run. */
#define PATIENCE_NS (INT64_C(60) * 1000000000)

/* ---- checks ---- */

#define CHECK(expression)                                                                                              \
    do {                                                                                                               \
        if (!(expression)) {                                                                                           \
            check_failed(__FILE__, __LINE__, #expression, "is false");                                                 \
        }                                                                                                              \
    } while (0)

/* Both as integers of up to 64 bits. */
#define CHECK_EQ(a, b) check_eq(__FILE__, __LINE__, #a " == " #b, (long long)(a), (long long)(b))

/* A result that is 0, or a count, or -errno. */
#define CHECK_RC(a, b) check_rc(__FILE__, __LINE__, #a " is " #b, (long long)(a), (long long)(b))

#define CHECK_OK(a) CHECK_RC(a, 0)

/* For system calls and others that return -1 and set errno. */
#define CHECK_SYS(a) CHECK_RC((a) == -1 ? -errno : 0, 0)

static inline _Noreturn void check_failed(const char *file, int line, const char *what, const char *how)
{
    fflush(stdout);
    fprintf(stderr, "%s:%d: [pid %d] %s: %s\n", file, line, (int)getpid(), what, how);
    abort();
}

static inline void check_eq(const char *file, int line, const char *what, long long a, long long b)
{
    if (a != b) {
        char how[80];
        snprintf(how, sizeof how, "%lld and %lld", a, b);
        check_failed(file, line, what, how);
    }
}

static inline void check_rc(const char *file, int line, const char *what, long long a, long long b)
{
    if (a != b) {
        char how[200];
        const char *name = a < 0 ? strerrorname_np((int)-a) : NULL;
        snprintf(how, sizeof how, "it is %lld%s%s", a, name != NULL ? ", -" : "", name != NULL ? name : "");
        check_failed(file, line, what, how);
    }
}

/* ---- time ---- */

static inline int64_t check_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void check_nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

/* Waits until the condition holds; fails if it never does. */
#define AWAIT(condition)                                                                                               \
    do {                                                                                                               \
        int64_t check_limit = check_now() + PATIENCE_NS;                                                               \
        while (!(condition)) {                                                                                         \
            if (check_now() > check_limit) {                                                                           \
                check_failed(__FILE__, __LINE__, #condition, "never became true");                                     \
            }                                                                                                          \
            check_nap();                                                                                               \
        }                                                                                                              \
    } while (0)

/* ---- random numbers ---- */

/* splitmix64: each state gives its own sequence, so threads and processes take one each. */
struct dice {
    uint64_t state;
};

static inline uint64_t check_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline uint64_t roll(struct dice *dice, uint64_t below)
{
    dice->state += UINT64_C(0x9e3779b97f4a7c15);
    return check_mix(dice->state) % below;
}

static uint64_t check_seed;

static inline struct dice new_dice(uint64_t stream)
{
    return (struct dice){.state = check_mix(check_seed ^ check_mix(stream + 1))};
}

/* Byte `i` of message `id` is one of word i / 8: any byte lost, doubled or out of place shows. */
static inline uint64_t pattern_word(uint64_t id, uint64_t word)
{
    uint64_t z = id * UINT64_C(0x9e3779b97f4a7c15) ^ word;
    z ^= z >> 29;
    z *= UINT64_C(0xbf58476d1ce4e5b9);
    return z ^ z >> 32;
}

/* The part of the pattern that is in one word: at most 8 bytes. Returns how many. */
static inline size_t pattern_piece(unsigned char piece[8], uint64_t id, uint64_t from, size_t most)
{
    uint64_t word = pattern_word(id, from / 8);
    size_t skip = from % 8;
    if (skip == 0 && most >= 8) { /* nearly always; a length that the compiler knows is several times faster */
        memcpy(piece, &word, 8);
        return 8;
    }
    size_t n = 8 - skip < most ? 8 - skip : most;
    memcpy(piece, (const char *)&word + skip, n);
    return n;
}

static inline void fill_pattern(void *to, size_t size, uint64_t id, uint64_t from)
{
    unsigned char piece[8];
    for (size_t i = 0, n; i < size; i += n) {
        n = pattern_piece(piece, id, from + i, size - i);
        char *at = (char *)to + i;
        if (n == 8) {
            memcpy(at, piece, 8);
        } else {
            memcpy(at, piece, n);
        }
    }
}

static inline bool is_pattern(const void *data, size_t size, uint64_t id, uint64_t from)
{
    unsigned char piece[8];
    for (size_t i = 0, n; i < size; i += n) {
        n = pattern_piece(piece, id, from + i, size - i);
        const char *at = (const char *)data + i;
        if ((n == 8 ? memcmp(at, piece, 8) : memcmp(at, piece, n)) != 0) {
            return false;
        }
    }
    return true;
}

/* ---- what is left behind ---- */

static inline int count_descriptors(void)
{
    int n = 0;
    DIR *folder = opendir("/proc/self/fd");
    CHECK(folder != NULL);
    while (readdir(folder) != NULL) {
        n++;
    }
    closedir(folder);
    return n;
}

static inline bool has_children(void)
{
    siginfo_t info;
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

/* Runs a function in a child, whose end decides: for limits, and for what must not be inherited. */
static inline void check_in_child(void (*body)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    CHECK_SYS(pid);
    if (pid == 0) {
        body();
        fflush(NULL);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

/* ---- running ---- */

static int check_argc;
static char **check_argv;
static int check_count;
static int check_skipped;

static inline void check_start(int argc, char **argv)
{
    check_argc = argc;
    check_argv = argv;
    const char *given = getenv("WEIRPOOL_SEED");
    check_seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)check_now() ^ (uint64_t)getpid() << 40;
    printf("WEIRPOOL_SEED=%" PRIu64 " repeats the random numbers of this run\n", check_seed);
    fflush(stdout);
}

static inline bool check_is_wanted(const char *name)
{
    for (int i = 1; i < check_argc; i++) {
        if (strcmp(check_argv[i], name) == 0) {
            return true;
        }
    }
    return check_argc <= 1;
}

static inline void check_run(const char *name, void (*test)(void))
{
    if (!check_is_wanted(name)) {
        return;
    }
    printf("%s\n", name);
    fflush(stdout);
    int before = count_descriptors();
    test();
    CHECK(!has_children());
    CHECK_EQ(count_descriptors(), before);
    check_count++;
}

#define RUN(test) check_run(#test, test)

/* Under ThreadSanitizer: it sees one process and one mapping, and does not follow threads across fork(). */
#define RUN_UNLESS_TSAN(test)                                                                                          \
    do {                                                                                                               \
        if (UNDER_TSAN) {                                                                                              \
            printf("%s: skipped, ThreadSanitizer does not see into other processes\n", #test);                         \
            check_skipped++;                                                                                           \
        } else {                                                                                                       \
            RUN(test);                                                                                                 \
        }                                                                                                              \
    } while (0)

/* 77 says to meson that all were skipped. None at all is an error: of a name, mostly. */
static inline int check_end(void)
{
    printf("%d tests passed\n", check_count);
    return check_count > 0 ? 0 : check_skipped > 0 ? 77 : 1;
}

#endif
