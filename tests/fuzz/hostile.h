/*
 * A pool among broken workers, by script: each byte is a step of the program that uses the pool, of an honest worker, or
 * of a broken one that writes into the shared memory. One thread plays them all, in virtual time, so that a script does
 * the same whenever it runs.
 *
 * Whatever was written: no step crashes or goes round in circles, each task ends once, with an error that is documented,
 * and at the end all permits are back. What the sanitizers see is not looked for here.
 */
#ifndef WP_FUZZ_HOSTILE_H
#define WP_FUZZ_HOSTILE_H

#include "virtual_os.h"

#include "scribble.h"
#include "workers.h"

#define MOST_TASKS 256
#define MOST_TICKETS 8
#define MOST_WORKERS 4
#define SECOND INT64_C(1000000000)

/* A task as the program knows it; its `user` points here. */
struct errand {
    weirpool_task *task;
    bool given;
    bool ended;
};

struct actor {
    struct hand hand;
    bool present; /* its process has not been reaped */
    bool alive;
    bool busy; /* with a task */
    bool reported; /* that it has left */
    bool within; /* a call of the worker's, which goes on although the pool has killed it */
};

static struct stage {
    weirpool *pool;
    struct script script;
    struct actor actors[MOST_WORKERS];
    struct errand errands[MOST_TASKS];
    uint32_t given;
    uint32_t ended;
    weirpool_task *untold[MOST_TASKS]; /* ended, and not released yet */
    uint32_t untold_count;
    weirpool_ticket *tickets[MOST_TICKETS];
    uint32_t queued[MOST_TICKETS]; /* the ticket's errand */
    bool permits[MOST_TICKETS]; /* or it is for a permit alone */
    bool replaces;
    bool broken; /* reported */
    bool drained;
    uint32_t moments; /* that somebody has slept away in this step */
} stage;

static unsigned char material[2 << 20];

/* ---- the ends of tasks ---- */

static struct errand *new_errand(void)
{
    struct errand *errand = stage.given < MOST_TASKS ? &stage.errands[stage.given] : NULL;
    if (errand != NULL) {
        *errand = (struct errand){.task = NULL};
    }
    return errand;
}

/* It was accepted: from now on its end has to come. */
static void note_given(struct errand *errand)
{
    CHECK(errand == &stage.errands[stage.given]);
    errand->given = true;
    stage.given++;
}

static void release(weirpool_task *task)
{
    weirpool_told(stage.pool, task);
    weirpool_release(stage.pool, task);
}

static uint64_t sum_of(const unsigned char *bytes, size_t size)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < size; i++) {
        sum += bytes[i];
    }
    return sum;
}

static void note_end(weirpool_task *task, bool at_once)
{
    struct weirpool_completion end;
    weirpool_describe(task, &end);
    struct errand *errand = end.user;
    CHECK(errand->given && !errand->ended && errand->task == task);
    CHECK(end.error == 0 || end.error == -EOWNERDEAD || end.error == -EPIPE || end.error == -ECANCELED ||
          end.error == -ENOMEM || (end.error == -ETIME && stage.replaces));
    CHECK(end.error != 0 || end.result_size == 0 || end.result != NULL);
    volatile uint64_t sum = end.result != NULL ? sum_of(end.result, end.result_size) : 0;
    (void)sum;
    errand->ended = true;
    errand->task = NULL;
    stage.ended++;
    if (at_once) {
        release(task);
    } else {
        stage.untold[stage.untold_count++] = task;
    }
}

static void tell_all(void)
{
    while (stage.untold_count > 0) {
        release(stage.untold[--stage.untold_count]);
    }
}

/* ---- the program ---- */

static int64_t take_deadline(struct script *script)
{
    uint8_t n = take_byte(script);
    return n % 4 != 0 ? WEIRPOOL_NOW : virtual_now + n * (SECOND / 64);
}

static size_t take_size(struct script *script)
{
    switch (take_byte(script) % 8) {
    case 0:
    case 1:
    case 2:
        return take_byte(script) % (WEIRPOOL_INLINE_PAYLOAD + 1);
    case 3:
    case 4:
        return take_below(script, 8192);
    case 5:
        return 100000 + take_below(script, 65536);
    case 6:
        return WEIRPOOL_INLINE_PAYLOAD + 1;
    default:
        return 0;
    }
}

