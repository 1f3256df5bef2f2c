/* Merging layers' indexes, against an array of sectors written from the bottom up.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sector_model.h"

#include "index/segment_array.h"
#include "index/segment_map.h"

#define MAX_TEST_LAYERS OBD_MAX_LAYERS

static struct sector_model model;

/* layers[0] is the top one, as in segment_array_merge. */
static struct segment_array layers[MAX_TEST_LAYERS];
static size_t nr_layers;

static void make_layers(unsigned seed, size_t nr, int nr_segments, uint64_t max_length)
{
    srandom(seed);
    nr_layers = nr;
    for (size_t i = 0; i < nr; i++) {
        struct segment_map *map;
        CHECK_OK(segment_map_new(&map));
        int wanted = nr_segments > 0 ? (int)(random() % nr_segments) : 0;
        CHECK_OK(segment_map_reserve(map, (size_t)wanted));
        for (int k = 0; k < wanted; k++)
            segment_map_insert(map, random_segment(max_length));
        CHECK_OK(segment_map_freeze(map, &layers[i]));
        segment_map_free(map);
    }
}

static void free_layers(void)
{
    for (size_t i = 0; i < nr_layers; i++)
        segment_array_free(&layers[i]);
}

static void fill_model(void)
{
    model_clear(&model);
    for (size_t i = nr_layers; i-- > 0;)
        for (size_t k = 0; k < layers[i].nr; k++)
            model_write(&model, layers[i].segments[k], (int)i);
}

static void merge(struct segment_array *merged)
{
    const struct segment_array *pointers[MAX_TEST_LAYERS];
    for (size_t i = 0; i < nr_layers; i++)
        pointers[i] = &layers[i];
    CHECK_OK(segment_array_merge(merged, pointers, nr_layers));
    CHECK(segment_array_check(merged));
}

static void check_merge(unsigned seed, size_t nr, int nr_segments, uint64_t max_length)
{
    struct segment_array merged;
    make_layers(seed, nr, nr_segments, max_length);
    fill_model();
    merge(&merged);
    model_compare(&model, merged.segments, merged.nr, 0, MODEL_SECTORS);
    segment_array_free(&merged);
    free_layers();
}

TEST(merge_of_nothing_is_empty)
{
    struct segment_array merged;
    CHECK_OK(segment_array_merge(&merged, NULL, 0));
    CHECK(merged.nr == 0 && merged.segments == NULL);
}

TEST(merge_of_empty_layers_is_empty)
{
    check_merge(1, 5, 0, 1);
}

TEST(merge_of_one_layer_is_that_layer)
{
    check_merge(2, 1, 300, 20);
}

TEST(merge_equals_writing_the_layers_one_over_the_other)
{
    for (unsigned seed = 10; seed < 60; seed++)
        check_merge(seed, 1 + seed % 9, 60, seed % 2 == 0 ? 300 : 12);
}

TEST(merge_of_255_layers_keeps_every_tag)
{
    check_merge(3, MAX_TEST_LAYERS, 40, 30);
}

/* A segment that shows through many gaps appears once in each, and nowhere is it
 * cut without need (spec/lsmt.md section 6.2). */
TEST(merge_cuts_a_lower_segment_only_where_it_is_covered)
{
    struct segment comb[100], wide = {.offset = 0, .length = 1000, .moffset = 50};
    for (uint64_t i = 0; i < 100; i++)
        comb[i] = (struct segment){.offset = 10 * i + 5, .length = 1, .moffset = i};
    const struct segment_array top = {.segments = comb, .nr = 100}, bottom = {.segments = &wide, .nr = 1};
    const struct segment_array *const both[] = {&top, &bottom};
    struct segment_array merged;
    CHECK_OK(segment_array_merge(&merged, both, 2));
    CHECK(merged.nr == 201);
    CHECK(merged.segments[0].offset == 0 && merged.segments[0].length == 5 && merged.segments[0].tag == 1);
    CHECK(merged.segments[2].offset == 6 && merged.segments[2].length == 9 && merged.segments[2].moffset == 56);
    CHECK(merged.segments[200].offset == 996 && merged.segments[200].length == 4);
    segment_array_free(&merged);
}

TEST(merge_does_not_cut_at_the_border_of_two_touching_segments)
{
    struct segment upper[2] = {{.offset = 10, .length = 5, .moffset = 1}, {.offset = 15, .length = 5, .moffset = 99}};
    struct segment lower = {.offset = 0, .length = 30, .moffset = 200};
    const struct segment_array top = {.segments = upper, .nr = 2}, bottom = {.segments = &lower, .nr = 1};
    const struct segment_array *const both[] = {&top, &bottom};
    struct segment_array merged;
    CHECK_OK(segment_array_merge(&merged, both, 2));
    CHECK(merged.nr == 4);
    segment_array_free(&merged);
}

TEST_MAIN(T(merge_of_nothing_is_empty), T(merge_of_empty_layers_is_empty), T(merge_of_one_layer_is_that_layer),
          T(merge_equals_writing_the_layers_one_over_the_other), T(merge_of_255_layers_keeps_every_tag),
          T(merge_cuts_a_lower_segment_only_where_it_is_covered),
          T(merge_does_not_cut_at_the_border_of_two_touching_segments))
