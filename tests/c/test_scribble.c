/*
 * What a worker must not write into the shared memory, field by field: where the parent can tell, the pool breaks with
 * an error within a look; where it can put things right, it does; and an honest worker stays within its memory. In
 * virtual time, so that looks cost nothing and whoever goes round in circles is found out.
 */
#include "../fuzz/virtual_os.h"

#include "workers.h"

static weirpool *pool;
static struct hand first, second; /* the first worker runs task 0, the second sleeps; task 1 is queued */

static struct wp_slot *slot(uint32_t index)
{
    return &pool->segment.slot[index];
}

static void submit(void)
{
    CHECK_OK(weirpool_submit(pool, "task", 4, NULL, WEIRPOOL_NOW, NULL));
}

static void set_up_with(uint32_t workers, struct hand *hands[])
{
    begin_step();
    struct weirpool_options options = {.size = sizeof options, .workers = 4, .bound = 8, .arena_bytes = 65536};
    CHECK_OK(weirpool_open(&pool, &options));
    for (uint32_t i = 0; i < workers; i++) {
        hand_open(hands[i], pool);
    }
}

static void set_up(void)
{
    set_up_with(2, (struct hand *[]){&first, &second});
    submit();
    hand_claim(&first);
    submit();
}

static void tear_down(void)
{
    check_pool(pool);
    hand_close(&first);
    hand_close(&second);
    CHECK_OK(weirpool_close(pool));
}

/* The next task to end, within some looks. */
static int next(struct weirpool_completion *completion)
{
    begin_step();
    return weirpool_next(pool, completion, virtual_now + 5 * WP_LOOK_NS);
}

static void expect_end(int error)
{
    struct weirpool_completion completion;
    CHECK_OK(next(&completion));
    CHECK_RC(completion.error, error);
    weirpool_release(pool, completion.task);
}

/* Both tasks end, because the pool has been seen to be corrupt. */
static void expect_broken(void)
{
    struct weirpool_completion none;
    expect_end(-EPIPE);
    expect_end(-EPIPE);
    CHECK_RC(next(&none), -EPIPE);
    CHECK_EQ(outstanding(pool), 0);
}

/* ---- slots ---- */

static void break_by_state(uint32_t index, uint64_t state)
{
    set_up();
    wp_store_seq_cst(&slot(index)->state, state);
    expect_broken();
    tear_down();
}

static void test_states_that_no_worker_writes(void)
{
    break_by_state(0, wp_state(0, 0, WP_FREE)); /* a task's slot is not free */
    break_by_state(1, wp_state(1, 0, WP_FREE));
    break_by_state(0, wp_state(0, 0, (enum wp_tag)15));
    break_by_state(0, wp_state(WP_MIN_SLOTS, 0, WP_RUNNING)); /* the position of a later task */
    break_by_state(0, wp_state(WP_MIN_SLOTS, 0, WP_DONE));
    break_by_state(1, wp_state(1, 1, WP_QUEUED)); /* nobody could claim it */
    break_by_state(0, UINT64_MAX);
}

static void test_runners_that_there_are_not(void)
{
    break_by_state(0, wp_state(0, 3, WP_RUNNING)); /* a number that no process has */
    break_by_state(0, wp_state(0, 4, WP_RUNNING));
    break_by_state(0, wp_state(0, 0xffff, WP_RUNNING));
    break_by_state(1, wp_state(1, 0xffff, WP_DONE));
}

static void test_a_task_of_a_worker_that_has_left(void)
{
    set_up();
    weirpool_announce(second.worker, WEIRPOOL_LEAVES);
    hand_die(&second);
    weirpool_task *task;
    struct weirpool_event event;
    CHECK_EQ(weirpool_collect(pool, &task, 1, &event, WEIRPOOL_NOW), 0);
    CHECK_EQ(event.kind, WEIRPOOL_WORKER_LEFT); /* and its number is not vacant yet */
    wp_store_seq_cst(&slot(1)->state, wp_state(1, second.number, WP_RUNNING));
    expect_broken();
    tear_down();
}

static void test_a_slot_in_use_without_a_task(void)
{
    break_by_state(2, wp_state(2, 0, WP_QUEUED));
    break_by_state(WP_MIN_SLOTS - 1, wp_state(WP_MIN_SLOTS - 1, 0, WP_RUNNING));
}

static void test_a_worker_with_two_tasks(void)
{
    break_by_state(1, wp_state(1, 0, WP_RUNNING));
}

static void test_a_task_of_a_worker_that_sleeps(void)
{
    set_up();
    wp_store_seq_cst(&pool->segment.records[second.number].parked, 1);
    wp_store_seq_cst(&slot(1)->state, wp_state(1, second.number, WP_RUNNING));
    expect_broken();
    tear_down();
}

