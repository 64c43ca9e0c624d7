/* The gate alone: who gets in, in which order, and how a wait for it ends. */
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>

#include "check.h"
#include "weirpool_worker.h"

#define PRODUCERS 8

static weirpool_gate *gate;

static struct weirpool_stats stats(void)
{
    struct weirpool_stats now;
    CHECK_OK(weirpool_gate_stats(gate, &now));
    return now;
}

static int admit_now(void)
{
    return weirpool_gate_admit(gate, WEIRPOOL_IN_BOUND, WEIRPOOL_NOW);
}

static void open_gate(uint64_t tasks, uint64_t unstarted)
{
    CHECK_OK(weirpool_gate_open(&gate, tasks, unstarted));
}

static void close_gate(void)
{
    CHECK_EQ(stats().outstanding, 0);
    CHECK_EQ(stats().waiting, 0);
    CHECK_EQ(stats().blocked_producers, 0);
    CHECK_OK(weirpool_gate_close(gate));
}

static void test_bound_on_tasks(void)
{
    open_gate(2, 0);
    CHECK_OK(admit_now());
    CHECK_OK(admit_now());
    CHECK_RC(admit_now(), -EAGAIN);
    CHECK_OK(weirpool_gate_start(gate));
    CHECK_RC(admit_now(), -EAGAIN);
    CHECK_OK(weirpool_gate_return(gate, true));
    CHECK_OK(admit_now());
    CHECK_OK(weirpool_gate_return(gate, false));
    CHECK_OK(weirpool_gate_return(gate, false));
    CHECK_EQ(stats().peak_outstanding, 2);
    close_gate();
}

static void test_bound_on_unstarted(void)
{
    open_gate(0, 1);
    CHECK_OK(admit_now());
    CHECK_RC(admit_now(), -EAGAIN);
    CHECK_OK(weirpool_gate_start(gate));
    CHECK_OK(admit_now());
    CHECK_EQ(stats().running, 1);
    CHECK_EQ(stats().waiting, 1);
    CHECK_OK(weirpool_gate_return(gate, false));
    CHECK_OK(weirpool_gate_return(gate, true));
    close_gate();
}

static void test_over_the_bound(void)
{
    open_gate(1, 1);
    for (int i = 0; i < 5; i++) {
        CHECK_OK(weirpool_gate_admit(gate, WEIRPOOL_OVER_BOUND, WEIRPOOL_NOW));
    }
    CHECK_EQ(stats().admitted_over_bound, 4);
    for (int i = 0; i < 5; i++) {
        CHECK_RC(admit_now(), -EAGAIN);
        CHECK_OK(weirpool_gate_return(gate, false));
    }
    close_gate();
}

static void test_times_out(void)
{
    open_gate(1, 0);
    CHECK_OK(admit_now());
    CHECK_RC(weirpool_gate_admit(gate, WEIRPOOL_IN_BOUND, check_now() + 1000000), -ETIMEDOUT);
    CHECK_EQ(stats().blocked_producers, 0);
    CHECK(stats().blocked_ns >= 1000000);
    CHECK_OK(weirpool_gate_return(gate, false));
    close_gate();
}

struct producer {
    pthread_t thread;
    int number;
    int rc;
};

static int order[PRODUCERS];
static _Atomic int admitted;

static void *produce(void *arg)
{
    struct producer *me = arg;
    me->rc = weirpool_gate_admit(gate, WEIRPOOL_IN_BOUND, WEIRPOOL_FOREVER);
    if (me->rc == 0) {
        order[admitted] = me->number; /* one at a time: the bound is 1 */
        admitted++;
    }
    return NULL;
}

/* One after the other, so that their order in line is known. */
static void start_producers(struct producer *producers)
{
    admitted = 0;
    for (int i = 0; i < PRODUCERS; i++) {
        producers[i].number = i;
        CHECK_OK(pthread_create(&producers[i].thread, NULL, produce, &producers[i]));
        AWAIT(stats().blocked_producers == (uint64_t)i + 1);
    }
}

static void join_producers(const struct producer *producers, int rc)
{
    for (int i = 0; i < PRODUCERS; i++) {
        CHECK_OK(pthread_join(producers[i].thread, NULL));
        CHECK_RC(producers[i].rc, rc);
    }
}

static void test_first_come_first_served(void)
{
    struct producer producers[PRODUCERS];
    open_gate(1, 0);
    CHECK_OK(admit_now());
    start_producers(producers);
    for (int i = 0; i < PRODUCERS; i++) {
        CHECK_OK(weirpool_gate_return(gate, false));
        AWAIT(admitted == i + 1);
        CHECK_EQ(order[i], i);
    }
    join_producers(producers, 0);
    CHECK_OK(weirpool_gate_return(gate, false));
    close_gate();
}

