/* Blocks that failed: how often they may be tried again.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "check.h"

#include "source/suspects.h"

static struct suspects suspects;

static bool accuse(uint64_t block)
{
    return suspects_accuse(&suspects, block, 1000);
}

TEST(a_block_is_tried_again_twice_and_then_anew)
{
    suspects_init(&suspects);
    for (int round = 0; round < 3; round++) {
        CHECK(accuse(7));
        CHECK(accuse(7));
        CHECK(!accuse(7));
        CHECK(atomic_load(&suspects.nr) == 0);
    }
    suspects_destroy(&suspects);
}

TEST(blocks_are_counted_apart)
{
    suspects_init(&suspects);
    CHECK(accuse(1) && accuse(2) && accuse(1) && accuse(2));
    CHECK(!accuse(1));
    CHECK(!accuse(2));
    suspects_destroy(&suspects);
}

TEST(a_cleared_block_starts_from_nothing)
{
    suspects_init(&suspects);
    CHECK(accuse(1) && accuse(1));
    suspects_clear(&suspects, 1);
    suspects_clear(&suspects, 2);
    CHECK(atomic_load(&suspects.nr) == 0);
    CHECK(accuse(1) && accuse(1));
    suspects_destroy(&suspects);
}

TEST(when_all_places_are_taken_a_new_block_is_not_tried_again)
{
    suspects_init(&suspects);
    for (uint64_t block = 0; block < NR_SUSPECTS; block++)
        CHECK(accuse(block));
    CHECK(!accuse(NR_SUSPECTS));
    CHECK(accuse(3)); /* those inside keep their turns */
    suspects_clear(&suspects, 0);
    CHECK(accuse(NR_SUSPECTS));
    suspects_destroy(&suspects);
}

TEST(a_block_that_nobody_came_back_for_gives_up_its_place)
{
    suspects_init(&suspects);
    for (uint64_t block = 0; block < NR_SUSPECTS; block++)
        CHECK(suspects_accuse(&suspects, block, 1000));
    CHECK(!suspects_accuse(&suspects, 100, 1000 + SUSPECT_AGE_NS));
    CHECK(suspects_accuse(&suspects, 100, 1001 + SUSPECT_AGE_NS));
    suspects_destroy(&suspects);
}

TEST_MAIN(T(a_block_is_tried_again_twice_and_then_anew), T(blocks_are_counted_apart),
          T(a_cleared_block_starts_from_nothing), T(when_all_places_are_taken_a_new_block_is_not_tried_again),
          T(a_block_that_nobody_came_back_for_gives_up_its_place))