/* Also if the worker was stopped between DONE and its bit. */
static void test_a_lost_bit_delays_a_result_by_a_look(void)
{
    set_up();
    hand_finish(&first, "ok", 2);
    atomic_store(&pool->segment.done[0], 0);
    expect_end(0);
    check_pool(pool);
    CHECK_OK(weirpool_break(pool));
    expect_end(-EPIPE);
    tear_down();
}

/* ---- the header ---- */

#define BREAK_BY(field, value)                                                                                         \
    do {                                                                                                               \
        set_up();                                                                                                      \
        atomic_store(&pool->segment.header->field, (value));                                                           \
        expect_broken();                                                                                               \
        tear_down();                                                                                                   \
    } while (0)

static void test_words_of_the_parent(void)
{
    BREAK_BY(tail, 1);
    BREAK_BY(tail, UINT64_MAX);
    BREAK_BY(head, 3);
    BREAK_BY(head, 2); /* task 1 is passed over */
    BREAK_BY(stop, WP_FINISH);
    BREAK_BY(stop, WP_HALT);
    set_up();
    pool->segment.header->slots = 2 * WP_MIN_SLOTS; /* a worker that starts would map it so */
    expect_broken();
    tear_down();
}

/* A worker that is sent away by somebody else's word would have a successor, which is sent away, too. */
static void test_a_worker_that_was_sent_away(void)
{
    struct weirpool_claimed claimed;
    set_up();
    wp_store_seq_cst(&pool->segment.header->stop, WP_HALT);
    CHECK_RC(weirpool_claim(second.worker, &claimed, WEIRPOOL_NOW), -ESHUTDOWN);
    weirpool_announce(second.worker, WEIRPOOL_LEAVES);
    hand_die(&second);
    begin_step();
    weirpool_task *tasks[8];
    struct weirpool_event event;
    CHECK_EQ(weirpool_collect(pool, tasks, 8, &event, virtual_now + WP_LOOK_NS / 2), 2);
    weirpool_release(pool, tasks[0]);
    weirpool_release(pool, tasks[1]);
    tear_down();
}

/* ---- workers' records ---- */

static void test_a_vacant_record_of_a_worker_that_starts(void)
{
    set_up();
    uint32_t number;
    CHECK_OK(weirpool_worker_reserve(pool, &number));
    wp_store_seq_cst(&pool->segment.records[number].standing, WP_VACANT);
    weirpool_worker_abandon(pool, number);
    struct weirpool_stats stats;
    CHECK_OK(weirpool_stats(pool, &stats));
    CHECK_EQ(stats.workers, 2);
    CHECK_OK(weirpool_break(pool));
    expect_broken();
    tear_down();
}

/* ---- streams ---- */

static unsigned char large[2 << 20];

static void send_head(struct wp_stream *stream, uint64_t position, uint64_t size)
{
    struct wp_stream_head head = {.position = position, .size = size};
    CHECK_EQ(wp_stream_write(stream, &head, sizeof head), sizeof head);
}

static void test_leaving_in_the_midst_of_a_result(void)
{
    set_up();
    send_head(&pool->segment.streams[first.number], 0, 100000);
    wp_fetch_or_seq_cst(&pool->segment.header->streaming[0], 1);
    struct weirpool_completion none;
    CHECK_RC(weirpool_next(pool, &none, WEIRPOOL_NOW), -EAGAIN); /* the head was read */
    wp_store_seq_cst(&slot(0)->state, wp_state(0, second.number, WP_RUNNING));
    weirpool_announce(first.worker, WEIRPOOL_LEAVES);
    hand_die(&first);
    expect_broken();
    tear_down();
}

/* The ring of the last worker: behind it lies a page that nobody may touch. */
static void test_counters_do_not_lead_a_worker_out_of_its_ring(void)
{
    static const uint64_t odd[] = {1, WP_STREAM_BYTES + 1, UINT64_MAX, UINT64_C(1) << 40, UINT64_C(1) << 63};
    set_up();
    struct wp_stream *stream = &pool->segment.streams[3];
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        atomic_store(&stream->written, odd[i] == 1 ? 0 : odd[i]);
        atomic_store(&stream->drained, odd[i] == 1 ? 1 : 0);
        CHECK_EQ(wp_stream_write(stream, large, sizeof large), 0);
    }
    CHECK_RC(weirpool_break(pool), -EALREADY); /* it looks at all streams first, and finds this one */
    expect_broken();
    tear_down();
}

static weirpool_task *taken[8];
static int taken_count;

