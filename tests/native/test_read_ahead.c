/* Read-ahead as a policy: which reads lead to which plans.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "check.h"

#include "cache/read_ahead.h"

#define KIB  UINT64_C(1024)
#define MIB  (KIB * KIB)
#define UNIT (64 * KIB)

static struct read_ahead ahead;

static void open_ahead(uint64_t size, uint64_t max_window)
{
    read_ahead_init(&ahead, size, UNIT, max_window);
}

static bool plans(uint64_t offset, uint64_t length, uint64_t *begin, uint64_t *end)
{
    read_ahead_note(&ahead, offset, length);
    return read_ahead_take(&ahead, begin, end);
}

static bool plans_nothing(uint64_t offset, uint64_t length)
{
    uint64_t begin, end;
    return !plans(offset, length, &begin, &end);
}

TEST(a_first_read_plans_nothing)
{
    open_ahead(100 * MIB, 4 * MIB);
    CHECK(plans_nothing(0, 128 * KIB));
    read_ahead_destroy(&ahead);
}

TEST(a_sequential_reader_is_kept_ahead_of_by_a_window_that_doubles_to_its_limit)
{
    uint64_t begin, end, fetched = 128 * KIB, longest = 0;
    unsigned nr_plans = 0;
    open_ahead(64 * MIB, 4 * MIB);
    for (uint64_t offset = 0; offset < 64 * MIB; offset += 128 * KIB) {
        if (!plans(offset, 128 * KIB, &begin, &end))
            continue;
        nr_plans++;
        CHECK(begin == fetched || begin == offset + 128 * KIB);
        CHECK(end > begin && end - (offset + 128 * KIB) <= 4 * MIB);
        fetched = end;
        longest = end - begin > longest ? end - begin : longest;
    }
    CHECK(fetched == 64 * MIB);
    CHECK(longest >= 2 * MIB && nr_plans <= 50);
    read_ahead_destroy(&ahead);
}

TEST(long_reads_open_the_window_at_once)
{
    uint64_t begin, end;
    open_ahead(64 * MIB, 16 * MIB);
    CHECK(plans_nothing(0, MIB));
    CHECK(plans(MIB, MIB, &begin, &end) && begin == 2 * MIB && end == 4 * MIB);
    read_ahead_destroy(&ahead);
}

TEST(no_more_is_planned_than_was_read)
{
    uint64_t begin, end;
    open_ahead(1024 * MIB, 16 * MIB);
    for (uint64_t offset = 0; offset < 4 * MIB; offset += 4 * KIB)
        if (plans(offset, 4 * KIB, &begin, &end))
            CHECK(end - (offset + 4 * KIB) <= offset + 4 * KIB + 2 * UNIT);
    read_ahead_destroy(&ahead);
}

TEST(reading_the_same_again_changes_nothing)
{
    open_ahead(100 * MIB, 4 * MIB);
    CHECK(plans_nothing(0, MIB));
    for (int i = 0; i < 10; i++)
        CHECK(plans_nothing(i * 64 * KIB, 128 * KIB));
    read_ahead_destroy(&ahead);
}

TEST(random_reads_plan_nothing)
{
    unsigned seed = 7;
    open_ahead(1024 * MIB, 4 * MIB);
    for (int i = 0; i < 1000; i++)
        CHECK(plans_nothing((uint64_t)rand_r(&seed) % 1000 * MIB + 512 * KIB * (i % 2), 4 * KIB));
    read_ahead_destroy(&ahead);
}

TEST(readers_side_by_side_each_have_their_run)
{
    unsigned nr_plans = 0;
    uint64_t begin, end;
    open_ahead(1024 * MIB, 4 * MIB);
    for (uint64_t step = 0; step < 32; step++)
        for (uint64_t reader = 0; reader < READ_AHEAD_NR_RUNS; reader++)
            nr_plans += plans(reader * 100 * MIB + step * 128 * KIB, 128 * KIB, &begin, &end);
    CHECK(nr_plans >= 4 * READ_AHEAD_NR_RUNS);
    read_ahead_destroy(&ahead);
}

TEST(nothing_is_planned_behind_the_end)
{
    uint64_t begin, end;
    open_ahead(200 * KIB, 4 * MIB);
    CHECK(plans_nothing(0, 64 * KIB));
    CHECK(plans(64 * KIB, 64 * KIB, &begin, &end) && begin == 128 * KIB && end <= 200 * KIB);
    while (plans(128 * KIB, 72 * KIB, &begin, &end))
        CHECK(end <= 200 * KIB);
    read_ahead_destroy(&ahead);
}

TEST(a_window_shorter_than_a_chunk_is_none)
{
    open_ahead(100 * MIB, UNIT - 1);
    for (uint64_t offset = 0; offset < 4 * MIB; offset += 64 * KIB)
        CHECK(plans_nothing(offset, 64 * KIB));
    read_ahead_destroy(&ahead);
}

TEST_MAIN(T(a_first_read_plans_nothing), T(a_sequential_reader_is_kept_ahead_of_by_a_window_that_doubles_to_its_limit),
          T(long_reads_open_the_window_at_once), T(no_more_is_planned_than_was_read),
          T(reading_the_same_again_changes_nothing), T(random_reads_plan_nothing),
          T(readers_side_by_side_each_have_their_run), T(nothing_is_planned_behind_the_end),
          T(a_window_shorter_than_a_chunk_is_none))