static bool is_refusal(int rc)
{
    return rc == -EAGAIN || rc == -ETIMEDOUT || rc == -ESHUTDOWN || rc == -EPIPE || rc == -ENOMEM || rc == -EMSGSIZE;
}

static void submit(struct script *script)
{
    struct errand *errand = new_errand();
    if (errand == NULL) {
        return;
    }
    size_t size = take_size(script);
    int rc = weirpool_submit(stage.pool, material, size, errand, take_deadline(script), &errand->task);
    CHECK(rc == 0 || is_refusal(rc));
    if (rc == 0) {
        note_given(errand);
    }
}

static void limit(struct weirpool_request *request, struct script *script)
{
    if (stage.replaces) {
        request->retries = take_byte(script) % 3;
        request->limit_ns = take_byte(script) % 4 == 0 ? 1 + take_byte(script) * (uint64_t)(SECOND / 64) : 0;
    }
}

static void publish(struct script *script)
{
    struct errand *errand = new_errand();
    size_t size = take_size(script);
    enum weirpool_admission admission = take_byte(script) % 4 == 0 ? WEIRPOOL_OVER_BOUND : WEIRPOOL_IN_BOUND;
    bool late = take_byte(script) % 2 == 0; /* it is weighed when it has its permit */
    int rc = errand != NULL ? weirpool_admit(stage.pool, admission, late ? 0 : size, take_deadline(script)) : -EAGAIN;
    CHECK(rc >= 0 || is_refusal(rc));
    if (rc < 0) {
        return;
    }
    if (late && (rc = weirpool_weigh(stage.pool, admission, size)) != 0) {
        CHECK(is_refusal(rc));
        weirpool_forgo(stage.pool, 0);
        return;
    }
    struct iovec part = {.iov_base = material, .iov_len = size};
    struct weirpool_request request = {
        .parts = &part, .count = 1, .user = errand, .interest = take_byte(script) % 4, .weighed = size};
    limit(&request, script);
    rc = weirpool_publish(stage.pool, &request, &errand->task);
    CHECK(rc == 0 || is_refusal(rc));
    if (rc == 0) {
        note_given(errand);
    }
}

static void queue_up(struct script *script)
{
    uint32_t i = take_byte(script) % MOST_TICKETS;
    bool permit = take_byte(script) % 4 == 0;
    struct errand *errand = new_errand();
    if (stage.tickets[i] != NULL || errand == NULL) {
        return;
    }
    struct iovec part = {.iov_base = material, .iov_len = take_size(script) % WEIRPOOL_PARK_LIMIT};
    struct weirpool_request request = {.parts = permit ? NULL : &part,
                                       .count = !permit,
                                       .user = permit ? NULL : errand,
                                       .interest = take_byte(script) % 4,
                                       .weighed = permit ? 0 : part.iov_len};
    if (!permit) {
        limit(&request, script);
    }
    int rc = weirpool_queue(stage.pool, &request, permit ? NULL : &errand->task, &stage.tickets[i]);
    CHECK(rc == 0 || is_refusal(rc));
    if (rc != 0) {
        stage.tickets[i] = NULL;
        return;
    }
    stage.permits[i] = permit;
    if (!permit) {
        stage.queued[i] = stage.given;
        note_given(errand); /* or its ticket will say that it was not */
    }
}

/* A ticket has ended: with a permit, or a task that was published, or neither. */
static void end_ticket(uint32_t i, bool granted)
{
    stage.tickets[i] = NULL;
    if (stage.permits[i]) {
        if (granted) {
            weirpool_forgo(stage.pool, 0);
        }
    } else if (!granted) {
        CHECK(!stage.errands[stage.queued[i]].ended);
        stage.errands[stage.queued[i]].ended = true;
        stage.ended++;
    }
}

static void await_ticket(struct script *script)
{
    uint32_t i = take_byte(script) % MOST_TICKETS;
    if (stage.tickets[i] == NULL) {
        return;
    }
    int rc = weirpool_await(stage.pool, stage.tickets[i], take_deadline(script));
    CHECK(rc == 0 || is_refusal(rc));
    if (rc != -EAGAIN && rc != -ETIMEDOUT) {
        end_ticket(i, rc == 0);
    }
}

static void leave_line(uint32_t i)
{
    if (stage.tickets[i] != NULL) {
        int rc = weirpool_leave(stage.pool, stage.tickets[i]);
        CHECK(rc == 0 || rc == 1 || is_refusal(rc));
        end_ticket(i, rc == 1);
    }
}

