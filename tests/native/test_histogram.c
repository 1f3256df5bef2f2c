/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <pthread.h>

#include "base/histogram.h"

#define FIRST ((uint64_t)OBD_LATENCY_FIRST_NS)
#define LAST  (OBD_NR_LATENCY_BUCKETS - 1)

TEST(test_histogram_a_bound_is_in_its_own_bucket)
{
    CHECK(histogram_bucket(0) == 0 && histogram_bucket(1) == 0 && histogram_bucket(FIRST) == 0);
    for (unsigned i = 0; i < LAST; i++) {
        CHECK(histogram_bucket(FIRST << i) == i);
        CHECK(histogram_bucket((FIRST << i) + 1) == i + 1);
    }
}

TEST(test_histogram_the_last_bucket_takes_all_that_is_longer)
{
    CHECK(histogram_bucket(FIRST << LAST) == LAST);
    CHECK(histogram_bucket(UINT64_MAX) == LAST);
}

TEST(test_histogram_collects_into_a_sum)
{
    static struct histogram one, other;
    struct obd_latency sum = {0};
    histogram_count(&one, 1);
    histogram_count(&one, 3 * FIRST);
    histogram_count(&other, 3 * FIRST);
    histogram_collect(&one, &sum);
    histogram_collect(&other, &sum);
    CHECK(sum.nr[0] == 1 && sum.nr[2] == 2 && sum.sum_ns == 1 + 6 * FIRST);
}

#define NR_THREADS 4
#define NR_COUNTS  20000

static void *count_many(void *argument)
{
    for (uint64_t i = 0; i < NR_COUNTS; i++)
        histogram_count(argument, i % 2 * 4 * FIRST);
    return NULL;
}

TEST(test_histogram_loses_no_count_of_threads_side_by_side)
{
    static struct histogram histogram;
    pthread_t threads[NR_THREADS];
    struct obd_latency sum = {0};
    for (int i = 0; i < NR_THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, count_many, &histogram) == 0);
    for (int i = 0; i < NR_THREADS; i++)
        pthread_join(threads[i], NULL);
    histogram_collect(&histogram, &sum);
    CHECK(sum.nr[0] == NR_THREADS * NR_COUNTS / 2 && sum.nr[2] == sum.nr[0]);
    CHECK(sum.sum_ns == sum.nr[2] * 4 * FIRST);
}

TEST_MAIN(T(test_histogram_a_bound_is_in_its_own_bucket), T(test_histogram_the_last_bucket_takes_all_that_is_longer),
          T(test_histogram_collects_into_a_sum), T(test_histogram_loses_no_count_of_threads_side_by_side))
