/* Who may attach: the one process that a number was reserved for, once, and not when it was given up meanwhile. */
#include "replace_rig.h"

#include <errno.h>

static uint32_t reserve(uint32_t *badge)
{
    uint32_t number;
    CHECK_OK(weirpool_worker_reserve(rig.pool, &number));
    *badge = weirpool_worker_badge(rig.pool, number);
    return number;
}

static int attach(weirpool_worker **worker, uint32_t badge)
{
    struct weirpool_channel channel;
    weirpool_channel(rig.pool, &channel);
    return weirpool_attach(worker, &channel, badge);
}

static struct wp_record record_of(uint32_t number)
{
    struct wp_record record;
    memcpy(&record, &rig.pool->segment.records[number], sizeof record);
    return record;
}

/* It is turned away, and has written nothing. */
static void expect_closed(uint32_t number, uint32_t badge)
{
    weirpool_worker *worker;
    struct wp_record before = record_of(number);
    CHECK_RC(attach(&worker, badge), -ESTALE);
    struct wp_record after = record_of(number);
    CHECK_EQ(memcmp(&before, &after, sizeof before), 0);
}

static void test_one_process_a_badge(void)
{
    uint32_t badge;
    weirpool_worker *worker;
    set_up_by_hand(2);
    uint32_t number = reserve(&badge);
    CHECK_OK(attach(&worker, badge));
    expect_closed(number, badge);
    weirpool_announce(worker, WEIRPOOL_UP);
    expect_closed(number, badge);
    weirpool_announce(worker, WEIRPOOL_LEAVES);
    expect_closed(number, badge);
    weirpool_detach(worker);
    weirpool_worker_abandon(rig.pool, number);
    tear_down_idle();
}

static void test_a_process_that_comes_after_its_number_was_abandoned(void)
{
    uint32_t late, badge;
    weirpool_worker *worker;
    set_up_by_hand(2);
    uint32_t number = reserve(&late);
    weirpool_worker_abandon(rig.pool, number);
    expect_closed(number, late);
    CHECK_EQ(reserve(&badge), number);
    expect_closed(number, late);
    CHECK_OK(attach(&worker, badge));
    expect_closed(number, late);
    weirpool_announce(worker, WEIRPOOL_UP);
    expect_closed(number, late);
    weirpool_detach(worker);
    weirpool_worker_abandon(rig.pool, number);
    CHECK_EQ(stats().workers, 0);
    tear_down_idle();
}

static void test_badges_that_are_none(void)
{
    uint32_t badge;
    weirpool_worker *worker;
    set_up_by_hand(2);
    uint32_t number = reserve(&badge);
    CHECK_RC(attach(&worker, wp_badge(2, 1)), -EPROTO);
    CHECK_RC(attach(&worker, UINT32_MAX), -EPROTO);
    expect_closed(number, number);
    expect_closed(number, wp_badge(number, 2));
    expect_closed(1, wp_badge(1, 0));
    CHECK_OK(attach(&worker, badge));
    weirpool_detach(worker);
    weirpool_worker_abandon(rig.pool, number);
    tear_down_idle();
}

/* As often as the number can be reserved before badges come again, none of them is like the one before. */
static void test_badges_of_a_number_that_is_reserved_for_ever(void)
{
    uint32_t badge, before = 0;
    set_up_by_hand(2);
    for (int i = 0; i < 70000; i++) {
        uint32_t number = reserve(&badge);
        CHECK_EQ(wp_badge_worker(badge), number);
        CHECK(badge != before);
        before = badge;
        weirpool_worker_abandon(rig.pool, number);
    }
    tear_down_idle();
}

static void test_revoking_turns_away_who_has_not_attached(void)
{
    uint32_t badge;
    set_up_by_hand(2);
    uint32_t number = reserve(&badge);
    CHECK_OK(weirpool_worker_revoke(rig.pool, number));
    expect_closed(number, badge);
    CHECK_RC(weirpool_worker_revoke(rig.pool, number), -EALREADY);
    weirpool_worker_abandon(rig.pool, number);
    tear_down_idle();
}

