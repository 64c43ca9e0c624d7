/* Spinning before sleeping: it ends with what it waits for or after a moment, and is tried the less the less it pays. */
#include "check.h"
#include "os/os.h"
#include "spin.h"

static bool is_set(const void *what)
{
    return *(const bool *)what;
}

static bool is_third_look(const void *what)
{
    int *looks = (int *)what;
    return ++*looks == 3;
}

static void test_it_ends_when_it_is_over(void)
{
    struct wp_spin spin = {.allowed = true};
    int looks = 0;
    CHECK(wp_spin(&spin, is_third_look, &looks));
    CHECK_EQ(looks, 3);
    CHECK(wp_spin_pays(&spin));
}

static void test_it_ends_after_a_moment(void)
{
    struct wp_spin spin = {.allowed = true};
    bool never = false;
    int64_t began = wp_os_now();
    CHECK(!wp_spin(&spin, is_set, &never));
    CHECK(wp_os_now() - began >= WP_SPIN_NS);
}

static void test_it_is_not_done_without_a_core(void)
{
    struct wp_spin spin = {.allowed = false};
    CHECK(!wp_spin_pays(&spin));
}

/* How many short sleeps does it take until the next try? */
static int sleeps_until_it_pays(struct wp_spin *spin)
{
    int n = 0;
    for (; !wp_spin_pays(spin); n++) {
        CHECK(n < 1000);
        wp_spin_slept(spin, 1000);
    }
    return n;
}

static void test_in_vain_it_is_tried_less_and_less(void)
{
    struct wp_spin spin = {.allowed = true};
    bool over = false;
    int before = 0;
    for (int tries = 0; tries < 5; tries++) {
        CHECK(!wp_spin(&spin, is_set, &over));
        int sleeps = sleeps_until_it_pays(&spin);
        CHECK(sleeps > before);
        before = sleeps;
    }
    for (int tries = 0; tries < 20; tries++) { /* but not for ever less */
        (void)wp_spin(&spin, is_set, &over);
    }
    CHECK(sleeps_until_it_pays(&spin) <= 64);
    over = true; /* and one that pays makes up for all */
    CHECK(wp_spin(&spin, is_set, &over));
    CHECK(wp_spin_pays(&spin));
}

static void test_long_sleeps_say_nothing_for_it(void)
{
    struct wp_spin spin = {.allowed = true};
    bool over = false;
    CHECK(!wp_spin(&spin, is_set, &over));
    for (int sleeps = 0; sleeps < 1000; sleeps++) {
        wp_spin_slept(&spin, INT64_C(10000000));
    }
    CHECK(!wp_spin_pays(&spin));
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN(test_it_ends_when_it_is_over);
    RUN(test_it_ends_after_a_moment);
    RUN(test_it_is_not_done_without_a_core);
    RUN(test_in_vain_it_is_tried_less_and_less);
    RUN(test_long_sleeps_say_nothing_for_it);
    return check_end();
}
