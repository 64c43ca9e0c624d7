/* The slot table, which is the queue: the order of claims, cancelling, reuse of slots, and many claimers at once. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>

#include "os/os.h"
#include "table_rig.h"

#define N WP_MIN_SLOTS
#define MAX_CLAIMERS 4

static void set_up(void)
{
    set_up_table(N, MAX_CLAIMERS);
}

static enum wp_tag tag_of(uint64_t position)
{
    uint64_t state = wp_load_acquire(&wp_slot_at(&segment, position)->state);
    CHECK_EQ(wp_state_position(state), position);
    return wp_state_tag(state);
}

/* As a worker does it: a claim gives up after a turn of the table. */
static bool claim(const struct wp_segment *view, uint32_t me, uint64_t *position)
{
    bool won;
    do {
        won = wp_table_claim(view, me, position);
    } while (!won && wp_table_has_work(view));
    return won;
}

static void claim_expecting(uint32_t me, uint64_t expected)
{
    uint64_t position;
    CHECK(claim(&segment, me, &position));
    CHECK_EQ(position, expected);
    CHECK_EQ(tag_of(position), WP_RUNNING);
    CHECK_EQ(wp_state_worker(wp_load_acquire(&wp_slot_at(&segment, position)->state)), me);
}

static void claim_nothing(void)
{
    uint64_t position;
    CHECK(!claim(&segment, 0, &position));
}

/* ---- one claimer ---- */

static void test_claims_in_order(void)
{
    set_up();
    claim_nothing();
    for (uint64_t i = 0; i < 10; i++) {
        CHECK_EQ(publish(), i);
    }
    CHECK(wp_table_has_work(&segment));
    for (uint64_t i = 0; i < 10; i++) {
        claim_expecting((uint32_t)(i % MAX_CLAIMERS), i);
    }
    claim_nothing();
    tear_down();
}

static void test_reserved_is_not_claimable(void)
{
    set_up();
    uint64_t position = wp_table_reserve(&table, &some_task);
    claim_nothing();
    wp_table_publish(&table, position);
    claim_expecting(1, position);
    tear_down();
}

static void test_cancel(void)
{
    set_up();
    for (int i = 0; i < 5; i++) {
        publish();
    }
    CHECK(wp_table_cancel(&table, 2));
    CHECK(!wp_table_cancel(&table, 2));
    wp_table_free(&table, 2);
    claim_expecting(0, 0);
    CHECK(!wp_table_cancel(&table, 0)); /* it runs */
    wp_table_finish(&segment, 0, 0);
    CHECK(!wp_table_cancel(&table, 0)); /* it is done */
    claim_expecting(1, 1);
    claim_expecting(2, 3);
    CHECK(wp_table_cancel(&table, 4));
    claim_nothing();
    tear_down();
}

static void test_finish_sets_state_then_bit(void)
{
    set_up();
    for (uint64_t i = 0; i < 70; i++) {
        publish();
        claim_expecting(3, i);
    }
    wp_table_finish(&segment, 3, 69);
    CHECK_EQ(tag_of(69), WP_DONE);
    CHECK_EQ(wp_load_relaxed(&segment.done[0]), 0);
    CHECK_EQ(wp_load_relaxed(&segment.done[1]), 1 << 5);
    tear_down();
}

static void test_full_and_skipping_busy_slots(void)
{
    set_up();
    for (uint64_t i = 0; i < N; i++) {
        CHECK(!wp_table_is_full(&table));
        publish();
        claim_expecting(0, i);
    }
    CHECK(wp_table_is_full(&table));

    /* Slots 10 and 11 become free: what comes next skips all before them, and all up to them once more. */
    wp_table_free(&table, 10);
    wp_table_free(&table, 11);
    CHECK_EQ(publish(), N + 10);
    CHECK_EQ(publish(), N + 11);
    CHECK(wp_table_is_full(&table));
    claim_expecting(1, N + 10);
    claim_expecting(2, N + 11);
    claim_nothing();
    wp_table_free(&table, N + 10);
    CHECK_EQ(publish(), 2 * N + 10);
    claim_expecting(3, 2 * N + 10);
    tear_down();
}

