/* A demand: noted, asked for, answered, cancelled, released.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "fake_source.h"

static struct fake fake;
static struct demand demand;
static int nr_ready;

static void count_ready(struct demand *ready)
{
    CHECK(ready == &demand);
    nr_ready++;
}

static void begin(void)
{
    fake_init(&fake);
    nr_ready = 0;
    demand_init(&demand, count_ready);
}

/* Nothing may be left over: no pin, no reference. */
static void end(void)
{
    demand_destroy(&demand);
    CHECK(fake.nr_pins == 0);
    source_unref(&fake.source);
    CHECK(fake.is_destroyed);
}

static void miss(uint64_t chunk)
{
    CHECK(demand_add(&demand, &fake.source, chunk, 100) == OBD_E_MISS);
}

TEST(the_same_chunk_is_noted_once)
{
    begin();
    miss(1);
    miss(2);
    miss(1);
    CHECK(demand.bytes == 200);
    demand_start(&demand);
    CHECK(fake.nr_requests == 2 && nr_ready == 0);
    fake_answer(&fake, 1, OBD_OK);
    fake_answer(&fake, 2, OBD_OK);
    end();
}

TEST(ready_is_called_once_when_the_last_of_two_chunks_arrives)
{
    begin();
    miss(3);
    miss(4);
    demand_start(&demand);
    fake_answer(&fake, 4, OBD_OK);
    CHECK(nr_ready == 0);
    fake_answer(&fake, 3, OBD_OK);
    CHECK(nr_ready == 1);
    CHECK_OK(demand_status(&demand));
    CHECK(fake.nr_pins == 2);
    demand_release(&demand);
    CHECK(fake.nr_pins == 0 && demand.bytes == 0);
    end();
}

TEST(ready_is_called_once_when_all_answer_at_once)
{
    begin();
    fake.answers_at_once = true;
    for (uint64_t chunk = 0; chunk < 5; chunk++)
        miss(chunk);
    demand_start(&demand);
    CHECK(nr_ready == 1);
    end();
}

TEST(an_empty_demand_is_ready_when_started)
{
    begin();
    demand_start(&demand);
    CHECK(nr_ready == 1);
    end();
}

TEST(the_first_failure_is_kept_with_its_sentence)
{
    begin();
    miss(1);
    miss(2);
    miss(3);
    demand_start(&demand);
    status_set(OBD_E_UNREACHABLE, "the registry is gone");
    fake_answer(&fake, 2, OBD_E_UNREACHABLE);
    status_set(OBD_E_CORRUPT, "a later one");
    fake_answer(&fake, 1, OBD_E_CORRUPT);
    CHECK(nr_ready == 0); /* what was asked for is waited for all the same */
    fake_answer(&fake, 3, OBD_OK);
    CHECK(nr_ready == 1);
    status_set(OBD_E_IO, "something else of this thread");
    CHECK_FAILS(demand_status(&demand), OBD_E_UNREACHABLE, "the registry is gone");
    end();
}

TEST(a_second_run_adds_to_the_demand_and_keeps_its_pins)
{
    begin();
    miss(1);
    demand_start(&demand);
    fake_answer(&fake, 1, OBD_OK);
    miss(2);
    miss(1); /* it was discarded: it has to be asked for again, not waited for in vain */
    demand_start(&demand);
    CHECK(fake.nr_requests == 3 && fake.nr_pins == 1);
    fake_answer(&fake, 1, OBD_OK);
    fake_answer(&fake, 2, OBD_OK);
    CHECK(nr_ready == 2 && fake.nr_pins == 3);
    end();
}

TEST(cancel_takes_back_what_is_open_and_calls_ready_once)
{
    begin();
    miss(1);
    miss(2);
    miss(3);
    demand_start(&demand);
    fake_answer(&fake, 2, OBD_OK);
    CHECK(demand_hold(&demand));
    CHECK(nr_ready == 0);
    status_set(OBD_E_TIMEOUT, "20 s have passed");
    demand_cancel(&demand, OBD_E_TIMEOUT);
    CHECK(nr_ready == 1 && fake.nr_cancels == 2);
    CHECK_FAILS(demand_status(&demand), OBD_E_TIMEOUT, "20 s have passed");
    CHECK(fake.nr_pins == 1);
    end();
}

TEST(a_cancel_while_the_sources_are_asked_takes_back_all_of_them)
{
    begin();
    fake.cancels_while_asked = true;
    for (uint64_t chunk = 0; chunk < 5; chunk++)
        miss(chunk);
    demand_start(&demand);
    CHECK(nr_ready == 1 && fake.nr_requests == 5 && fake.nr_cancels == 5);
    CHECK_FAILS(demand_status(&demand), OBD_E_CANCELLED, "cancelled by the first request");
    end();
}

TEST(a_hold_keeps_ready_back)
{
    begin();
    miss(1);
    demand_start(&demand);
    CHECK(demand_hold(&demand));
    fake_answer(&fake, 1, OBD_OK);
    CHECK(nr_ready == 0);
    demand_cancel(&demand, OBD_E_CANCELLED);
    CHECK(nr_ready == 1 && fake.nr_cancels == 0);
    end();
}

TEST(a_hold_after_ready_is_too_late)
{
    begin();
    CHECK(!demand_hold(&demand));
    miss(1);
    demand_start(&demand);
    fake_answer(&fake, 1, OBD_OK);
    CHECK(!demand_hold(&demand));
    end();
}

TEST(a_demand_can_be_used_again_after_a_cancel)
{
    begin();
    miss(1);
    demand_start(&demand);
    CHECK(demand_hold(&demand));
    demand_cancel(&demand, OBD_E_CANCELLED);
    demand_release(&demand);
    miss(1);
    demand_start(&demand);
    CHECK(fake.open[1] != NULL); /* not taken back by the old cancel */
    fake_answer(&fake, 1, OBD_OK);
    CHECK_OK(demand_status(&demand));
    CHECK(nr_ready == 2);
    end();
}

TEST(a_miss_keeps_its_source_alive)
{
    begin();
    miss(1);
    source_unref(&fake.source);
    CHECK(!fake.is_destroyed);
    demand_start(&demand);
    fake_answer(&fake, 1, OBD_OK);
    demand_release(&demand);
    CHECK(fake.is_destroyed);
    demand_destroy(&demand);
}

TEST_MAIN(T(the_same_chunk_is_noted_once), T(ready_is_called_once_when_the_last_of_two_chunks_arrives),
          T(ready_is_called_once_when_all_answer_at_once), T(an_empty_demand_is_ready_when_started),
          T(the_first_failure_is_kept_with_its_sentence), T(a_second_run_adds_to_the_demand_and_keeps_its_pins),
          T(cancel_takes_back_what_is_open_and_calls_ready_once),
          T(a_cancel_while_the_sources_are_asked_takes_back_all_of_them), T(a_hold_keeps_ready_back),
          T(a_hold_after_ready_is_too_late), T(a_demand_can_be_used_again_after_a_cancel),
          T(a_miss_keeps_its_source_alive))
