/* The mutable index, against an array of sectors.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sector_model.h"

#include "index/segment_map.h"

static struct sector_model model;

static void insert(struct segment_map *map, struct segment s)
{
    CHECK_OK(segment_map_reserve(map, 1));
    segment_map_insert(map, s);
    model_write(&model, s, s.tag);
    CHECK(segment_map_check(map));
}

static void compare_all(const struct segment_map *map)
{
    struct segment_array frozen;
    CHECK_OK(segment_map_freeze(map, &frozen));
    CHECK(segment_array_check(&frozen));
    CHECK(frozen.nr == segment_map_count(map));
    model_compare(&model, frozen.segments, frozen.nr, 0, MODEL_SECTORS);
    segment_array_free(&frozen);
}

/* Reads [begin, end) in small batches, as readers do. */
static void compare_range(const struct segment_map *map, uint64_t begin, uint64_t end)
{
    static struct segment all[MODEL_SECTORS];
    size_t nr = 0, got;
    uint64_t from = begin;
    do {
        got = segment_map_lookup(map, from, end, all + nr, 7);
        nr += got;
        if (got > 0)
            from = segment_end(all[nr - 1]);
    } while (got == 7);
    model_compare(&model, all, nr, begin, end);
}

static struct segment_map *new_map(void)
{
    struct segment_map *map;
    model_clear(&model);
    CHECK_OK(segment_map_new(&map));
    CHECK(segment_map_check(map));
    return map;
}

TEST(an_empty_map_has_nothing)
{
    struct segment_map *map = new_map();
    struct segment out[1];
    CHECK(segment_map_count(map) == 0);
    CHECK(segment_map_lookup(map, 0, UINT64_MAX, out, 1) == 0);
    compare_all(map);
    segment_map_free(map);
}

TEST(insert_inside_a_segment_cuts_it_in_two)
{
    struct segment_map *map = new_map();
    struct segment out[4];
    insert(map, (struct segment){.offset = 10, .length = 20, .moffset = 100});
    insert(map, (struct segment){.offset = 15, .length = 5, .moffset = 500});
    CHECK(segment_map_lookup(map, 0, MODEL_SECTORS, out, 4) == 3);
    CHECK(out[0].offset == 10 && out[0].length == 5 && out[0].moffset == 100);
    CHECK(out[1].offset == 15 && out[1].length == 5 && out[1].moffset == 500);
    CHECK(out[2].offset == 20 && out[2].length == 10 && out[2].moffset == 110);
    segment_map_free(map);
}

TEST(the_right_half_of_a_cut_zeroed_segment_keeps_its_moffset)
{
    struct segment_map *map = new_map();
    struct segment out[4];
    insert(map, (struct segment){.offset = 10, .length = 20, .moffset = 100, .zeroed = 1});
    insert(map, (struct segment){.offset = 15, .length = 5, .moffset = 500});
    CHECK(segment_map_lookup(map, 20, MODEL_SECTORS, out, 4) == 1);
    CHECK(out[0].zeroed && out[0].moffset == 100);
    segment_map_free(map);
}

TEST(neighbours_are_not_joined)
{
    struct segment_map *map = new_map();
    insert(map, (struct segment){.offset = 0, .length = 8, .moffset = 8});
    insert(map, (struct segment){.offset = 8, .length = 8, .moffset = 16});
    CHECK(segment_map_count(map) == 2);
    segment_map_free(map);
}

TEST(lookup_clips_to_the_range_and_stops_at_max)
{
    struct segment_map *map = new_map();
    struct segment out[2];
    for (uint64_t i = 0; i < 10; i++)
        insert(map, (struct segment){.offset = 10 * i, .length = 10, .moffset = 1000 * i});
    CHECK(segment_map_lookup(map, 5, 15, out, 2) == 2);
    CHECK(out[0].offset == 5 && out[0].length == 5 && out[0].moffset == 5);
    CHECK(out[1].offset == 10 && out[1].length == 5 && out[1].moffset == 1000);
    CHECK(segment_map_lookup(map, 0, 100, out, 2) == 2);
    CHECK(segment_map_lookup(map, 100, 200, out, 2) == 0);
    segment_map_free(map);
}

/* Random writes, short ones mostly, so that leaves split, and now and then one
 * that covers many leaves. */
static void write_at_random(unsigned seed, int nr_writes, uint64_t usual, int long_every)
{
    struct segment_map *map = new_map();
    srandom(seed);
    for (int i = 0; i < nr_writes; i++) {
        struct segment s = random_segment(random() % long_every == 0 ? MODEL_SECTORS - 1 : usual);
        s.tag = (uint64_t)random() % 3;
        insert(map, s);
        if (i % 200 == 0) {
            uint64_t begin = (uint64_t)random() % MODEL_SECTORS;
            compare_range(map, begin, begin + (uint64_t)random() % (MODEL_SECTORS - begin + 1));
        }
    }
    compare_all(map);
    segment_map_free(map);
}