/* A model: publishing, cancelling, claiming and freeing in random order, a few hundred times around the table. */
static void test_random_against_a_model(void)
{
    enum { ROUNDS = 300000 };
    set_up();
    struct dice dice = new_dice(0);
    static uint64_t queued[N], running[N];
    uint32_t queued_count = 0, running_count = 0;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t what = roll(&dice, 16);
        if (what < 7 && !wp_table_is_full(&table)) {
            uint64_t position = publish();
            CHECK(queued_count == 0 || position > queued[queued_count - 1]);
            queued[queued_count++] = position;
        } else if (what < 10 && queued_count > 0) {
            claim_expecting((uint32_t)roll(&dice, MAX_CLAIMERS), queued[0]);
            running[running_count++] = queued[0];
            memmove(queued, queued + 1, --queued_count * sizeof *queued);
        } else if (what < 12 && queued_count > 0) {
            uint32_t k = (uint32_t)roll(&dice, queued_count);
            CHECK(wp_table_cancel(&table, queued[k]));
            wp_table_free(&table, queued[k]);
            memmove(queued + k, queued + k + 1, (--queued_count - k) * sizeof *queued);
        } else if (running_count > 0) {
            uint32_t k = (uint32_t)roll(&dice, running_count);
            CHECK(!wp_table_cancel(&table, running[k]));
            wp_table_free(&table, running[k]);
            running[k] = running[--running_count];
        }
        CHECK_EQ(table.used, queued_count + running_count);
    }
    CHECK(table.tail > 100 * N);
    tear_down();
}

/* ---- many claimers at once ---- */

#define POSITIONS SCALED(400000u)
#define MAX_POSITION (64u * 1024 * 1024) /* skipping makes gaps */

enum { UNSEEN = 0, CANCELLED = 1, CLAIMED = 2 };

/* Shared between processes: who claimed what. Sparse. */
static _Atomic uint8_t *fates;
static _Atomic uint64_t *claims; /* of each claimer */