static struct errand *take_errand(struct script *script)
{
    struct errand *errand = stage.given > 0 ? &stage.errands[take_byte(script) % stage.given] : NULL;
    return errand != NULL && !errand->ended && errand->task != NULL ? errand : NULL;
}

/* A task of a ticket that waits is nobody's to ask for. */
static bool is_in_line(const struct errand *errand)
{
    for (uint32_t i = 0; i < MOST_TICKETS; i++) {
        if (stage.tickets[i] != NULL && !stage.permits[i] && errand == &stage.errands[stage.queued[i]]) {
            return true;
        }
    }
    return false;
}

static void stop(weirpool_task *task)
{
    int rc = weirpool_stop(stage.pool, task);
    CHECK(stage.replaces ? rc == 0 || rc == -EBUSY : rc == -EINVAL);
    if (rc == 0) {
        note_end(task, true);
    }
}

static void ask(struct script *script)
{
    uint8_t what = take_byte(script) % 6;
    struct errand *errand = take_errand(script);
    if (errand == NULL || is_in_line(errand)) {
        return;
    }
    weirpool_task *task = errand->task;
    int rc = 0;
    switch (what) {
    case 0:
        rc = weirpool_cancel(stage.pool, task);
        break;
    case 1:
        rc = weirpool_withdraw(stage.pool, task);
        if (rc == 0) {
            note_end(task, true);
        }
        break;
    case 2:
        rc = weirpool_wait(stage.pool, task, take_deadline(script));
        break;
    case 3:
        (void)weirpool_phase(stage.pool, task);
        break;
    case 4:
        stop(task);
        break;
    default:
        (void)weirpool_interest(task, take_byte(script) % 4);
    }
    CHECK(rc == 0 || rc == -EBUSY || rc == -EAGAIN || rc == -ETIMEDOUT);
}

/* By itself, or killed by the pool. */
static bool has_died(struct actor *actor)
{
    actor->alive = actor->alive && !wp_os_process_ended(actor->hand.death);
    return !actor->alive;
}

static void vacate(uint32_t worker)
{
    for (uint32_t i = 0; i < MOST_WORKERS; i++) {
        struct actor *actor = &stage.actors[i];
        if (actor->present && actor->hand.number == worker) {
            CHECK(has_died(actor));
            actor->reported = actor->within;
            if (actor->within) {
                return; /* finish() does it, when it comes back */
            }
            hand_close(&actor->hand);
            actor->present = false;
        }
    }
    weirpool_worker_vacate(stage.pool, worker);
}

static int collect(int room, int64_t deadline, bool tell)
{
    weirpool_task *tasks[8];
    struct weirpool_event event = {.kind = WEIRPOOL_NOTHING};
    int n = weirpool_collect(stage.pool, tasks, room, &event, deadline);
    CHECK(n >= 0 || n == -EAGAIN || n == -ETIMEDOUT);
    for (int i = 0; i < n; i++) {
        note_end(tasks[i], tell);
    }
    if (event.kind == WEIRPOOL_WORKER_LEFT) {
        vacate(event.worker);
    }
    stage.broken |= event.kind == WEIRPOOL_BROKE;
    stage.drained |= event.kind == WEIRPOOL_DRAINED;
    return n;
}

static void sweep(struct script *script)
{
    weirpool_task *tasks[8];
    int n = weirpool_sweep(stage.pool, tasks, 1 + take_byte(script) % 8);
    for (int i = 0; i < n; i++) {
        note_end(tasks[i], take_byte(script) % 2 == 0);
    }
}

static void look(struct script *script)
{
    struct weirpool_stats stats;
    struct weirpool_worker_stats workers[MOST_WORKERS];
    char why[100];
    switch (take_byte(script) % 4) {
    case 0:
    case 1:
        CHECK_OK(weirpool_stats(stage.pool, &stats));
        CHECK_EQ(stats.waiting + stats.running, stats.outstanding);
        CHECK(stats.occupancy >= 0.0 && stats.occupancy <= 1.0);
        CHECK(stats.workers <= MOST_WORKERS);
        break;
    case 2:
        CHECK(weirpool_workers(stage.pool, workers, MOST_WORKERS) >= 0);
        break;
    default:
        (void)weirpool_check(stage.pool, why, sizeof why); /* it may have something to say */
    }
}

