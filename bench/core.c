/*
 * The engine alone, without Python: rates, round trips, payloads; and beside them what the machine can do at best
 * (a futex to a process and back, a memcpy). Prints JSON.
 *
 *     core [SCALE]    0.1: a tenth of the time
 */
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "weirpool.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define TRIPS 20000u
#define LARGEST (16 * MIB)

static double scale = 1.0;

/* ---- helpers ---- */

#define CHECK(condition) check((condition), #condition, __LINE__)

static void check(bool holds, const char *what, int line)
{
    if (!holds) {
        fprintf(stderr, "bench/core.c:%d: %s does not hold\n", line, what);
        exit(1);
    }
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void print_figure(const char *name, double value)
{
    static bool more;
    printf("%s\n  \"%s\": %.6g", more ? "," : "{", name, value);
    more = true;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *name, double *seconds, size_t count)
{
    char text[100];
    qsort(seconds, count, sizeof *seconds, compare);
    snprintf(text, sizeof text, "%s, p50 us", name);
    print_figure(text, seconds[count / 2] * 1e6);
    snprintf(text, sizeof text, "%s, p99 us", name);
    print_figure(text, seconds[count * 99 / 100] * 1e6);
}

/* ---- what workers run ---- */

static char buffer[LARGEST];

static int echo(const void *payload, size_t size, weirpool_reply *reply, void *context)
{
    (void)context;
    return weirpool_answer(reply, payload, size);
}

/* Answers how many bytes came, and so shows that they did. */
static int swallow(const void *payload, size_t size, weirpool_reply *reply, void *context)
{
    (void)context;
    uint64_t answer = size + (uint64_t)((const unsigned char *)payload)[size - 1];
    return weirpool_answer(reply, &answer, sizeof answer);
}

/* Answers with as many bytes as it is asked for. */
static int pour(const void *payload, size_t size, weirpool_reply *reply, void *context)
{
    (void)context;
    uint64_t wanted;
    if (size != sizeof wanted) {
        return 1;
    }
    memcpy(&wanted, payload, sizeof wanted);
    return weirpool_answer(reply, buffer, wanted);
}

/* ---- pools ---- */

static weirpool *open_pool(uint32_t workers, uint64_t bound, weirpool_handler *handler)
{
    weirpool *pool;
    struct weirpool_options options = {.size = sizeof options, .workers = workers, .bound = bound, .handler = handler};
    CHECK(weirpool_open(&pool, &options) == 0);
    return pool;
}

static void submit(weirpool *pool, const void *data, size_t size)
{
    CHECK(weirpool_submit(pool, data, size, NULL, WEIRPOOL_FOREVER, NULL) == 0);
}

static struct weirpool_completion next(weirpool *pool)
{
    struct weirpool_completion done;
    CHECK(weirpool_next(pool, &done, WEIRPOOL_FOREVER) == 0);
    CHECK(done.error == 0 && done.status == 0);
    return done;
}

static uint64_t next_number(weirpool *pool)
{
    uint64_t number;
    struct weirpool_completion done = next(pool);
    CHECK(done.result_size == sizeof number);
    memcpy(&number, done.result, sizeof number);
    weirpool_release(pool, done.task);
    return number;
}

/* Submits all, then fetches all. */
static double no_ops(weirpool *pool, uint64_t count)
{
    uint64_t sum = 0;
    double start = now();
    for (uint64_t number = 0; number < count; number++) {
        submit(pool, &number, sizeof number);
    }
    for (uint64_t number = 0; number < count; number++) {
        sum += next_number(pool);
    }
    double seconds = now() - start;
    CHECK(sum == count * (count - 1) / 2);
    return seconds;
}

static void measure_rate(const char *name, uint32_t workers, uint64_t bound)
{
    const uint64_t count = 100000;
    weirpool *pool = open_pool(workers, bound, echo);
    no_ops(pool, 1000);
    double seconds = 0;
    uint64_t tasks = 0;
    while (seconds < scale) {
        uint64_t some = scale < 0.1 ? count / 10 : count;
        seconds += no_ops(pool, some);
        tasks += some;
    }
    print_figure(name, (double)tasks / seconds);
    CHECK(weirpool_close(pool) == 0);
}

static void measure_round_trip(void)
{
    static double seconds[TRIPS];
    weirpool *pool = open_pool(2, 0, echo);
    no_ops(pool, 1000);
    for (uint64_t number = 0; number < TRIPS; number++) {
        double start = now();
        submit(pool, &number, sizeof number);
        uint64_t answer = next_number(pool);
        seconds[number] = now() - start;
        CHECK(answer == number);
    }
    print_times("round trip", seconds, TRIPS);
    CHECK(weirpool_close(pool) == 0);
}

/* ---- payloads ---- */

static void send_some(weirpool *pool, size_t size, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        submit(pool, buffer, size);
    }
    for (uint32_t i = 0; i < count; i++) {
        CHECK(next_number(pool) == size + (unsigned char)buffer[size - 1]);
    }
}