static void make_books(void)
{
    fates = mmap(NULL, MAX_POSITION, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    claims = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(fates != MAP_FAILED && claims != MAP_FAILED);
}

static void close_books(void)
{
    munmap((void *)fates, MAX_POSITION);
    munmap((void *)claims, 4096);
}

static void note(uint64_t position, uint8_t fate)
{
    CHECK(position < MAX_POSITION);
    CHECK_EQ(atomic_exchange(&fates[position], fate), UNSEEN);
}

static void claim_until_told(const struct wp_segment *view, uint32_t me)
{
    uint64_t last = 0, position;
    while (wp_load_seq_cst(&view->header->stop) == WP_RUN || wp_table_has_work(view)) {
        if (!wp_table_claim(view, me, &position)) {
            sched_yield();
            continue;
        }
        CHECK(position >= last);
        last = position;
        /* The publisher wrote its position into the payload: what was released is what we see. */
        CHECK_EQ(wp_slot_at(view, position)->payload_size, position);
        note(position, CLAIMED);
        atomic_fetch_add(&claims[me], 1);
        wp_table_finish(view, me, position);
    }
}

/* Frees every slot whose done bit is set. */
static uint64_t reap_done(void)
{
    uint64_t n = 0;
    for (uint32_t word = 0; word < N / 64; word++) {
        for (uint64_t bits = wp_exchange_seq_cst(&segment.done[word], 0); bits != 0; bits &= bits - 1) {
            uint64_t state = wp_load_acquire(&segment.slot[word * 64 + (uint32_t)__builtin_ctzll(bits)].state);
            CHECK_EQ(wp_state_tag(state), WP_DONE);
            wp_table_free(&table, wp_state_position(state));
            n++;
        }
    }
    return n;
}

/* Publishes POSITIONS tasks and cancels some. Every position is then either claimed once or cancelled, never both. */
static void feed_claimers(void)
{
    struct dice dice = new_dice(1);
    uint64_t published = 0, ended = 0, cancelled = 0;
    int64_t limit = check_now() + PATIENCE_NS;
    while (ended < POSITIONS) {
        for (uint64_t burst = roll(&dice, 40); burst > 0 && published < POSITIONS && !wp_table_is_full(&table);
             burst--) {
            uint64_t position = wp_table_reserve(&table, &some_task);
            wp_slot_at(&segment, position)->payload_size = position;
            wp_table_publish(&table, position);
            published++;
            uint64_t back = roll(&dice, 64);
            uint64_t victim = position - back;
            if (back < 8 && back <= position && wp_table_cancel(&table, victim)) {
                note(victim, CANCELLED);
                wp_table_free(&table, victim);
                cancelled++;
                ended++;
            }
        }
        ended += reap_done();
        if (roll(&dice, 8) == 0) {
            sched_yield();
        }
        CHECK(check_now() < limit);
    }
    wp_store_seq_cst(&segment.header->stop, WP_FINISH);
    CHECK_EQ(table.used, 0);
    printf("    %" PRIu64 " published, %" PRIu64 " of them cancelled; claims:", published, cancelled);
}

static void check_books(void)
{
    uint64_t claimed = 0, cancelled = 0, counted = 0;
    for (uint64_t position = 0; position < table.tail; position++) {
        uint8_t fate = wp_load_relaxed(&fates[position]);
        claimed += fate == CLAIMED;
        cancelled += fate == CANCELLED;
    }
    for (uint32_t i = 0; i < MAX_CLAIMERS; i++) {
        printf(" %" PRIu64, atomic_load(&claims[i]));
        counted += atomic_load(&claims[i]);
    }
    printf("\n");
    CHECK_EQ(claimed, counted);
    CHECK_EQ(claimed + cancelled, POSITIONS);
}

static void *claimer_thread(void *number)
{
    claim_until_told(&segment, (uint32_t)(uintptr_t)number);
    return NULL;
}

static void test_claimers_as_threads(void)
{
    set_up();
    make_books();
    pthread_t threads[MAX_CLAIMERS];
    for (uintptr_t i = 0; i < MAX_CLAIMERS; i++) {
        CHECK_OK(pthread_create(&threads[i], NULL, claimer_thread, (void *)i));
    }
    feed_claimers();
    for (int i = 0; i < MAX_CLAIMERS; i++) {
        pthread_join(threads[i], NULL);
    }
    check_books();
    close_books();
    tear_down();
}

static pid_t start_claimer(uint32_t number)
{
    fflush(NULL);
    pid_t pid = fork();
    CHECK_SYS(pid);
    if (pid == 0) {
        struct wp_segment view;
        CHECK_OK(wp_segment_attach(&view, segment.fd));
        claim_until_told(&view, number);
        _exit(0);
    }
    return pid;
}

static void test_claimers_as_processes(void)
{
    set_up();
    make_books();
    pid_t pids[MAX_CLAIMERS];
    for (uint32_t i = 0; i < MAX_CLAIMERS; i++) {
        pids[i] = start_claimer(i);
    }
    feed_claimers();
    for (int i = 0; i < MAX_CLAIMERS; i++) {
        int status;
        CHECK_EQ(waitpid(pids[i], &status, 0), pids[i]);
        CHECK_EQ(status, 0);
    }
    check_books();
    close_books();
    tear_down();
}

/* ---- claimers that are stopped and killed anywhere ---- */

/* A dead claimer's slots: each says that it has it (RUNNING, or DONE without its bit). Returns how many it ran. */
static uint64_t settle_slots_of(uint32_t dead)
{
    uint64_t lost = 0;
    for (uint32_t i = 0; i < N; i++) {
        uint64_t state = wp_load_acquire(&segment.slot[i].state);
        if (table.tasks[i] == NULL || wp_state_tag(state) == WP_QUEUED || wp_state_worker(state) != dead) {
            continue;
        }
        lost += wp_state_tag(state) == WP_RUNNING;
        wp_table_free(&table, wp_state_position(state));
        wp_fetch_and_seq_cst(&segment.done[i / 64], ~(UINT64_C(1) << (i % 64)));
    }
    return lost;
}

static void claim_and_finish_for_ever(const struct wp_segment *view, uint32_t me)
{
    for (;;) {
        uint64_t position;
        if (wp_table_claim(view, me, &position)) {
            CHECK_EQ(wp_slot_at(view, position)->payload_size, position);
            atomic_fetch_add(&claims[me], 1);
            for (volatile int work = 0; work < 3000; work++) { /* so that some die in the middle of a task */
            }
            wp_table_finish(view, me, position);
        } else {
            sched_yield();
        }
    }
}

static pid_t start_victim(uint32_t number)
{
    pid_t pid = fork();
    CHECK_SYS(pid);
    if (pid == 0) {
        struct wp_segment view;
        CHECK_OK(wp_segment_attach(&view, segment.fd));
        claim_and_finish_for_ever(&view, number);
    }
    return pid;
}

/* Keeps the table full for a moment; returns how many tasks were done. */
static uint64_t keep_full(struct dice *dice)
{
    uint64_t done = 0;
    for (uint64_t turns = 20 + roll(dice, 200); turns > 0; turns--) {
        while (!wp_table_is_full(&table)) {
            uint64_t position = wp_table_reserve(&table, &some_task);
            wp_slot_at(&segment, position)->payload_size = position;
            wp_table_publish(&table, position);
        }
        done += reap_done();
    }
    return done;
}

/* A claimer that died or was stopped anywhere holds up nobody, and its slots tell what it had. */
static void test_killed_and_stopped_claimers(void)
{
    enum { VICTIM = 0, SURVIVOR = 1 };
    set_up();
    make_books();
    struct dice dice = new_dice(2);
    fflush(NULL);
    pid_t survivor = start_victim(SURVIVOR);
    uint64_t done = 0, lost = 0, kills = SCALED(480);
    for (uint64_t i = 0; i < kills; i++) {
        atomic_store(&claims[VICTIM], 0);
        pid_t victim = start_victim(VICTIM);
        AWAIT((done += keep_full(&dice), atomic_load(&claims[VICTIM]) > 0));
        done += keep_full(&dice);
        CHECK_SYS(kill(victim, SIGSTOP));
        uint64_t before = done; /* more than one tableful: nothing waits for the stopped one */
        AWAIT((done += keep_full(&dice), done > before + N));
        CHECK_SYS(kill(victim, SIGKILL));
        CHECK_EQ(waitpid(victim, NULL, 0), victim);
        done += reap_done();
        uint64_t ran = settle_slots_of(VICTIM);
        CHECK(ran <= 1); /* one task at a time */
        lost += ran;
    }
    CHECK_SYS(kill(survivor, SIGKILL));
    CHECK_EQ(waitpid(survivor, NULL, 0), survivor);
    done += reap_done();
    lost += settle_slots_of(SURVIVOR);
    printf("    %" PRIu64 " kills: %" PRIu64 " tasks done, %" PRIu64 " lost\n", kills + 1, done, lost);

    /* Whatever is in the table now is queued, in order, and can be claimed. */
    uint64_t left = table.used, position, last = 0;
    while (claim(&segment, 2, &position)) {
        CHECK(position >= last);
        last = position;
        left--;
    }
    CHECK_EQ(left, 0);
    close_books();
    tear_down();
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN(test_claims_in_order);
    RUN(test_reserved_is_not_claimable);
    RUN(test_cancel);
    RUN(test_finish_sets_state_then_bit);
    RUN(test_full_and_skipping_busy_slots);
    RUN(test_random_against_a_model);
    RUN(test_claimers_as_threads);
    RUN_UNLESS_TSAN(test_claimers_as_processes);
    RUN_UNLESS_TSAN(test_killed_and_stopped_claimers);
    return check_end();
}
