/* What a pool measures: percentiles, the last seconds, and that no worker can put nonsense into either. */
#include "check.h"
#include "histogram.h"
#include "recent.h"
#include "workers.h"

#define SECOND INT64_C(1000000000)

/* ---- durations ---- */

static struct wp_histogram histogram;

static void check_near(uint64_t value, double wanted)
{
    CHECK((double)value > wanted * 0.96 && (double)value < wanted * 1.04);
}

static void test_percentiles_of_even_numbers(void)
{
    histogram = (struct wp_histogram){0};
    for (int64_t us = 1; us <= 10000; us++) {
        wp_histogram_add(&histogram, us * 1000);
    }
    CHECK_EQ(histogram.count, 10000);
    CHECK_EQ(histogram.sum_ns, UINT64_C(50005000) * 1000);
    check_near(wp_histogram_quantile(&histogram, 0.50), 5000e3);
    check_near(wp_histogram_quantile(&histogram, 0.95), 9500e3);
    check_near(wp_histogram_quantile(&histogram, 0.99), 9900e3);
}

static void test_every_duration_is_found_again(void)
{
    for (int64_t ns = 64; ns < 20 * 3600 * SECOND; ns += ns / 7 + 1) {
        histogram = (struct wp_histogram){0};
        wp_histogram_add(&histogram, ns);
        check_near(wp_histogram_quantile(&histogram, 0.5), (double)ns);
    }
}

static void test_extremes_stay_inside(void)
{
    histogram = (struct wp_histogram){0};
    CHECK_EQ(wp_histogram_quantile(&histogram, 0.5), 0);
    wp_histogram_add(&histogram, 0);
    CHECK_EQ(wp_histogram_quantile(&histogram, 1.0), 0);
    wp_histogram_add(&histogram, INT64_MAX);
    CHECK_EQ(histogram.bucket[WP_BUCKETS - 1], 1);
    CHECK(wp_histogram_quantile(&histogram, 1.0) > (uint64_t)(10 * 3600 * SECOND));
}

/* ---- the last seconds ---- */

static void test_a_long_task_counts_where_it_ran(void)
{
    struct wp_recent recent;
    int64_t begin = 1000 * SECOND;
    wp_recent_init(&recent, begin);
    wp_recent_lived(&recent, 2, begin + 4 * SECOND);
    wp_recent_ran(&recent, begin + SECOND, begin + 4 * SECOND);
    struct wp_recent_sum sum = wp_recent_sum(&recent, begin + 4 * SECOND);
    CHECK_EQ(sum.live_ns, 8 * SECOND);
    CHECK_EQ(sum.busy_ns, 3 * SECOND);
    CHECK_EQ(sum.tasks, 1);
    CHECK_EQ(sum.since, begin);
}

static void test_what_is_long_ago_is_forgotten(void)
{
    struct wp_recent recent;
    wp_recent_init(&recent, SECOND);
    wp_recent_ran(&recent, SECOND, 2 * SECOND);
    struct wp_recent_sum sum = wp_recent_sum(&recent, 60 * SECOND);
    CHECK_EQ(sum.tasks, 0);
    CHECK_EQ(sum.busy_ns, 0);
    wp_recent_ran(&recent, 0, 1000 * SECOND);
    sum = wp_recent_sum(&recent, 1000 * SECOND);
    CHECK_EQ(sum.tasks, 1);
    CHECK(sum.busy_ns <= 11 * (uint64_t)SECOND);
}

/* ---- a pool ---- */

static weirpool *pool;
static struct hand hand;

static void set_up(void)
{
    struct weirpool_options options = {.size = sizeof options, .workers = 1, .bound = 4};
    CHECK_OK(weirpool_open(&pool, &options));
    hand_open(&hand, pool);
}

static void tear_down(void)
{
    check_pool(pool);
    hand_close(&hand);
    CHECK_OK(weirpool_close(pool));
}

static struct weirpool_stats stats(void)
{
    struct weirpool_stats now;
    CHECK_OK(weirpool_stats(pool, &now));
    return now;
}

static void submit(void)
{
    CHECK_OK(weirpool_submit(pool, "x", 1, NULL, WEIRPOOL_NOW, NULL));
}

static void fetch(void)
{
    struct weirpool_completion completion;
    CHECK_OK(weirpool_next(pool, &completion, weirpool_deadline(PATIENCE_NS)));
    weirpool_release(pool, completion.task);
}