static void test_revoking_comes_too_late_for_who_has_attached(void)
{
    uint32_t badge;
    weirpool_worker *worker;
    set_up_by_hand(2);
    uint32_t number = reserve(&badge);
    CHECK_OK(attach(&worker, badge));
    CHECK_RC(weirpool_worker_revoke(rig.pool, number), -EALREADY);
    weirpool_announce(worker, WEIRPOOL_UP);
    CHECK_RC(weirpool_worker_revoke(rig.pool, number), -EALREADY);
    weirpool_detach(worker);
    weirpool_worker_abandon(rig.pool, number);
    tear_down_idle();
}

/* However its process ends: nobody waited for it. */
static void test_the_end_of_who_was_revoked_is_no_death(void)
{
    uint32_t badge;
    weirpool_task *task;
    struct weirpool_event event;
    set_up_by_hand(2);
    for (int i = 0; i < 2 * WEIRPOOL_DEATHS_IN_A_ROW; i++) {
        uint32_t number = reserve(&badge);
        int death = eventfd(0, EFD_CLOEXEC);
        CHECK_OK(weirpool_worker_watch(rig.pool, number, death, NO_PROCESS));
        CHECK_OK(weirpool_worker_revoke(rig.pool, number));
        CHECK_SYS(eventfd_write(death, 1));
        CHECK_EQ(weirpool_collect(rig.pool, &task, 1, &event, weirpool_deadline(PATIENCE_NS)), 0);
        CHECK_EQ(event.kind, WEIRPOOL_WORKER_LEFT);
        CHECK_EQ(event.worker, number);
        weirpool_worker_vacate(rig.pool, number);
        close(death);
    }
    CHECK_EQ(stats().workers_died, 0);
    CHECK_EQ(weirpool_fault(rig.pool), WEIRPOOL_FAULT_NONE);
    tear_down_idle();
}

/* ---- both at once ---- */

enum { COMERS = 4, ROUNDS = 100 };

struct comer {
    pthread_t thread;
    pthread_barrier_t *barrier;
    uint32_t badge;
    weirpool_worker *worker;
    int rc;
};

static void *come(void *argument)
{
    struct comer *comer = argument;
    pthread_barrier_wait(comer->barrier);
    comer->rc = attach(&comer->worker, comer->badge);
    return NULL;
}

/* Of many that come with one badge one is let in, or none if it is revoked; never one after that. */
static void test_attaching_while_it_is_revoked(void)
{
    pthread_barrier_t barrier;
    struct comer comers[COMERS];
    set_up_by_hand(2);
    pthread_barrier_init(&barrier, NULL, COMERS + 1);
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t badge;
        uint32_t number = reserve(&badge);
        for (int i = 0; i < COMERS; i++) {
            comers[i] = (struct comer){.barrier = &barrier, .badge = badge};
            CHECK_OK(pthread_create(&comers[i].thread, NULL, come, &comers[i]));
        }
        pthread_barrier_wait(&barrier);
        int revoked = weirpool_worker_revoke(rig.pool, number);
        CHECK(revoked == 0 || revoked == -EALREADY);
        int let_in = 0;
        for (int i = 0; i < COMERS; i++) {
            pthread_join(comers[i].thread, NULL);
            CHECK(comers[i].rc == 0 || comers[i].rc == -ESTALE);
            if (comers[i].rc == 0) {
                let_in++;
                weirpool_detach(comers[i].worker);
            }
        }
        CHECK_EQ(let_in, revoked == 0 ? 0 : 1);
        weirpool_worker_abandon(rig.pool, number);
    }
    pthread_barrier_destroy(&barrier);
    tear_down_idle();
}

int main(void)
{
    RUN(test_one_process_a_badge);
    RUN(test_a_process_that_comes_after_its_number_was_abandoned);
    RUN(test_badges_that_are_none);
    RUN(test_badges_of_a_number_that_is_reserved_for_ever);
    RUN(test_revoking_turns_away_who_has_not_attached);
    RUN(test_revoking_comes_too_late_for_who_has_attached);
    RUN(test_the_end_of_who_was_revoked_is_no_death);
    RUN(test_attaching_while_it_is_revoked);
    return check_end();
}