static void end_by_program(struct script *script)
{
    int rc = 0;
    switch (take_byte(script) % 16) {
    case 0:
        rc = weirpool_break(stage.pool);
        break;
    case 1:
    case 2:
    case 3:
        rc = weirpool_shutdown(stage.pool);
        break;
    default:
        rc = weirpool_cancel_waiting(stage.pool, take_byte(script) % 4);
    }
    CHECK(rc == 0 || rc == -EALREADY);
}

/* ---- honest workers ---- */

static void begin_worker(uint32_t i)
{
    struct actor *actor = &stage.actors[i];
    struct hand *hand = &actor->hand;
    struct weirpool_channel channel;
    weirpool_channel(stage.pool, &channel);
    *hand = (struct hand){.pool = stage.pool, .segment = stage.pool->segment};
    if (weirpool_worker_reserve(stage.pool, &hand->number) != 0) {
        return;
    }
    hand->death = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK_SYS(hand->death);
    CHECK_OK(weirpool_worker_watch(stage.pool, hand->number, hand->death, 1000000 + (int)hand->number));
    void *arena = NULL;
    CHECK_OK(wp_os_map(hand->segment.fd, hand->segment.arena_at, hand->segment.arena_size, false, &arena));
    hand->segment.arena = arena;
    *actor = (struct actor){.hand = *hand, .present = true, .alive = true};
    CHECK_OK(wp_worker_open(&actor->hand.worker, &actor->hand.segment, &channel,
                            weirpool_worker_badge(stage.pool, hand->number)));
    weirpool_announce(actor->hand.worker, WEIRPOOL_UP);
}

static void end_worker(struct actor *actor, bool planned)
{
    if (actor->alive) {
        if (planned) {
            weirpool_announce(actor->hand.worker, WEIRPOOL_LEAVES);
        }
        actor->alive = false;
        hand_die(&actor->hand);
    }
}

static void claim(struct actor *actor)
{
    struct weirpool_claimed claimed;
    int rc = weirpool_claim(actor->hand.worker, &claimed, WEIRPOOL_NOW);
    if (rc == 0) {
        volatile uint64_t sum = sum_of(claimed.payload, claimed.size);
        (void)sum;
        actor->busy = true;
    } else if (rc != -EAGAIN) {
        CHECK(rc == -ESHUTDOWN || rc == -EPROTO || rc == -EOWNERDEAD);
        end_worker(actor, rc == -ESHUTDOWN);
    }
}

/* A worker sleeps because its stream is full: the parent looks. When that does not help, the program breaks the pool. */
static bool let_parent_look(void)
{
    bool (*again)(void) = while_asleep;
    while_asleep = NULL;
    (void)collect(8, WEIRPOOL_NOW, true);
    if (++stage.moments > 64) {
        (void)weirpool_break(stage.pool);
        atomic_store(&stage.pool->segment.header->stop, WP_HALT); /* as it was before the script wrote there */
    }
    while_asleep = again;
    return true;
}

static size_t take_result_size(struct script *script)
{
    switch (take_byte(script) % 8) {
    case 0:
        return WEIRPOOL_INLINE_RESULT + 1;
    case 1:
        return take_below(script, 65536);
    case 2:
        return sizeof material - take_byte(script);
    default:
        return take_byte(script) % (WEIRPOOL_INLINE_RESULT + 1);
    }
}

static void finish(struct actor *actor, struct script *script)
{
    struct iovec part = {.iov_base = material, .iov_len = take_result_size(script)};
    actor->busy = false;
    stage.moments = 0;
    while_asleep = let_parent_look;
    actor->within = true;
    int rc = weirpool_finish(actor->hand.worker, take_byte(script) % 2, &part, 1);
    actor->within = false;
    while_asleep = NULL;
    if (actor->reported) {
        vacate(actor->hand.number);
    } else if (rc != 0) {
        CHECK(rc == -ESHUTDOWN || rc == -EOWNERDEAD || rc == -ECANCELED);
        end_worker(actor, false);
    }
}

static void act(struct actor *actor, struct script *script)
{
    if (has_died(actor)) {
        return;
    }
    if (actor->busy) {
        finish(actor, script);
    } else {
        claim(actor);
    }
}

static void work(struct script *script)
{
    uint32_t i = take_byte(script) % MOST_WORKERS;
    struct actor *actor = &stage.actors[i];
    uint8_t what = take_byte(script);
    if (!actor->present) {
        begin_worker(i);
    } else if (what >= 16) {
        act(actor, script);
    } else {
        end_worker(actor, what < 8);
    }
}