static void test_shutting_wakes_everybody(void)
{
    struct producer producers[PRODUCERS];
    open_gate(1, 0);
    CHECK_OK(admit_now());
    start_producers(producers);
    CHECK_OK(weirpool_gate_shut(gate));
    join_producers(producers, -ESHUTDOWN);
    CHECK_RC(admit_now(), -ESHUTDOWN);
    CHECK_RC(weirpool_gate_admit(gate, WEIRPOOL_OVER_BOUND, WEIRPOOL_NOW), -ESHUTDOWN);
    weirpool_ticket *ticket;
    CHECK_RC(weirpool_gate_queue(gate, 0, &ticket), -ESHUTDOWN);
    CHECK_OK(weirpool_gate_return(gate, false));
    close_gate();
}

static void test_a_ticket_rings_and_is_left(void)
{
    uint64_t rings;
    int bell = eventfd(0, EFD_NONBLOCK);
    weirpool_ticket *first, *second;
    open_gate(1, 0);
    CHECK_OK(admit_now());
    CHECK_OK(weirpool_gate_queue(gate, 0, &first));
    CHECK_OK(weirpool_gate_queue(gate, bell, &second));
    CHECK_RC(weirpool_gate_await(gate, second, WEIRPOOL_NOW), -EAGAIN);
    CHECK_OK(weirpool_gate_leave(gate, first));
    CHECK_EQ(read(bell, &rings, sizeof rings), -1);
    CHECK_OK(weirpool_gate_return(gate, false));
    CHECK_EQ(read(bell, &rings, sizeof rings), sizeof rings);
    CHECK_OK(weirpool_gate_await(gate, second, WEIRPOOL_NOW));
    CHECK_OK(weirpool_gate_queue(gate, bell, &first));
    CHECK_OK(weirpool_gate_return(gate, false));
    CHECK_RC(weirpool_gate_leave(gate, first), 1); /* its turn had come */
    CHECK_OK(weirpool_gate_return(gate, false));
    close_gate();
    close(bell);
}

static void ignore(int number)
{
    (void)number;
}

static void *interrupt(void *thread)
{
    AWAIT(stats().blocked_producers == 1);
    while (stats().blocked_producers == 1) { /* until a signal has met it asleep */
        CHECK_OK(pthread_kill(*(pthread_t *)thread, SIGUSR1));
        check_nap();
    }
    return NULL;
}

static void test_a_signal_gives_the_place_up(void)
{
    pthread_t me = pthread_self(), other;
    CHECK_SYS(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = ignore}, NULL));
    open_gate(1, 0);
    CHECK_OK(admit_now());
    CHECK_OK(pthread_create(&other, NULL, interrupt, &me));
    CHECK_RC(weirpool_gate_admit(gate, WEIRPOOL_IN_BOUND, WEIRPOOL_FOREVER), -EINTR);
    CHECK_OK(pthread_join(other, NULL));
    CHECK_OK(weirpool_gate_return(gate, false));
    close_gate();
}

static void test_a_fork_is_refused(void)
{
    open_gate(1, 0);
    pid_t child = fork();
    CHECK_SYS(child);
    if (child == 0) {
        weirpool_ticket *ticket;
        struct weirpool_stats now;
        CHECK_RC(admit_now(), -ECHILD);
        CHECK_RC(weirpool_gate_queue(gate, 0, &ticket), -ECHILD);
        CHECK_RC(weirpool_gate_return(gate, false), -ECHILD);
        CHECK_RC(weirpool_gate_shut(gate), -ECHILD);
        CHECK_RC(weirpool_gate_stats(gate, &now), -ECHILD);
        CHECK_RC(weirpool_gate_close(gate), -ECHILD);
        _exit(0);
    }
    int status;
    CHECK_SYS(waitpid(child, &status, 0));
    CHECK_EQ(status, 0);
    close_gate();
}

static void *hurry(void *arg)
{
    int *done = arg;
    for (; *done < SCALED(4000); (*done)++) {
        CHECK_OK(weirpool_gate_admit(gate, WEIRPOOL_IN_BOUND, WEIRPOOL_FOREVER));
        bool start = *done % 2 == 0;
        CHECK(stats().outstanding <= 3);
        if (start) {
            CHECK_OK(weirpool_gate_start(gate));
        }
        CHECK_OK(weirpool_gate_return(gate, start));
    }
    return NULL;
}

static void test_nothing_is_lost_under_load(void)
{
    pthread_t threads[PRODUCERS];
    int done[PRODUCERS] = {0};
    open_gate(3, 2);
    for (int i = 0; i < PRODUCERS; i++) {
        CHECK_OK(pthread_create(&threads[i], NULL, hurry, &done[i]));
    }
    for (int i = 0; i < PRODUCERS; i++) {
        CHECK_OK(pthread_join(threads[i], NULL));
    }
    close_gate();
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN(test_bound_on_tasks);
    RUN(test_bound_on_unstarted);
    RUN(test_over_the_bound);
    RUN(test_times_out);
    RUN(test_first_come_first_served);
    RUN(test_shutting_wakes_everybody);
    RUN(test_a_ticket_rings_and_is_left);
    RUN(test_a_signal_gives_the_place_up);
    RUN(test_a_fork_is_refused);
    RUN(test_nothing_is_lost_under_load);
    return check_end();
}
