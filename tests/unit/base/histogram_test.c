/* Room: tests. base/histogram: which bucket has which value, and threads that add at once. */
#include "base/histogram.h"
#include "base/thread.h"
#include "tests/lib/test.h"

TEST(histogram_has_each_value_in_the_bucket_of_its_bound)
{
    for (unsigned k = 0; k < HISTOGRAM_BOUNDS; k++) {
        struct histogram h = {0};
        struct histogram_copy c = {0};
        uint64_t bound = UINT64_C(1) << k, least = k == 0 ? 0 : bound / 2 + 1;
        histogram_add(&h, bound);
        histogram_add(&h, least);
        histogram_collect(&h, &c);
        EXPECT_EQ(c.buckets[k], 2);
        EXPECT_EQ(c.count, 2);
        EXPECT_EQ(c.sum, bound + least);
    }
}

TEST(histogram_has_what_is_above_all_bounds_in_the_last_bucket)
{
    struct histogram h = {0};
    struct histogram_copy c = {0};
    histogram_add(&h, (UINT64_C(1) << (HISTOGRAM_BOUNDS - 1)) + 1);
    histogram_add(&h, UINT64_MAX);
    histogram_collect(&h, &c);
    EXPECT_EQ(c.buckets[HISTOGRAM_BOUNDS], 2);
    EXPECT_EQ(c.count, 2);
}

TEST(histogram_counts_durations_by_microseconds_and_sums_nanoseconds)
{
    struct histogram h = {0};
    struct histogram_copy c = {0};
    histogram_add_ns(&h, 0);
    histogram_add_ns(&h, 1000);
    histogram_add_ns(&h, 1001); /* longer than a microsecond: not within that bound */
    histogram_add_ns_times(&h, 8000000, 3);
    histogram_collect(&h, &c);
    EXPECT_EQ(c.buckets[0], 2);
    EXPECT_EQ(c.buckets[1], 1);
    EXPECT_EQ(c.buckets[13], 3); /* 8192 us */
    EXPECT_EQ(c.count, 6);
    EXPECT_EQ(c.sum, 2001 + 24000000);
}

TEST(histogram_collects_into_what_is_there)
{
    struct histogram a = {0}, b = {0};
    struct histogram_copy c = {0};
    histogram_add(&a, 3);
    histogram_add(&b, 4);
    histogram_add(&b, 400);
    histogram_collect(&a, &c);
    histogram_collect(&b, &c);
    EXPECT_EQ(c.count, 3);
    EXPECT_EQ(c.sum, 407);
    EXPECT_EQ(c.buckets[2], 2);
}

#define ADDS 100000u
static void *add_many(void *arg)
{
    for (unsigned i = 0; i < ADDS; i++)
        histogram_add(arg, i % 64);
    return NULL;
}

TEST(histogram_loses_nothing_when_threads_add_at_once)
{
    struct histogram h = {0};
    struct histogram_copy c = {0};
    pthread_t threads[4];
    uint64_t sum = 0;
    for (unsigned i = 0; i < 4; i++)
        EXPECT_OK(thread_start(&threads[i], "adder", add_many, &h));
    for (unsigned i = 0; i < 4; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    for (unsigned i = 0; i < ADDS; i++)
        sum += i % 64;
    histogram_collect(&h, &c);
    EXPECT_EQ(c.count, 4 * ADDS);
    EXPECT_EQ(c.sum, 4 * sum);
}