static void fetch_some(weirpool *pool, size_t size, uint32_t count)
{
    uint64_t wanted = size;
    for (uint32_t i = 0; i < count; i++) {
        submit(pool, &wanted, sizeof wanted);
    }
    for (uint32_t i = 0; i < count; i++) {
        struct weirpool_completion done = next(pool);
        CHECK(done.result_size == size && ((const char *)done.result)[size - 1] == buffer[size - 1]);
        weirpool_release(pool, done.task);
    }
}

typedef void transfer(weirpool *pool, size_t size, uint32_t count);

static void measure_payload(const char *name, weirpool_handler *handler, transfer *some, size_t size)
{
    const uint32_t at_once = size >= MIB ? 2 : 16;
    weirpool *pool = open_pool(2, at_once, handler);
    some(pool, size, at_once);
    double bytes = 0;
    double start = now();
    while (now() - start < scale) {
        some(pool, size, at_once);
        bytes += (double)size * at_once;
    }
    print_figure(name, bytes / (now() - start) / 1e9);
    CHECK(weirpool_close(pool) == 0);
}

/* ---- what the machine can do ---- */

struct court {
    _Atomic uint32_t there;
    _Atomic uint32_t back;
};

static void hit(_Atomic uint32_t *word)
{
    atomic_fetch_add(word, 1);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void wait_for(_Atomic uint32_t *word, uint32_t value)
{
    uint32_t seen;
    while ((seen = atomic_load(word)) != value) {
        syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
    }
}

static void measure_futex(void)
{
    static double seconds[TRIPS];
    struct court *court = mmap(NULL, sizeof *court, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(court != MAP_FAILED);
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    for (uint32_t ball = 1; child == 0 && ball <= TRIPS; ball++) {
        wait_for(&court->there, ball);
        hit(&court->back);
    }
    if (child == 0) {
        _exit(0);
    }
    for (uint32_t ball = 1; ball <= TRIPS; ball++) {
        double start = now();
        hit(&court->there);
        wait_for(&court->back, ball);
        seconds[ball - 1] = now() - start;
    }
    CHECK(waitpid(child, NULL, 0) == child);
    munmap(court, sizeof *court);
    print_times("floor: futex to a process and back", seconds, TRIPS);
}

static void measure_memcpy(const char *name, size_t size)
{
    char *to = malloc(size);
    CHECK(to != NULL);
    memcpy(to, buffer, size);
    double bytes = 0;
    double start = now();
    while (now() - start < scale / 4) {
        memcpy(to, buffer, size);
        __asm__ volatile("" : : "r"(to) : "memory"); /* else nobody reads it, and nothing is copied */
        bytes += (double)size;
    }
    print_figure(name, bytes / (now() - start) / 1e9);
    free(to);
}

int main(int argc, char **argv)
{
    scale = argc > 1 ? atof(argv[1]) : 1.0;
    CHECK(scale > 0);
    memset(buffer, 'w', sizeof buffer);
    measure_rate("no-op, unbounded, 2 workers, tasks/s", 2, 0);
    measure_rate("no-op, bound 4, 2 workers, tasks/s", 2, 4);
    measure_rate("no-op, bound 16, 8 workers, tasks/s", 8, 16);
    measure_round_trip();
    measure_futex();
    measure_payload("payload of 64 KiB, GB/s", swallow, send_some, 64 * KIB);
    measure_payload("payload of 16 MiB, GB/s", swallow, send_some, LARGEST);
    measure_payload("result of 64 KiB, GB/s", pour, fetch_some, 64 * KIB);
    measure_payload("result of 16 MiB, GB/s", pour, fetch_some, LARGEST);
    measure_memcpy("floor: memcpy of 64 KiB, GB/s", 64 * KIB);
    measure_memcpy("floor: memcpy of 16 MiB, GB/s", LARGEST);
    printf("\n}\n");
    return 0;
}
