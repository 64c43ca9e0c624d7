/*
 * A pool among broken workers, all at once: producers that wait for room, wait for results and cancel, a collector, a
 * thread that asks, honest workers, and one that writes anywhere into the shared memory while any of them is about to
 * use what it has just looked at. Whatever was written: after a shutdown and a break every thread comes back, each task
 * has ended once and every permit is there.
 */
#include "../fuzz/fast_os.h"

#include "../fuzz/scribble.h"
#include "workers.h"

#define ROUNDS 60
#define PRODUCERS 3
#define MOST_TASKS 400 /* of a producer */
#define MOST_WORKERS 3

struct errand {
    weirpool_task *task;
    _Atomic uint32_t ends;
};

struct producer {
    pthread_t thread;
    struct dice dice;
    uint32_t given;
    struct errand errands[MOST_TASKS];
};

static weirpool *pool;
static struct producer producers[PRODUCERS];
static struct hand hands[MOST_WORKERS];
static _Atomic bool over; /* for those who only look, or scribble */
static uint64_t round_number;
static uint64_t most_broken;

static void note_end(weirpool_task *task, int error)
{
    struct weirpool_completion end;
    weirpool_describe(task, &end);
    CHECK(end.error == 0 || end.error == -EOWNERDEAD || end.error == -EPIPE || end.error == -ECANCELED ||
          end.error == -ENOMEM);
    CHECK(error == 0 || end.error == error);
    volatile unsigned char last = end.result != NULL ? ((const unsigned char *)end.result)[end.result_size - 1] : 0;
    (void)last;
    CHECK_EQ(atomic_fetch_add(&((struct errand *)end.user)->ends, 1), 0);
    weirpool_told(pool, task);
}

/* ---- the program's threads ---- */

static bool is_over(int rc)
{
    CHECK(rc == 0 || rc == -EAGAIN || rc == -ETIMEDOUT || rc == -ESHUTDOWN || rc == -EPIPE || rc == -EMSGSIZE ||
          rc == -ENOMEM);
    return rc == -ESHUTDOWN || rc == -EPIPE;
}

static int submit(struct producer *me, struct errand *errand)
{
    static const unsigned char payload[40000];
    size_t size = roll(&me->dice, 4) == 0 ? roll(&me->dice, sizeof payload) : roll(&me->dice, 300);
    int64_t deadline = roll(&me->dice, 8) == 0 ? WEIRPOOL_NOW : WEIRPOOL_FOREVER;
    return weirpool_submit(pool, payload, size, errand, deadline, &errand->task);
}

static void ask(struct producer *me, const struct errand *errand)
{
    switch (roll(&me->dice, 6)) {
    case 0:
        CHECK_OK(weirpool_wait(pool, errand->task, WEIRPOOL_FOREVER));
        break;
    case 1:
        (void)weirpool_wait(pool, errand->task, weirpool_deadline((int64_t)roll(&me->dice, 1000000000)));
        break;
    case 2:
        (void)weirpool_cancel(pool, errand->task);
        break;
    case 3:
        if (weirpool_withdraw(pool, errand->task) == 0) {
            note_end(errand->task, -ECANCELED);
        }
        break;
    case 4:
        (void)weirpool_phase(pool, errand->task);
        break;
    default:
        (void)weirpool_interest(errand->task, (unsigned)roll(&me->dice, 4));
    }
}

static void *produce(void *argument)
{
    struct producer *me = argument;
    int rc = 0;
    while (me->given < MOST_TASKS && !is_over(rc)) {
        struct errand *errand = &me->errands[me->given];
        rc = submit(me, errand);
        if (rc == 0) {
            me->given++;
            ask(me, &me->errands[roll(&me->dice, me->given)]);
        }
    }
    return NULL;
}

static void *collect(void *unused)
{
    (void)unused;
    struct weirpool_event event = {.kind = WEIRPOOL_NOTHING};
    while (event.kind != WEIRPOOL_BROKE && event.kind != WEIRPOOL_DRAINED) {
        weirpool_task *tasks[16];
        int n = weirpool_collect(pool, tasks, 16, &event, WEIRPOOL_FOREVER);
        CHECK(n >= 0);
        for (int i = 0; i < n; i++) {
            note_end(tasks[i], 0);
        }
        if (event.kind == WEIRPOOL_WORKER_LEFT) {
            weirpool_worker_vacate(pool, event.worker);
        }
    }
    return NULL;
}

static void *look_on(void *unused)
{
    (void)unused;
    while (!atomic_load(&over)) {
        struct weirpool_stats stats;
        struct weirpool_worker_stats workers[MOST_WORKERS];
        CHECK_OK(weirpool_stats(pool, &stats));
        CHECK_EQ(stats.waiting + stats.running, stats.outstanding);
        CHECK(weirpool_workers(pool, workers, MOST_WORKERS) >= 0);
        (void)weirpool_check(pool, NULL, 0);
        check_nap();
    }
    return NULL;
}

/* ---- the workers ---- */

