/* Large results on their way back: the ring alone, and what the pool makes of a worker that scribbles into it. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>

#include "check.h"
#include "os/os.h"
#include "stream.h"
#include "workers.h"

#define RING ((size_t)WP_STREAM_BYTES)
#define FOREVER INT64_MAX

static struct wp_stream *stream;
static struct wp_stream_cursor cursor;
static unsigned char *buffer; /* two rings large */

static void set_up(void)
{
    /* Shared, so that a forked writer writes into the same. */
    stream = mmap(NULL, sizeof *stream, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(stream != MAP_FAILED);
    buffer = malloc(2 * RING);
    CHECK(buffer != NULL);
    cursor = (struct wp_stream_cursor){.drained = 0};
}

static void tear_down(void)
{
    munmap(stream, sizeof *stream);
    free(buffer);
}

static size_t available(void)
{
    size_t n;
    CHECK(wp_stream_available(stream, &cursor, &n));
    return n;
}

static size_t write_bytes(size_t size, uint64_t id, uint64_t from)
{
    fill_pattern(buffer, size, id, from);
    return wp_stream_write(stream, buffer, size);
}

static void read_bytes(size_t size, uint64_t id, uint64_t from)
{
    wp_stream_read(stream, &cursor, buffer, size);
    CHECK(is_pattern(buffer, size, id, from));
    wp_stream_give_room(stream, &cursor);
}

/* ---- the ring ---- */

static void test_fragments(void)
{
    set_up();
    CHECK_EQ(available(), 0);
    CHECK_EQ(write_bytes(0, 1, 0), 0);
    CHECK_EQ(write_bytes(10, 1, 0), 10);
    CHECK_EQ(write_bytes(1, 1, 10), 1);
    CHECK_EQ(available(), 11);
    read_bytes(4, 1, 0);
    CHECK_EQ(available(), 7);
    CHECK_EQ(write_bytes(100, 1, 11), 100);
    read_bytes(107, 1, 4);
    CHECK_EQ(available(), 0);
    tear_down();
}

static void test_full_ring(void)
{
    set_up();
    CHECK_EQ(write_bytes(RING + 1, 2, 0), RING);
    CHECK_EQ(write_bytes(1, 2, 0), 0);
    CHECK_EQ(available(), RING);
    wp_stream_read(stream, &cursor, buffer, 3); /* read, but the room not given yet */
    CHECK_EQ(wp_stream_write(stream, buffer, 1), 0);
    wp_stream_give_room(stream, &cursor);
    CHECK_EQ(write_bytes(10, 2, RING), 3);
    read_bytes(RING, 2, 3);
    CHECK_EQ(available(), 0);
    tear_down();
}

static void test_discarding(void)
{
    set_up();
    CHECK_EQ(write_bytes(1000, 3, 0), 1000);
    wp_stream_read(stream, &cursor, NULL, 600);
    read_bytes(400, 3, 600);
    tear_down();
}

/* A fragment across the end of the ring, at each of some offsets around it. */
static void test_wrap_around(void)
{
    set_up();
    uint64_t at = 0;
    for (size_t before = 0; before <= 130; before++) {
        uint64_t boundary = (at / RING + 1) * RING;
        while (at < boundary - before) {
            size_t n = boundary - before - at < RING / 3 ? boundary - before - at : RING / 3;
            CHECK_EQ(write_bytes(n, 4, at), n);
            read_bytes(n, 4, at);
            at += n;
        }
        CHECK_EQ(write_bytes(131, 4, at), 131);
        CHECK_EQ(available(), 131);
        read_bytes(131, 4, at);
        at += 131;
    }
    tear_down();
}

static void test_corrupt_counters(void)
{
    size_t n;
    set_up();
    CHECK_EQ(write_bytes(100, 5, 0), 100);
    read_bytes(100, 5, 0);
    wp_store_seq_cst(&stream->written, 100 + RING);
    CHECK(wp_stream_available(stream, &cursor, &n));
    wp_store_seq_cst(&stream->written, 101 + RING);
    CHECK(!wp_stream_available(stream, &cursor, &n));
    wp_store_seq_cst(&stream->written, 99); /* backwards */
    CHECK(!wp_stream_available(stream, &cursor, &n));
    wp_store_seq_cst(&stream->written, UINT64_MAX);
    CHECK(!wp_stream_available(stream, &cursor, &n));
    wp_store_seq_cst(&stream->written, 100);
    wp_store_seq_cst(&stream->drained, 12345); /* the reader believes its own count alone */
    CHECK_EQ(available(), 0);
    tear_down();
}

/* ---- waiting for room ---- */

static void test_wait_for_room(void)
{
    set_up();
    CHECK_OK(wp_stream_wait_for_room(stream, FOREVER)); /* there is room: no sleep */
    CHECK_EQ(write_bytes(RING, 6, 0), RING);
    int64_t deadline = wp_os_now() + 2000000;
    CHECK_RC(wp_stream_wait_for_room(stream, deadline), -ETIMEDOUT);
    CHECK(wp_os_now() >= deadline);
    CHECK_EQ(wp_load_seq_cst(&stream->starved), 0);
    tear_down();
}

static _Atomic bool waiter_returned;
static int waiter_rc;

static void *wait_once(void *unused)
{
    waiter_rc = wp_stream_wait_for_room(stream, FOREVER);
    atomic_store(&waiter_returned, true);
    return unused;
}

static pthread_t start_waiter(void)
{
    pthread_t thread;
    CHECK_EQ(write_bytes(RING, 7, 0), RING);
    atomic_store(&waiter_returned, false);
    CHECK_OK(pthread_create(&thread, NULL, wait_once, NULL));
    AWAIT(wp_load_seq_cst(&stream->starved) == 1);
    return thread;
}

static void test_starved_writer_is_woken(void)
{
    set_up();
    pthread_t thread = start_waiter();
    wp_stream_read(stream, &cursor, NULL, 1);
    wp_stream_give_room(stream, &cursor); /* once: it has to be enough */
    AWAIT(atomic_load(&waiter_returned));
    pthread_join(thread, NULL);
    CHECK_OK(waiter_rc);
    tear_down();
}

static void ignore_signal(int signal)
{
    (void)signal;
}

static void test_wait_interrupted(void)
{
    struct sigaction action = {.sa_handler = ignore_signal};
    sigaction(SIGUSR1, &action, NULL);
    set_up();
    pthread_t thread = start_waiter();
    AWAIT((pthread_kill(thread, SIGUSR1), atomic_load(&waiter_returned)));
    pthread_join(thread, NULL);
    CHECK_RC(waiter_rc, -EINTR);
    CHECK_EQ(wp_load_seq_cst(&stream->starved), 0);
    tear_down();
}

/* ---- a message many times the ring ---- */

#define MESSAGE (SCALED(24) * (uint64_t)RING + 12345)

static void write_message(struct dice *dice)
{
    unsigned char *bytes = malloc(RING);
    CHECK(bytes != NULL);
    for (uint64_t sent = 0; sent < MESSAGE;) {
        uint64_t left = MESSAGE - sent;
        uint64_t n = 1 + roll(dice, UINT64_C(1) << roll(dice, 20));
        n = n < left ? n : left;
        fill_pattern(bytes, n, 8, sent);
        size_t written = wp_stream_write(stream, bytes, n);
        sent += written;
        if (written < n) {
            CHECK_OK(wp_stream_wait_for_room(stream, FOREVER)); /* a lost wake-up would hang here */
        }
    }
    free(bytes);
}

/* Also lets the writer starve for a while, at the beginning and now and then. */
static void read_message(struct dice *dice)
{
    for (uint64_t got = 0; got < MESSAGE;) {
        if (got == 0 || (got < MESSAGE / 2 && roll(dice, 16) == 0)) {
            AWAIT(wp_load_seq_cst(&stream->starved) == 1 || available() == MESSAGE - got);
        }
        size_t n = available();
        if (n == 0) {
            sched_yield();
            continue;
        }
        size_t most = 1 + roll(dice, 256 * 1024);
        n = n < most ? n : most;
        read_bytes(n, 8, got);
        got += n;
    }
    CHECK_EQ(available(), 0);
}

static void *writer_thread(void *unused)
{
    struct dice dice = new_dice(10);
    write_message(&dice);
    return unused;
}

static void test_long_message_threads(void)
{
    struct dice dice = new_dice(11);
    pthread_t thread;
    set_up();
    CHECK_OK(pthread_create(&thread, NULL, writer_thread, NULL));
    read_message(&dice);
    pthread_join(thread, NULL);
    tear_down();
}

static void test_long_message_processes(void)
{
    struct dice dice = new_dice(12);
    set_up();
    fflush(NULL);
    pid_t pid = fork();
    CHECK_SYS(pid);
    if (pid == 0) {
        struct dice writers = new_dice(13);
        write_message(&writers);
        _exit(0);
    }
    read_message(&dice);
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    tear_down();
}

/* ---- a worker that scribbles: the pool breaks with a clear error, and the parent stays whole ---- */

static weirpool *pool;
static struct hand hand;

static struct wp_stream *scribble_begin(void)
{
    struct weirpool_options options = {.size = sizeof options, .workers = 1, .bound = 4};
    CHECK_OK(weirpool_open(&pool, &options));
    hand_open(&hand, pool);
    CHECK_OK(weirpool_submit(pool, "task", 4, NULL, WEIRPOOL_NOW, NULL));
    CHECK_OK(weirpool_submit(pool, "next", 4, NULL, WEIRPOOL_NOW, NULL));
    hand_claim(&hand);
    return &pool->segment.streams[hand.number];
}

static void ask_for_draining(void)
{
    wp_fetch_or_seq_cst(&pool->segment.header->streaming[hand.number / 64], UINT64_C(1) << (hand.number % 64));
}

static void say_done(uint64_t result_size)
{
    wp_slot_at(&pool->segment, 0)->result_size = result_size;
    wp_table_finish(&pool->segment, hand.number, 0);
}

/* Both tasks end with -EPIPE, and the pool says that it is broken. */
static void scribble_end(void)
{
    for (int i = 0; i < 2; i++) {
        struct weirpool_completion completion;
        CHECK_OK(weirpool_next(pool, &completion, weirpool_deadline(PATIENCE_NS)));
        CHECK_RC(completion.error, -EPIPE);
        CHECK_EQ(completion.result_size, 0);
        weirpool_release(pool, completion.task);
    }
    struct weirpool_completion none;
    CHECK_RC(weirpool_next(pool, &none, WEIRPOOL_FOREVER), -EPIPE);
    CHECK_EQ(outstanding(pool), 0);
    check_pool(pool);
    hand_close(&hand);
    CHECK_OK(weirpool_close(pool));
}

static void send_head(struct wp_stream *ring, uint64_t position, uint64_t size)
{
    struct wp_stream_head head = {.position = position, .size = size};
    CHECK_EQ(wp_stream_write(ring, &head, sizeof head), sizeof head);
}

static void test_scribbled_counter(void)
{
    struct wp_stream *ring = scribble_begin();
    wp_store_seq_cst(&ring->written, RING + 1);
    ask_for_draining();
    scribble_end();
}

static void test_scribbled_counter_goes_back(void)
{
    struct wp_stream *ring = scribble_begin();
    send_head(ring, 0, 100000);
    ask_for_draining();
    struct weirpool_completion none;
    CHECK_RC(weirpool_next(pool, &none, WEIRPOOL_NOW), -EAGAIN); /* the head was read */
    wp_store_seq_cst(&ring->written, 0);
    ask_for_draining();
    scribble_end();
}

static void send_wrong_head(uint64_t position, uint64_t size)
{
    struct wp_stream *ring = scribble_begin();
    send_head(ring, position, size);
    ask_for_draining();
    scribble_end();
}

static void test_wrong_heads(void)
{
    send_wrong_head(1, 100000);                /* a task that is queued */
    send_wrong_head(2, 100000);                /* no task */
    send_wrong_head(WP_MIN_SLOTS, 100000);     /* the slot, but not the position */
    send_wrong_head(UINT64_MAX, 100000);
    send_wrong_head(0, WP_INLINE_RESULT);      /* would have fitted the slot */
    send_wrong_head(0, 0);
}

static void test_second_head_for_a_task(void)
{
    struct wp_stream *ring = scribble_begin();
    static const unsigned char body[300];
    send_head(ring, 0, sizeof body);
    CHECK_EQ(wp_stream_write(ring, body, sizeof body), sizeof body);
    send_head(ring, 0, sizeof body);
    ask_for_draining();
    scribble_end();
}

static void test_done_before_the_body_is_there(void)
{
    struct wp_stream *ring = scribble_begin();
    send_head(ring, 0, 100000);
    CHECK_EQ(wp_stream_write(ring, buffer = calloc(1, 5000), 5000), 5000);
    free(buffer);
    say_done(100000);
    scribble_end();
}

static void test_done_without_any_body(void)
{
    scribble_begin();
    say_done(100000);
    scribble_end();
}

static void test_done_inline_after_a_head(void)
{
    struct wp_stream *ring = scribble_begin();
    send_head(ring, 0, 100000);
    ask_for_draining();
    struct weirpool_completion none;
    CHECK_RC(weirpool_next(pool, &none, WEIRPOOL_NOW), -EAGAIN);
    say_done(1);
    scribble_end();
}

static void test_done_by_a_worker_that_does_not_exist(void)
{
    scribble_begin();
    wp_store_seq_cst(&wp_slot_at(&pool->segment, 0)->state, wp_state(0, 1, WP_DONE));
    wp_fetch_or_seq_cst(&pool->segment.done[0], 1);
    scribble_end();
}

/* Bits that say nothing true cost a look, and no more. */
static void test_wrong_bits_are_harmless(void)
{
    scribble_begin();
    ask_for_draining();
    for (uint32_t word = 0; word < WP_MIN_SLOTS / 64; word++) {
        wp_fetch_or_seq_cst(&pool->segment.done[word], UINT64_MAX);
    }
    for (uint32_t word = 0; word < WP_WORKER_WORDS; word++) {
        wp_fetch_or_seq_cst(&pool->segment.header->streaming[word], UINT64_MAX);
        wp_fetch_or_seq_cst(&pool->segment.header->parked[word], UINT64_MAX);
    }
    struct weirpool_completion completion;
    CHECK_RC(weirpool_next(pool, &completion, WEIRPOOL_NOW), -EAGAIN);
    hand_finish(&hand, "", 0);
    CHECK_OK(weirpool_next(pool, &completion, WEIRPOOL_NOW));
    CHECK_OK(completion.error);
    weirpool_release(pool, completion.task);
    CHECK_OK(weirpool_break(pool));
    CHECK_OK(weirpool_next(pool, &completion, WEIRPOOL_NOW));
    weirpool_release(pool, completion.task);
    check_pool(pool);
    hand_close(&hand);
    CHECK_OK(weirpool_close(pool));
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN(test_fragments);
    RUN(test_full_ring);
    RUN(test_discarding);
    RUN(test_wrap_around);
    RUN(test_corrupt_counters);
    RUN(test_wait_for_room);
    RUN(test_starved_writer_is_woken);
    RUN(test_wait_interrupted);
    RUN(test_long_message_threads);
    RUN_UNLESS_TSAN(test_long_message_processes);
    RUN(test_scribbled_counter);
    RUN(test_scribbled_counter_goes_back);
    RUN(test_wrong_heads);
    RUN(test_second_head_for_a_task);
    RUN(test_done_before_the_body_is_there);
    RUN(test_done_without_any_body);
    RUN(test_done_inline_after_a_head);
    RUN(test_done_by_a_worker_that_does_not_exist);
    RUN(test_wrong_bits_are_harmless);
    return check_end();
}
