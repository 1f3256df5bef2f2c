/* A sealed layer's index: what is accepted, what is refused, and look-ups.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "check.h"

#include "index/segment_array.h"

#define DATA_BEGIN 8
#define DATA_END   1000

static struct segment at(uint64_t offset, uint64_t length, uint64_t moffset)
{
    return (struct segment){.offset = offset, .length = length, .moffset = moffset};
}

static const struct segment padding = {.offset = SEGMENT_INVALID_OFFSET};

static enum obd_status load(struct segment_array *array, const struct segment *entries, size_t nr)
{
    uint8_t disk[16 * 16];
    segments_to_disk(disk, entries, nr);
    return segment_array_load(array, disk, nr, DATA_BEGIN, DATA_END);
}

static void check_refused(const struct segment *entries, size_t nr, const char *part)
{
    struct segment_array array;
    CHECK_FAILS(load(&array, entries, nr), OBD_E_CORRUPT, part);
    CHECK(array.segments == NULL && array.nr == 0);
}

TEST(segment_is_sixteen_little_endian_bytes)
{
    struct segment s = {
        .offset = 0x123456789ABCDu, .length = 0x3FFF, .moffset = 0x55AA55AA55AA55u, .zeroed = 1, .tag = 0xC3};
    const uint8_t expected[16] = {0xCD, 0xAB, 0x89, 0x67, 0x45, 0x23, 0xFD, 0xFF,
                                  0x55, 0xAA, 0x55, 0xAA, 0x55, 0xAA, 0xD5, 0xC3};
    uint8_t disk[16];
    segments_to_disk(disk, &s, 1);
    CHECK(memcmp(disk, expected, 16) == 0);
    struct segment back;
    segments_from_disk(&back, disk, 1);
    CHECK(back.offset == s.offset && back.length == s.length && back.moffset == s.moffset && back.zeroed == 1 &&
          back.tag == s.tag);
}

TEST(load_keeps_order_and_drops_padding_and_empty_entries)
{
    struct segment entries[] = {padding, at(0, 8, 8), at(3, 0, 0), padding, at(8, 4, 16), at(100, 1, 20), padding};
    struct segment_array array;
    entries[1].tag = 77;
    CHECK_OK(load(&array, entries, 7));
    CHECK(array.nr == 3);
    CHECK(array.segments[0].offset == 0 && array.segments[1].offset == 8 && array.segments[2].offset == 100);
    CHECK(array.segments[0].tag == 0);
    CHECK(segment_array_check(&array));
    segment_array_free(&array);
}

TEST(load_of_nothing_or_padding_alone_is_an_empty_array)
{
    struct segment_array array;
    CHECK_OK(segment_array_load(&array, NULL, 0, DATA_BEGIN, DATA_END));
    CHECK(array.nr == 0 && array.segments == NULL);
    CHECK_OK(load(&array, &padding, 1));
    CHECK(array.nr == 0 && array.segments == NULL);
    CHECK(segment_array_find(&array, 0) == 0);
}

TEST(load_refuses_entries_out_of_order)
{
    struct segment entries[] = {at(10, 4, 8), at(5, 2, 16)};
    check_refused(entries, 2, "index entry 1 of 2");
}

TEST(load_refuses_entries_that_overlap_across_padding)
{
    struct segment entries[] = {at(10, 4, 8), padding, at(13, 2, 16)};
    check_refused(entries, 3, "index entry 2 of 3: it starts at sector 13, before the end of the one before it at 14");
}

TEST(load_refuses_data_outside_of_the_layer_file)
{
    struct segment before = at(0, 8, 7), past = at(0, 8, DATA_END - 7), far = at(0, 8, SEGMENT_MAX_MOFFSET);
    check_refused(&before, 1, "index entry 0 of 1: its data is at sectors 7 to 15, outside of 8 to 1000");
    check_refused(&past, 1, "outside of 8 to 1000");
    check_refused(&far, 1, "outside of 8 to 1000");
}

TEST(load_takes_a_zeroed_entry_at_the_very_end_of_the_data)
{
    struct segment zeroed = {.offset = 0, .length = 16383, .moffset = DATA_END, .zeroed = 1};
    struct segment_array array;
    CHECK_OK(load(&array, &zeroed, 1));
    segment_array_free(&array);
    zeroed.moffset = DATA_END + 1;
    check_refused(&zeroed, 1, "outside");
}

TEST(load_refuses_a_segment_whose_rest_could_not_be_a_segment)
{
    struct segment last = at(SEGMENT_MAX_OFFSET - 8, 8, 8), past = at(SEGMENT_MAX_OFFSET - 8, 9, 8);
    struct segment_array array;
    CHECK_OK(load(&array, &last, 1));
    segment_array_free(&array);
    check_refused(&past, 1, "index entry 0 of 1: it ends at sector 1125899906842624, past 1125899906842623");
}

TEST(find_is_the_first_segment_that_ends_past_the_sector)
{
    for (size_t nr = 0; nr < 40; nr++) {
        struct segment segments[40];
        struct segment_array array = {.segments = nr > 0 ? segments : NULL, .nr = nr};
        for (size_t i = 0; i < nr; i++)
            segments[i] = at(10 * i + 3, 1 + i % 7, 0);
        for (uint64_t sector = 0; sector < 10 * nr + 20; sector++) {
            size_t expected = 0;
            while (expected < nr && segment_end(segments[expected]) <= sector)
                expected++;
            CHECK(segment_array_find(&array, sector) == expected);
        }
    }
}

TEST_MAIN(T(segment_is_sixteen_little_endian_bytes), T(load_keeps_order_and_drops_padding_and_empty_entries),
          T(load_of_nothing_or_padding_alone_is_an_empty_array), T(load_refuses_entries_out_of_order),
          T(load_refuses_entries_that_overlap_across_padding), T(load_refuses_data_outside_of_the_layer_file),
          T(load_takes_a_zeroed_entry_at_the_very_end_of_the_data),
          T(load_refuses_a_segment_whose_rest_could_not_be_a_segment),
          T(find_is_the_first_segment_that_ends_past_the_sector))