static int answer(const void *payload, size_t size, weirpool_reply *reply, void *context)
{
    static const unsigned char result[300000];
    (void)context;
    size_t room = size % 16 == 0 ? sizeof result : 300;
    uint64_t sum = size;
    for (size_t i = 0; i < size; i++) {
        sum += ((const unsigned char *)payload)[i];
    }
    (void)weirpool_answer(reply, result, sum * 31 % room);
    return (int)(sum % 2);
}

static void *scribble_along(void *unused)
{
    (void)unused;
    struct dice dice = new_dice(round_number << 8 | 255);
    uint64_t pause = roll(&dice, UINT64_C(1) << roll(&dice, 23)); /* between steps: from none to some milliseconds */
    while (!atomic_load(&over)) {
        uint8_t bytes[80];
        for (size_t i = 0; i < sizeof bytes; i++) {
            bytes[i] = (uint8_t)roll(&dice, 256);
        }
        struct script script = {.at = bytes, .end = bytes + sizeof bytes};
        scribble(pool, &script);
        for (volatile uint64_t i = 0; i < pause; i++) {
        }
    }
    return NULL;
}

/* ---- a round ---- */

static void open_pool(struct dice *dice)
{
    struct weirpool_options options = {
        .size = sizeof options,
        .workers = MOST_WORKERS,
        .bound = roll(dice, 3) == 0 ? 0 : 1 + roll(dice, 32),
        .max_unstarted = roll(dice, 3) == 0 ? 1 + roll(dice, 4) : 0,
        .max_bytes = roll(dice, 3) == 0 ? 1 + roll(dice, 65536) : 0,
        .arena_bytes = 131072,
    };
    options.adaptive = options.bound == 0 && roll(dice, 2) == 0;
    CHECK_OK(weirpool_open(&pool, &options));
    for (uint32_t i = 0; i < MOST_WORKERS; i++) {
        hand_open(&hands[i], pool);
        hands[i].handler = answer;
        CHECK_OK(pthread_create(&hands[i].thread, NULL, hand_serve, &hands[i]));
    }
}

static void join(pthread_t thread, const char *who)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_NS / 1000000000;
    if (pthread_timedjoin_np(thread, NULL, &until) != 0) {
        check_failed(__FILE__, __LINE__, who, "is stuck in the core");
    }
}

/* Honest ones leave when they are told to, whatever somebody wrote over that; a program would kill them. */
static void end_workers(void)
{
    for (uint32_t i = 0; i < MOST_WORKERS; i++) {
        while (!atomic_load(&hands[i].gone)) {
            wp_store_seq_cst(&pool->segment.header->stop, WP_HALT);
            wp_wake_all(&pool->segment);
            check_nap();
        }
        join(hands[i].thread, "a worker");
        hand_close(&hands[i]);
    }
}

static void count_ends(void)
{
    for (uint32_t p = 0; p < PRODUCERS; p++) {
        for (uint32_t i = 0; i < producers[p].given; i++) {
            CHECK_EQ(atomic_load(&producers[p].errands[i].ends), 1);
            weirpool_release(pool, producers[p].errands[i].task);
        }
    }
}

static void check_books(void)
{
    struct weirpool_stats stats;
    check_pool(pool);
    CHECK_OK(weirpool_stats(pool, &stats));
    CHECK_EQ(stats.outstanding, 0);
    CHECK_EQ(stats.blocked_producers, 0);
}

static void play_round(void)
{
    struct dice dice = new_dice(round_number << 8);
    pthread_t collector, observer, scribbler;
    atomic_store(&over, false);
    open_pool(&dice);
    CHECK_OK(pthread_create(&collector, NULL, collect, NULL));
    CHECK_OK(pthread_create(&observer, NULL, look_on, NULL));
    for (uint32_t p = 0; p < PRODUCERS; p++) {
        memset(&producers[p], 0, sizeof producers[p]);
        producers[p].dice = new_dice(round_number << 8 | (p + 1));
        CHECK_OK(pthread_create(&producers[p].thread, NULL, produce, &producers[p]));
    }
    CHECK_OK(pthread_create(&scribbler, NULL, scribble_along, NULL));
    for (uint64_t naps = roll(&dice, 100); naps > 0; naps--) {
        check_nap();
    }
    CHECK_OK(weirpool_shutdown(pool));
    for (uint64_t naps = roll(&dice, 50); naps > 0; naps--) {
        check_nap();
    }
    most_broken += weirpool_break(pool) == -EALREADY;
    for (uint32_t p = 0; p < PRODUCERS; p++) {
        join(producers[p].thread, "a producer");
    }
    join(collector, "the collector");
    atomic_store(&over, true);
    join(observer, "the observer");
    join(scribbler, "the scribbler");
    check_books();
    count_ends();
    end_workers();
    CHECK_OK(weirpool_close(pool));
}

static void test_scribbling_while_all_work(void)
{
    for (round_number = 0; round_number < SCALED(ROUNDS) + 8; round_number++) {
        play_round();
    }
    printf("    %" PRIu64 " of %" PRIu64 " pools were found corrupt\n", most_broken, round_number);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    if (UNDER_TSAN) {
        printf("what is looked at here are races\n");
        return 77;
    }
    RUN(test_scribbling_while_all_work);
    return check_end();
}
