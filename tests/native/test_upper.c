/* Tests of the upper: what it shows, and that it shows it after a kill and a replay.
 * Killing it at every step is done in tests/fault. */
#define _GNU_SOURCE
#include "check.h"

#include "upper_pair.h"

TEST(upper_shows_what_was_written_last)
{
    new_pair();
    struct upper *upper = open_upper(0);
    CHECK_OK(write_fill(upper, 0, 4096, 1));
    CHECK_OK(write_fill(upper, 512, 512, 2));
    CHECK_OK(upper_discard(upper, 512, 1024));
    CHECK(sector_byte(upper, 0) == 1 && sector_byte(upper, 512) == 2);
    CHECK(sector_byte(upper, 1024) == 0 && sector_byte(upper, 1536) == 1);
    CHECK(sector_byte(upper, 4096) == -1);
    CHECK_OK(upper_close(upper));
    CHECK(size_of(journal_path) == UINT64_MAX);
    CHECK(size_of(index_path) == 4096 + 3 * 16);
    CHECK(size_of(data_path) == 4096 + 4096 + 512);
    upper = open_upper(OBD_UPPER_READ_ONLY);
    CHECK(sector_byte(upper, 0) == 1 && sector_byte(upper, 512) == 2 && sector_byte(upper, 1024) == 0);
    CHECK_OK(upper_close(upper));
}

TEST(upper_of_a_killed_process_has_every_acknowledged_write)
{
    new_pair();
    in_killed_process(write_ten);
    CHECK(size_of(index_path) == 4096); /* nothing was flushed */
    struct upper *upper = open_upper(0);
    struct obd_upper_stats stats;
    upper_stats(upper, &stats);
    CHECK(stats.replayed == 11 && shows_ten(upper));
    CHECK(size_of(index_path) == 4096 + 11 * 16);
    CHECK_OK(upper_close(upper));
    CHECK(size_of(journal_path) == UINT64_MAX);
}

TEST(upper_replays_only_what_was_not_flushed)
{
    new_pair();
    in_killed_process(flush_half);
    CHECK(size_of(index_path) == 4096 + 16);
    struct upper *upper = open_upper(0);
    struct obd_upper_stats stats;
    upper_stats(upper, &stats);
    CHECK(stats.replayed == 11 && shows_ten(upper));
    CHECK_OK(upper_close(upper));
}

TEST(upper_opened_by_a_tool_replays_in_memory_only)
{
    new_pair();
    in_killed_process(write_ten);
    struct {
        uint64_t data, index, journal;
    } before = {size_of(data_path), size_of(index_path), size_of(journal_path)};
    for (int i = 0; i < 2; i++) {
        struct upper *upper = open_upper(OBD_UPPER_READ_ONLY);
        CHECK(shows_ten(upper));
        CHECK_FAILS(write_fill(upper, 0, 512, 1), OBD_E_READ_ONLY, "read-only");
        CHECK_OK(upper_flush(upper));
        CHECK_OK(upper_close(upper));
        CHECK(size_of(data_path) == before.data && size_of(index_path) == before.index &&
              size_of(journal_path) == before.journal);
    }
}

static void write_round_after_round(struct upper *upper)
{
    for (int i = 0; i < 1000; i++) {
        while (write_fill(upper, (uint64_t)(i % 10) * 4096, 4096, i % 100 + 1) == OBD_E_AGAIN)
            CHECK_OK(upper_flush(upper));
    }
}

TEST(upper_survives_a_journal_that_went_round_many_times)
{
    new_pair();
    in_killed_process(write_round_after_round);
    struct upper *upper = open_upper(0);
    for (int i = 0; i < 10; i++)
        CHECK(sector_byte(upper, (uint64_t)i * 4096) == (990 + i) % 100 + 1);
    CHECK_OK(upper_close(upper));
}

TEST(upper_cuts_long_writes_and_discards_as_the_reference_does)
{
    new_pair();
    struct upper *upper = open_upper(0);
    CHECK_OK(write_fill(upper, 0, 9 << 20, 5));
    CHECK_OK(upper_discard(upper, UINT64_C(40) << 20, UINT64_C(16) << 20));
    CHECK_OK(upper_close(upper));
    CHECK(size_of(index_path) == 4096 + (3 + 6) * 16);
    upper = open_upper(0);
    struct segment s[9];
    CHECK(upper_lookup(upper, 0, DISK_SIZE / 512, s, 9) == 9);
    CHECK(s[0].length == 8192 && s[1].length == 8192 && s[2].length == 2048 && s[2].moffset == 8 + 16384);
    CHECK(s[3].zeroed && s[3].offset == 32768 && s[3].length == 16383 && s[3].moffset == 8 + (9 << 11));
    CHECK(segment_end(s[8]) == (UINT64_C(56) << 20) / 512);
    CHECK_OK(upper_close(upper));
}

/* ---- without the journal: what it is good for ---- */

static void write_without_journal(struct upper *upper)
{
    CHECK_OK(upper_close(upper));
    write_ten(open_upper(OBD_UPPER_NO_JOURNAL));
}

TEST(upper_without_a_journal_loses_what_was_not_flushed)
{
    new_pair();
    in_killed_process(write_without_journal);
    CHECK(size_of(journal_path) == UINT64_MAX);
    struct upper *upper = open_upper(0);
    CHECK(!shows_ten(upper) && sector_byte(upper, 0) == -1);
    CHECK_OK(upper_close(upper));
}

TEST(upper_leaves_no_room_reserved_behind_its_files)
{
    struct stat st;
    new_pair();
    struct upper *upper = open_upper(0);
    write_ten(upper);
    CHECK_OK(upper_close(upper));
    CHECK(stat(data_path, &st) == 0 && (uint64_t)st.st_blocks * 512 < 200000);
}

TEST(upper_refuses_impossible_parameters)
{
    struct upper *upper;
    new_pair();
    struct obd_upper_params p = params(0);
    p.uuid = "short";
    CHECK_FAILS(upper_open(&p, &upper), OBD_E_INVALID, "36");
    p = params(0);
    p.virtual_size = 1000;
    CHECK_FAILS(upper_open(&p, &upper), OBD_E_INVALID, "1000");
    p = params(0);
    p.tag = 256;
    CHECK_FAILS(upper_open(&p, &upper), OBD_E_LIMIT, "256");
    p = params(0);
    p.journal_slots = JOURNAL_MAX_SLOTS + 1;
    CHECK_FAILS(upper_open(&p, &upper), OBD_E_INVALID, "slots");
}

TEST_MAIN(T(upper_has_a_folder), T(upper_shows_what_was_written_last),
          T(upper_of_a_killed_process_has_every_acknowledged_write), T(upper_replays_only_what_was_not_flushed),
          T(upper_opened_by_a_tool_replays_in_memory_only), T(upper_survives_a_journal_that_went_round_many_times),
          T(upper_cuts_long_writes_and_discards_as_the_reference_does),
          T(upper_without_a_journal_loses_what_was_not_flushed), T(upper_leaves_no_room_reserved_behind_its_files),
          T(upper_refuses_impossible_parameters), T(upper_left_nothing_in_the_folder))
