/* The bound that finds itself, fed with measurements. */
#include "adapt.h"
#include "check.h"

#define MS UINT64_C(1000000)
#define WORKERS 8u

static struct wp_adapt adapt;

/* A hundred tasks; the workers were dry for so many per mille of the time that they were busy. */
static uint64_t step(uint64_t run_ms, uint64_t dry_per_mille, uint64_t slack)
{
    uint64_t busy = 100 * run_ms * MS;
    struct wp_measure measure = {
        .tasks = 100, .busy_ns = busy, .dry_ns = busy / 1000 * dry_per_mille, .slack = slack, .contended = true};
    wp_adapt_step(&adapt, &measure);
    return adapt.bound;
}

static void repeat(int times, uint64_t run_ms, uint64_t dry_per_mille, uint64_t slack)
{
    for (int i = 0; i < times; i++) {
        step(run_ms, dry_per_mille, slack);
    }
}

static void test_it_begins_with_two_a_worker(void)
{
    wp_adapt_init(&adapt, WORKERS);
    CHECK_EQ(adapt.bound, 16);
}

static void test_dry_workers_raise_it_to_the_top(void)
{
    wp_adapt_init(&adapt, WORKERS);
    CHECK_EQ(step(20, 50, 0), 24);
    repeat(10, 20, 50, 0);
    CHECK_EQ(adapt.bound, 32);
    repeat(10, 1, 50, 0);
    CHECK_EQ(adapt.bound, 64);
}

static void test_longer_tasks_have_a_lower_top(void)
{
    wp_adapt_init(&adapt, WORKERS);
    repeat(10, 1, 50, 0);
    CHECK_EQ(step(1000, 0, 0), 32);
}

static void test_a_long_lag_raises_it_at_once(void)
{
    wp_adapt_init(&adapt, WORKERS);
    adapt.bound = 9;
    CHECK_EQ(step(20, 1000, 0), 17);
}

static void test_what_is_never_needed_goes_slowly(void)
{
    wp_adapt_init(&adapt, WORKERS);
    CHECK_EQ(step(1000, 0, 7), 16); /* the first calm step is not enough */
    CHECK_EQ(step(1000, 0, 7), 12);
    repeat(100, 1000, 0, 1);
    CHECK_EQ(adapt.bound, 9);
}

static void test_it_stays_between_the_thresholds(void)
{
    wp_adapt_init(&adapt, WORKERS);
    repeat(100, 20, 5, 7);
    CHECK_EQ(adapt.bound, 16);
}

static void test_it_stays_where_nobody_is_blocked(void)
{
    wp_adapt_init(&adapt, WORKERS);
    for (int i = 0; i < 100; i++) {
        wp_adapt_step(&adapt, &(struct wp_measure){.tasks = 10, .busy_ns = MS, .dry_ns = i % 2 * MS, .slack = 5});
    }
    CHECK_EQ(adapt.bound, 16);
}

static void test_a_lowering_that_was_wrong_is_not_soon_tried_again(void)
{
    wp_adapt_init(&adapt, WORKERS);
    int lowered = 0;
    for (int i = 0; i < 1000; i++) { /* 16 are needed, and look as if they were one too many */
        uint64_t before = adapt.bound;
        lowered += step(20, before < 16 ? 20 : 0, before < 16 ? 0 : 1) < before;
    }
    CHECK(lowered >= 1 && lowered <= 40);
}

static void test_other_tasks_are_learned_anew(void)
{
    wp_adapt_init(&adapt, WORKERS);
    step(20, 0, 0);
    adapt.patience = 64;
    step(200, 0, 7);
    CHECK_EQ(step(200, 0, 7), 12);
}

static void test_nothing_leads_out_of_the_range(void)
{
    struct dice dice = new_dice(0);
    for (int i = 0; i < SCALED(200000); i++) {
        if (i % 1000 == 0) {
            wp_adapt_init(&adapt, 1 + (uint32_t)roll(&dice, 4096));
        }
        uint64_t tasks = 1 + roll(&dice, 1000);
        struct wp_measure measure = {.tasks = tasks,
                                     .busy_ns = roll(&dice, UINT64_C(1) << roll(&dice, 60)),
                                     .dry_ns = roll(&dice, UINT64_C(1) << roll(&dice, 60)),
                                     .slack = roll(&dice, UINT64_C(1) << roll(&dice, 20)),
                                     .contended = roll(&dice, 4) > 0};
        wp_adapt_step(&adapt, &measure);
        bool is_short = measure.busy_ns / tasks < 10 * MS;
        CHECK(adapt.bound >= (uint64_t)adapt.workers + 1 || adapt.workers == 0);
        CHECK(adapt.bound <= (uint64_t)adapt.workers * (is_short ? 8 : 4));
    }
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN(test_it_begins_with_two_a_worker);
    RUN(test_dry_workers_raise_it_to_the_top);
    RUN(test_longer_tasks_have_a_lower_top);
    RUN(test_a_long_lag_raises_it_at_once);
    RUN(test_what_is_never_needed_goes_slowly);
    RUN(test_it_stays_between_the_thresholds);
    RUN(test_it_stays_where_nobody_is_blocked);
    RUN(test_a_lowering_that_was_wrong_is_not_soon_tried_again);
    RUN(test_other_tasks_are_learned_anew);
    RUN(test_nothing_leads_out_of_the_range);
    return check_end();
}
