/* Room: tests. node/meters: sums over threads, also more threads than there are blocks. */
#include "base/thread.h"
#include "node/meters.h"
#include "tests/lib/test.h"

#define THREADS 40u
#define ROUNDS  1000u

static void *count(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        meters_count(METER_COMMITS, 2);
        meters_move(METER_SESSIONS, 1);
        meters_error(ERR_BUSY);
        meters_accepted(METER_HTTP);
        meters_received(METER_NATIVE, 10);
        meters_sent(METER_NODE, 20);
        meters_request(METER_HTTP, METER_BATCH, 5000);
        meters_stage(METER_STAGE_SEAL, 7);
        meters_batch(3);
        meters_read_waited(1);
        meters_read_ran(2);
    }
    return NULL;
}

static void *leave(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < ROUNDS; i++)
        meters_move(METER_SESSIONS, -1);
    return NULL;
}

static void run(unsigned n, void *(*what)(void *))
{
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < n; i++)
        EXPECT_OK(thread_start(&threads[i], "counter", what, NULL));
    for (unsigned i = 0; i < n; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
}

TEST(meters_lose_nothing_of_many_threads)
{
    struct meters m;
    const uint64_t all = THREADS * ROUNDS;
    run(THREADS, count);
    meters_collect(&m);
    EXPECT_EQ(m.counters[METER_COMMITS], 2 * all);
    EXPECT_EQ(m.counters[METER_APPLIED], 0);
    EXPECT_EQ(m.levels[METER_SESSIONS], (int64_t)all);
    EXPECT_EQ(m.errors[ERR_BUSY], all);
    EXPECT_EQ(m.errors[ERR_SQL], 0);
    EXPECT_EQ(m.accepted[METER_HTTP], all);
    EXPECT_EQ(m.received[METER_NATIVE], 10 * all);
    EXPECT_EQ(m.sent[METER_NODE], 20 * all);
    EXPECT_EQ(m.requests[METER_HTTP][METER_BATCH], all);
    EXPECT_EQ(m.request_ns[METER_BATCH].count, all);
    EXPECT_EQ(m.request_ns[METER_BATCH].sum, 5000 * all);
    EXPECT_EQ(m.stage_ns[METER_STAGE_SEAL].sum, 7 * all);
    EXPECT_EQ(m.stage_ns[METER_STAGE_RUN].count, 0);
    EXPECT_EQ(m.batch.sum, 3 * all);
    EXPECT_EQ(m.read_waited_ns.sum, all);
    EXPECT_EQ(m.read_ran_ns.sum, 2 * all);
}

TEST(meters_count_down_in_another_thread_than_up)
{
    struct meters m;
    run(3, count);
    run(2, leave);
    meters_collect(&m);
    EXPECT_EQ(m.levels[METER_SESSIONS], ROUNDS);
}