static bool let_parent_take(void)
{
    bool (*again)(void) = while_asleep;
    struct weirpool_event event;
    while_asleep = NULL;
    int n = weirpool_collect(pool, taken + taken_count, 8 - taken_count, &event, WEIRPOOL_NOW);
    taken_count += n > 0 ? n : 0;
    while_asleep = again;
    return true;
}

/* The parent's counter says that there is no room, for ever. */
static void test_a_lost_counter_of_the_parent_is_put_right(void)
{
    set_up();
    struct wp_stream *stream = &pool->segment.streams[first.number];
    atomic_store(&stream->drained, UINT64_MAX - WP_STREAM_BYTES);
    while_asleep = let_parent_take;
    taken_count = 0;
    begin_step();
    hand_finish(&first, large, sizeof large);
    while_asleep = NULL;
    struct weirpool_completion completion;
    CHECK_OK(next(&completion));
    CHECK_EQ(completion.result_size, sizeof large);
    weirpool_release(pool, completion.task);
    CHECK_OK(weirpool_break(pool));
    expect_end(-EPIPE);
    tear_down();
}

static uint64_t looks_at_the_clock;

static void stream_without_end(void)
{
    struct wp_stream *stream = &pool->segment.streams[first.number];
    uint64_t drained = atomic_load(&stream->drained);
    if (atomic_load(&stream->written) < drained + WP_STREAM_BYTES / 2) {
        atomic_store(&stream->written, drained + WP_STREAM_BYTES / 2);
    }
    atomic_fetch_or(&pool->segment.header->streaming[0], 1);
    if (++looks_at_the_clock == 1000) {
        hand_die(&second);
    }
}

/* Others are looked after meanwhile. */
static void test_a_stream_without_end(void)
{
    set_up();
    send_head(&pool->segment.streams[first.number], 0, UINT64_C(1) << 60);
    looks_at_the_clock = 0;
    while_awake = stream_without_end;
    begin_step();
    struct weirpool_completion completion;
    CHECK_OK(weirpool_next(pool, &completion, WEIRPOOL_FOREVER));
    CHECK_RC(completion.error, -EPIPE);
    weirpool_release(pool, completion.task);
    expect_end(-EPIPE);
    while_awake = NULL;
    tear_down();
}

/* ---- honest workers ---- */

static void test_a_tail_that_nobody_can_reach(void)
{
    set_up();
    struct weirpool_claimed claimed;
    atomic_store(&pool->segment.header->tail, UINT64_MAX);
    CHECK_OK(weirpool_claim(second.worker, &claimed, WEIRPOOL_NOW)); /* task 1 */
    hand_finish(&second, "ok", 2);
    CHECK_RC(weirpool_claim(second.worker, &claimed, WEIRPOOL_NOW), -EAGAIN);
    begin_step();
    CHECK_RC(weirpool_claim(second.worker, &claimed, virtual_now + WP_LOOK_NS / 1000), -ETIMEDOUT);
    expect_end(0);
    expect_end(-EPIPE);
    tear_down();
}

static void claim_payload(uint64_t size, uint64_t at)
{
    set_up();
    struct weirpool_claimed claimed;
    atomic_store(&slot(1)->payload_size, size);
    atomic_store(&slot(1)->payload_at, at);
    CHECK_RC(weirpool_claim(second.worker, &claimed, WEIRPOOL_NOW), -EPROTO);
    CHECK_OK(weirpool_break(pool));
    expect_broken();
    tear_down();
}

static void test_payloads_outside_the_arena(void)
{
    claim_payload(65537, 0);
    claim_payload(241, 65536 - 240);
    claim_payload(UINT64_MAX, 64);
    claim_payload(241, UINT64_MAX);
    claim_payload(UINT64_MAX - 63, 64);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN(test_states_that_no_worker_writes);
    RUN(test_runners_that_there_are_not);
    RUN(test_a_task_of_a_worker_that_has_left);
    RUN(test_a_slot_in_use_without_a_task);
    RUN(test_a_worker_with_two_tasks);
    RUN(test_a_task_of_a_worker_that_sleeps);
    RUN(test_a_lost_bit_delays_a_result_by_a_look);
    RUN(test_words_of_the_parent);
    RUN(test_a_worker_that_was_sent_away);
    RUN(test_a_vacant_record_of_a_worker_that_starts);
    RUN(test_leaving_in_the_midst_of_a_result);
    RUN(test_counters_do_not_lead_a_worker_out_of_its_ring);
    RUN(test_a_lost_counter_of_the_parent_is_put_right);
    RUN(test_a_stream_without_end);
    RUN(test_a_tail_that_nobody_can_reach);
    RUN(test_payloads_outside_the_arena);
    return check_end();
}