TEST(random_single_sectors_equal_the_model)
{
    write_at_random(1, 12000, 1, 4000);
}

TEST(random_short_writes_equal_the_model)
{
    for (unsigned seed = 2; seed < 6; seed++)
        write_at_random(seed, 4000, 6, 500);
}

TEST(random_long_writes_equal_the_model)
{
    for (unsigned seed = 10; seed < 20; seed++)
        write_at_random(seed, 600, 900, 5);
}

TEST(writes_in_falling_order_equal_the_model)
{
    struct segment_map *map = new_map();
    for (uint64_t i = MODEL_SECTORS; i-- > 0;)
        insert(map, (struct segment){.offset = i, .length = 1, .moffset = i});
    CHECK(segment_map_count(map) == MODEL_SECTORS);
    compare_all(map);
    segment_map_free(map);
}

/* Every insert of a big reservation falls into a leaf that is already full. */
TEST(one_reserve_is_enough_for_the_worst_order_of_inserts)
{
    struct segment_map *map = new_map();
    const uint64_t nr = 200000;
    CHECK_OK(segment_map_reserve(map, nr));
    for (uint64_t i = 0; i < nr; i++)
        segment_map_insert(map, (struct segment){.offset = 4 * i, .length = 4, .moffset = i});
    CHECK_OK(segment_map_reserve(map, nr));
    for (uint64_t i = 0; i < nr; i++) { /* each cuts one in two; scattered over the leaves */
        uint64_t place = i * 7919 % nr;
        segment_map_insert(map, (struct segment){.offset = 4 * place + 1, .length = 1, .moffset = i});
    }
    CHECK(segment_map_check(map));
    CHECK(segment_map_count(map) == 3 * nr);
    segment_map_free(map);
}

/* Leaves are filled to the brim one by one, so that each insert of the last round
 * splits one: in rising order a leaf keeps 128 segments, and 255 fill it. */
TEST(one_reserve_is_enough_when_every_leaf_is_full)
{
    enum { NR_LEAVES = 40, KEPT = 128, FULL = 255 };
    struct segment_map *map = new_map();
    for (uint64_t i = 0; i < NR_LEAVES * KEPT; i++) {
        CHECK_OK(segment_map_reserve(map, 1));
        segment_map_insert(map, (struct segment){.offset = 8 * i, .length = 1, .moffset = i});
    }
    for (uint64_t leaf = 0; leaf < NR_LEAVES; leaf++)
        for (uint64_t i = 0; i < FULL - KEPT; i++) {
            CHECK_OK(segment_map_reserve(map, 1));
            segment_map_insert(map, (struct segment){.offset = 8 * (leaf * KEPT + i) + 2, .length = 1, .moffset = i});
        }
    CHECK_OK(segment_map_reserve(map, NR_LEAVES));
    for (uint64_t leaf = 0; leaf < NR_LEAVES; leaf++)
        segment_map_insert(map, (struct segment){.offset = 8 * leaf * KEPT + 4, .length = 1, .moffset = leaf});
    CHECK(segment_map_check(map));
    CHECK(segment_map_count(map) == NR_LEAVES * (FULL + 1));
    segment_map_free(map);
}

TEST(overwriting_all_leaves_one_segment)
{
    struct segment_map *map = new_map();
    CHECK_OK(segment_map_reserve(map, 10001));
    for (uint64_t i = 0; i < 10000; i++)
        segment_map_insert(map, (struct segment){.offset = i + 1, .length = 1, .moffset = i});
    segment_map_insert(map, (struct segment){.offset = 0, .length = 16383, .moffset = 9});
    CHECK(segment_map_check(map));
    CHECK(segment_map_count(map) == 1);
    segment_map_free(map);
}

TEST_MAIN(T(an_empty_map_has_nothing), T(insert_inside_a_segment_cuts_it_in_two),
          T(the_right_half_of_a_cut_zeroed_segment_keeps_its_moffset), T(neighbours_are_not_joined),
          T(lookup_clips_to_the_range_and_stops_at_max), T(random_single_sectors_equal_the_model),
          T(random_short_writes_equal_the_model), T(random_long_writes_equal_the_model),
          T(writes_in_falling_order_equal_the_model), T(one_reserve_is_enough_for_the_worst_order_of_inserts),
          T(one_reserve_is_enough_when_every_leaf_is_full), T(overwriting_all_leaves_one_segment))
