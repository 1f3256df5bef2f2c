/* The jump table: sums of stored lengths, at any number of blocks and in any pieces.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "check.h"

#include "source/jump_table.h"

static const struct jump_table_rules rules = {
    .first_offset = 512, .end = UINT64_C(1) << 40, .min_stored = 5, .max_stored = 70000};

static void check_sums(uint64_t nr_blocks, uint64_t max_piece)
{
    struct jump_table table;
    uint64_t *expected = malloc((nr_blocks + 1) * sizeof *expected);
    CHECK_OK(jump_table_new(&table, nr_blocks, &rules));
    expected[0] = rules.first_offset;
    while (table.nr_built < nr_blocks) {
        uint64_t left = nr_blocks - table.nr_built, piece = 1 + (uint64_t)random() % max_piece;
        piece = piece < left ? piece : left;
        for (uint64_t i = table.nr_built; i < table.nr_built + piece; i++) {
            table.offsets[i] = rules.min_stored + (uint32_t)random() % (rules.max_stored - rules.min_stored + 1);
            expected[i + 1] = expected[i] + table.offsets[i];
        }
        CHECK_OK(jump_table_build(&table, piece, &rules));
    }
    for (uint64_t block = 0; block <= nr_blocks; block++)
        CHECK(jump_table_offset(&table, block) == expected[block]);
    jump_table_free(&table);
    free(expected);
}

TEST(sums_are_right_around_the_borders_of_groups)
{
    for (uint64_t nr = 0; nr < 300; nr++)
        check_sums(nr, 100);
}

TEST(sums_do_not_depend_on_the_pieces)
{
    check_sums(100000, 1);
    check_sums(100000, 100000);
}

TEST(offsets_past_four_gigabytes_are_right)
{
    check_sums(200000, 5000); /* 7 GB on the average */
}

static void check_refused(uint32_t stored, uint64_t end, const char *part)
{
    struct jump_table_rules strict = rules;
    struct jump_table table;
    strict.end = end;
    CHECK_OK(jump_table_new(&table, 3, &strict));
    table.offsets[0] = table.offsets[1] = 100;
    table.offsets[2] = stored;
    CHECK_FAILS(jump_table_build(&table, 3, &strict), OBD_E_CORRUPT, part);
    jump_table_free(&table);
}

TEST(a_length_outside_of_the_rules_is_refused_with_its_block)
{
    check_refused(4, rules.end, "block 2 is 4 bytes long, not 5 to 70000");
    check_refused(70001, rules.end, "block 2 is 70001 bytes long");
    check_refused(UINT32_MAX, rules.end, "block 2 is 4294967295 bytes long");
    check_refused(101, 812, "block 2 ends at 813, past the end of the blocks at 812");
}

TEST_MAIN(T(sums_are_right_around_the_borders_of_groups), T(sums_do_not_depend_on_the_pieces),
          T(offsets_past_four_gigabytes_are_right), T(a_length_outside_of_the_rules_is_refused_with_its_block))