static void test_each_end_is_counted_once(void)
{
    set_up();
    weirpool_task *task;
    submit();
    submit();
    CHECK_OK(weirpool_submit(pool, "x", 1, NULL, WEIRPOOL_NOW, &task));
    hand_claim(&hand);
    hand_finish(&hand, "", 0);
    hand_claim(&hand);
    CHECK_OK(weirpool_finish(hand.worker, 1, NULL, 0));
    CHECK_OK(weirpool_cancel(pool, task));
    for (int i = 0; i < 3; i++) {
        fetch();
    }
    struct weirpool_stats now = stats();
    CHECK_EQ(now.completed, 1);
    CHECK_EQ(now.failed, 1);
    CHECK_EQ(now.cancelled, 1);
    CHECK_EQ(now.finished, 3);
    CHECK_EQ(now.run.count, 2);
    CHECK_EQ(now.wait.count, 2);
    tear_down();
}

static void test_only_a_refill_has_a_lag(void)
{
    set_up();
    submit();
    submit();
    for (int i = 0; i < 2; i++) { /* the second was queued when the first had finished */
        hand_claim(&hand);
        hand_finish(&hand, "", 0);
        fetch();
    }
    CHECK_EQ(stats().refill_lag.count, 1);
    submit(); /* its worker was free, and nobody had waited */
    hand_claim(&hand);
    hand_finish(&hand, "", 0);
    fetch();
    CHECK_EQ(stats().refill_lag.count, 1);
    tear_down();
}

static void test_what_runs_counts_up_to_now(void)
{
    set_up();
    submit();
    hand_claim(&hand);
    struct weirpool_worker_stats worker;
    CHECK_RC(weirpool_workers(pool, &worker, 1), 1);
    AWAIT(weirpool_workers(pool, &worker, 1) == 1 && worker.busy_ns > 0);
    CHECK_EQ(worker.tasks, 0);
    CHECK(stats().occupancy > 0 && stats().occupancy <= 1);
    hand_finish(&hand, "", 0);
    fetch();
    CHECK_RC(weirpool_workers(pool, &worker, 1), 1);
    CHECK_EQ(worker.tasks, 1);
    CHECK_RC(weirpool_workers(pool, &worker, 0), 0);
    tear_down();
}

/* A worker wrote these times for a task that it has just claimed. Nothing may come out that cannot be. */
static void scribble(uint64_t started, uint64_t finished, uint64_t free_since)
{
    int64_t began = check_now();
    set_up();
    submit();
    hand_claim(&hand);
    hand_finish(&hand, "", 0);
    struct wp_slot *slot = wp_slot_at(&pool->segment, 0);
    wp_store_relaxed(&slot->started, started);
    slot->finished = finished;
    slot->free_since = free_since;
    fetch();
    struct weirpool_stats now = stats();
    uint64_t most = (uint64_t)(check_now() - began);
    CHECK(now.run.sum <= most && now.wait.sum <= most);
    CHECK(now.refill_lag.count == 0 || now.refill_lag.sum <= (uint64_t)check_now());
    CHECK(now.occupancy >= 0 && now.occupancy <= 1);
    struct weirpool_worker_stats worker;
    CHECK_RC(weirpool_workers(pool, &worker, 1), 1);
    CHECK(worker.busy_ns <= most);
    tear_down();
}

static void test_nonsense_from_a_worker_is_not_believed(void)
{
    struct dice dice = new_dice(0);
    uint64_t odd[] = {0, 1, INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX, (uint64_t)check_now() + (1 << 20)};
    for (int i = 0; i < 40; i++) {
        scribble(odd[roll(&dice, 6)], odd[roll(&dice, 6)], odd[roll(&dice, 6)]);
    }
}

static void test_nonsense_of_a_task_that_runs_is_not_believed(void)
{
    uint64_t odd[] = {0, 1, INT64_MAX, UINT64_MAX};
    int64_t began = check_now();
    set_up();
    submit();
    hand_claim(&hand);
    for (int i = 0; i < 4; i++) {
        struct weirpool_worker_stats worker;
        wp_store_relaxed(&wp_slot_at(&pool->segment, 0)->started, odd[i]);
        CHECK_RC(weirpool_workers(pool, &worker, 1), 1);
        CHECK(worker.busy_ns <= (uint64_t)(check_now() - began));
        CHECK(stats().occupancy >= 0 && stats().occupancy <= 1);
    }
    hand_finish(&hand, "", 0);
    fetch();
    tear_down();
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN(test_percentiles_of_even_numbers);
    RUN(test_every_duration_is_found_again);
    RUN(test_extremes_stay_inside);
    RUN(test_a_long_task_counts_where_it_ran);
    RUN(test_what_is_long_ago_is_forgotten);
    RUN(test_each_end_is_counted_once);
    RUN(test_only_a_refill_has_a_lag);
    RUN(test_what_runs_counts_up_to_now);
    RUN(test_nonsense_from_a_worker_is_not_believed);
    RUN(test_nonsense_of_a_task_that_runs_is_not_believed);
    return check_end();
}