/* ---- the play ---- */

static void take_step(struct script *script)
{
    begin_step();
    switch (take_byte(script) % 24) {
    case 0:
    case 1:
        submit(script);
        break;
    case 2:
        publish(script);
        break;
    case 3:
        queue_up(script);
        break;
    case 4:
        await_ticket(script);
        break;
    case 5:
        leave_line(take_byte(script) % MOST_TICKETS);
        break;
    case 6:
    case 7:
        ask(script);
        break;
    case 8:
    case 9:
        (void)collect(1 + take_byte(script) % 8, take_deadline(script), take_byte(script) % 2 == 0);
        break;
    case 10:
        sweep(script);
        break;
    case 11:
        tell_all();
        break;
    case 12:
        look(script);
        break;
    case 13:
        end_by_program(script);
        break;
    case 14:
        virtual_now += take_byte(script) * (SECOND / 32);
        break;
    case 15:
    case 16:
    case 17:
    case 18:
        work(script);
        break;
    default:
        scribble(stage.pool, script);
    }
}

static void curtain_up(struct script *script)
{
    uint8_t kind = take_byte(script);
    alarm_at = INT64_MAX;
    struct weirpool_options options = {
        .size = sizeof options,
        .workers = 1 + take_byte(script) % MOST_WORKERS,
        .bound = kind % 3 == 0 ? 0 : 1 + take_byte(script) % 8,
        .adaptive = kind % 3 == 0 && kind % 2 == 0,
        .max_unstarted = kind & 64 ? 1 + take_byte(script) % 4 : 0,
        .max_bytes = kind & 128 ? 1 + take_below(script, 65536) : 0,
        .arena_bytes = 131072,
        .replace = kind >> 5 & 1,
    };
    stage = (struct stage){.script = *script, .replaces = options.replace != 0};
    CHECK_OK(weirpool_open(&stage.pool, &options));
    for (uint32_t i = 0; i < options.workers; i++) {
        begin_worker(i);
    }
}

/* Shut down, and with honest workers alone, a pool goes on as far as it can. */
static void play_out(struct script *script)
{
    for (int i = 0; i < 40 && !stage.broken && !stage.drained; i++) {
        begin_step();
        for (uint32_t w = 0; w < MOST_WORKERS; w++) {
            act(&stage.actors[w], script);
        }
        (void)collect(8, i % 8 == 0 ? virtual_now + 2 * SECOND : WEIRPOOL_NOW, true);
    }
}

/* The longest that anything wrong may go unnoticed. */
static void look_twice(void)
{
    begin_step();
    while (collect(8, virtual_now + 2 * SECOND, true) >= 0) {
    }
}

/* What is left belongs to workers that have it still, or are said to. */
static void check_that_none_is_stuck(void)
{
    char why[100];
    int rc = weirpool_check(stage.pool, why, sizeof why);
    if (rc != 0 && !stage.broken && stage.pool->course != WP_BROKEN) {
        check_failed(__FILE__, __LINE__, "the pool goes on, and", why);
    }
}

static void curtain_down(struct script *script)
{
    for (uint32_t i = 0; i < MOST_TICKETS; i++) {
        leave_line(i);
    }
    begin_step();
    CHECK_OK(weirpool_shutdown(stage.pool));
    play_out(script);
    look_twice();
    check_that_none_is_stuck();
    begin_step();
    (void)weirpool_break(stage.pool);
    while (collect(8, WEIRPOOL_NOW, true) > 0 || !(stage.broken || stage.drained)) {
    }
    tell_all();
    CHECK_EQ(stage.ended, stage.given);
    struct weirpool_stats stats;
    CHECK_OK(weirpool_stats(stage.pool, &stats));
    CHECK_EQ(stats.outstanding, 0);
    CHECK_EQ(stats.blocked_producers, 0);
    check_pool(stage.pool);
    for (uint32_t i = 0; i < MOST_WORKERS; i++) {
        if (stage.actors[i].present) {
            hand_close(&stage.actors[i].hand);
        }
    }
    CHECK_OK(weirpool_close(stage.pool));
}

static void play(const uint8_t *bytes, size_t size)
{
    struct script script = {.at = bytes, .end = bytes + size};
    begin_step();
    curtain_up(&script);
    for (int steps = 0; steps < 2000 && !script_is_over(&script); steps++) {
        take_step(&script);
    }
    curtain_down(&script);
}

#endif
