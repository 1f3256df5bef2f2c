/* Tests of the upper on a disk that is full or fails: what is lost, and what never is. */
#define _GNU_SOURCE
#include <errno.h>

#include "check.h"

#include "upper_pair.h"

TEST(upper_on_a_full_disk_fails_one_write_and_loses_nothing)
{
    static const char *const operations[] = {"reserve", "write"};
    for (int i = 0; i < 2; i++) {
        new_pair();
        struct upper *upper = open_upper(0);
        CHECK_OK(write_fill(upper, 0, 4096, 1));
        fail_file("/data", operations[i], 1, ENOSPC, 1);
        CHECK_FAILS(write_fill(upper, 0, 20 << 20, 2), OBD_E_NO_SPACE, data_path);
        CHECK(sector_byte(upper, 0) == 1);
        CHECK_OK(upper_discard(upper, 4096, 8192)); /* needs no data */
        no_faults();
        CHECK_OK(write_fill(upper, 4096, 4096, 3));
        struct obd_upper_stats stats;
        upper_stats(upper, &stats);
        CHECK(stats.unflushed_bytes == 8192 && stats.live_bytes == 8192 && !stats.is_failed);
        CHECK_OK(upper_close(upper));
        upper = open_upper(0);
        CHECK(sector_byte(upper, 0) == 1 && sector_byte(upper, 4096) == 3 && sector_byte(upper, 8192) == 0);
        CHECK_OK(upper_close(upper));
    }
}

TEST(upper_takes_less_than_a_step_when_the_disk_has_no_more)
{
    new_pair();
    struct upper *upper = open_upper(0);
    fail_file("/data", "reserve", 1, ENOSPC, 0);
    CHECK_OK(write_fill(upper, 0, 4096, 1));
    no_faults();
    fail_file("/index", "reserve", 1, ENOSPC, 1);
    CHECK_OK(upper_discard(upper, 4096, 4096)); /* the first write took a whole step of the index */
    no_faults();
    CHECK_OK(upper_close(upper));
}

TEST(upper_without_room_in_the_index_file_refuses_before_writing)
{
    new_pair();
    struct upper *upper = open_upper(0);
    fail_file("/index", "reserve", 1, ENOSPC, 1);
    CHECK_FAILS(write_fill(upper, 0, 4096, 1), OBD_E_NO_SPACE, index_path);
    CHECK_FAILS(upper_discard(upper, 4096, 0), OBD_E_NO_SPACE, index_path);
    no_faults();
    CHECK(size_of(data_path) == 4096 && sector_byte(upper, 0) == -1);
    CHECK_OK(upper_close(upper));
}

TEST(upper_survives_a_short_append_to_the_index)
{
    new_pair();
    struct upper *upper = open_upper(0);
    write_ten(upper);
    fail_file("/index", "tear", 1, ENOSPC, 0);
    CHECK_FAILS(upper_flush(upper), OBD_E_NO_SPACE, index_path);
    CHECK(size_of(index_path) == 4096);
    CHECK(shows_ten(upper));
    CHECK_OK(upper_flush(upper));
    CHECK(size_of(index_path) == 4096 + 11 * 16);
    no_faults();
    CHECK_OK(upper_close(upper));
}

/* A second append of the same flush fails, so that the first must be cut back. */
static void write_many(struct upper *upper, int nr)
{
    for (int i = 0; i < nr; i++)
        while (write_fill(upper, (uint64_t)i * 512, 512, i % 100 + 1) == OBD_E_AGAIN)
            CHECK_OK(upper_flush(upper));
}

TEST(upper_cuts_a_half_appended_flush_back)
{
    new_pair();
    struct obd_upper_params p = params(0);
    struct upper *upper;
    p.journal_slots = 2000;
    CHECK_OK(upper_open(&p, &upper));
    write_many(upper, 600);
    fail_file("/index", "write", 2, EIO, 0);
    CHECK_FAILS(upper_flush(upper), OBD_E_IO, index_path);
    CHECK(size_of(index_path) == 4096);
    no_faults();
    CHECK_OK(upper_close(upper));
    CHECK(size_of(index_path) == 4096 + 600 * 16);
}

static void check_failed_sync(const char *suffix)
{
    new_pair();
    struct upper *upper = open_upper(0);
    CHECK_OK(write_fill(upper, 0, 4096, 1));
    CHECK_OK(upper_flush(upper));
    CHECK_OK(write_fill(upper, 0, 4096, 2));
    CHECK_OK(upper_discard(upper, 512, 8192));
    fail_file(suffix, "sync", 1, EIO, 0);
    CHECK_FAILS(upper_flush(upper), OBD_E_IO, suffix);
    no_faults();
    /* From now on: what was flushed, and nothing else. */
    CHECK(sector_byte(upper, 0) == 1 && sector_byte(upper, 8192) == -1);
    CHECK_FAILS(write_fill(upper, 0, 512, 3), OBD_E_READ_ONLY, suffix);
    CHECK_FAILS(upper_discard(upper, 512, 0), OBD_E_READ_ONLY, "flushed last");
    CHECK_FAILS(upper_flush(upper), OBD_E_READ_ONLY, "flushed last");
    struct obd_upper_stats stats;
    upper_stats(upper, &stats);
    CHECK(stats.is_failed);
    CHECK(size_of(index_path) == 4096 + 16);
    CHECK_FAILS(upper_close(upper), OBD_E_READ_ONLY, "flushed last");

    /* At later starts too, whatever boot. */
    for (int i = 0; i < 2; i++) {
        upper = open_upper(0);
        CHECK(upper_is_read_only(upper) && sector_byte(upper, 0) == 1);
        CHECK_FAILS(write_fill(upper, 0, 512, 3), OBD_E_READ_ONLY, "failed earlier");
        CHECK_OK(upper_close(upper));
        change_journal(other_boot);
    }
    upper = open_upper(OBD_UPPER_DROP_UNFLUSHED);
    CHECK(sector_byte(upper, 0) == 1);
    CHECK_OK(write_fill(upper, 0, 512, 3));
    CHECK_OK(upper_close(upper));
    CHECK(size_of(journal_path) == UINT64_MAX);
}

TEST(upper_is_read_only_at_its_flushed_state_after_a_failed_sync_of_data)
{
    check_failed_sync("/data");
}

TEST(upper_is_read_only_at_its_flushed_state_after_a_failed_sync_of_the_index)
{
    check_failed_sync("/index");
}

TEST(upper_that_failed_believes_no_entry_behind_the_flushed_ones)
{
    new_pair();
    struct upper *upper = open_upper(0);
    CHECK_OK(write_fill(upper, 0, 4096, 1));
    CHECK_OK(upper_flush(upper));
    CHECK_OK(write_fill(upper, 0, 4096, 2));
    fail_file("/index", "sync", 1, EIO, 0);
    fail_file("/index", "truncate", 1, EIO, 0); /* and the tail cannot even be cut */
    CHECK_FAILS(upper_flush(upper), OBD_E_IO, "sync");
    no_faults();
    CHECK(size_of(index_path) == 4096 + 32 && sector_byte(upper, 0) == 1);
    CHECK(upper_close(upper) == OBD_E_READ_ONLY);
    upper = open_upper(0);
    CHECK(sector_byte(upper, 0) == 1);
    CHECK_OK(upper_close(upper));
    upper = open_upper(OBD_UPPER_DROP_UNFLUSHED);
    CHECK(sector_byte(upper, 0) == 1 && size_of(index_path) == 4096 + 16);
    CHECK_OK(upper_close(upper));
}

TEST(upper_whose_replay_cannot_be_synced_is_failed)
{
    new_pair();
    in_killed_process(flush_half);
    fail_file("/data", "sync", 1, EIO, 0);
    check_refused(0, OBD_E_IO, "replaying");
    no_faults();
    struct upper *upper = open_upper(0);
    CHECK(upper_is_read_only(upper) && sector_byte(upper, 0) == 77 && sector_byte(upper, 4096) == -1);
    CHECK_OK(upper_close(upper));
}

TEST(upper_whose_replay_meets_a_full_disk_can_be_opened_later)
{
    new_pair();
    in_killed_process(write_ten);
    fail_file("/index", "write", 1, ENOSPC, 0);
    check_refused(0, OBD_E_NO_SPACE, index_path);
    no_faults();
    struct upper *upper = open_upper(0);
    CHECK(shows_ten(upper));
    CHECK_OK(upper_close(upper));
}

TEST(upper_without_space_for_a_journal_does_not_open)
{
    new_pair();
    fail_file("/index.journal.new", "reserve", 1, ENOSPC, 0);
    check_refused(0, OBD_E_NO_SPACE, "journal");
    no_faults();
    char new_path[100];
    snprintf(new_path, sizeof new_path, "%s.new", journal_path);
    CHECK(size_of(journal_path) == UINT64_MAX && size_of(new_path) == UINT64_MAX);
}

TEST(upper_that_cannot_flush_at_close_keeps_its_journal)
{
    new_pair();
    struct upper *upper = open_upper(0);
    write_ten(upper);
    fail_file("/index", "write", 1, ENOSPC, 1);
    CHECK_FAILS(upper_close(upper), OBD_E_NO_SPACE, index_path);
    no_faults();
    upper = open_upper(0);
    CHECK(shows_ten(upper));
    CHECK_OK(upper_close(upper));
}

TEST_MAIN(T(upper_has_a_folder), T(upper_on_a_full_disk_fails_one_write_and_loses_nothing),
          T(upper_takes_less_than_a_step_when_the_disk_has_no_more),
          T(upper_without_room_in_the_index_file_refuses_before_writing), T(upper_survives_a_short_append_to_the_index),
          T(upper_cuts_a_half_appended_flush_back),
          T(upper_is_read_only_at_its_flushed_state_after_a_failed_sync_of_data),
          T(upper_is_read_only_at_its_flushed_state_after_a_failed_sync_of_the_index),
          T(upper_that_failed_believes_no_entry_behind_the_flushed_ones),
          T(upper_whose_replay_cannot_be_synced_is_failed), T(upper_whose_replay_meets_a_full_disk_can_be_opened_later),
          T(upper_without_space_for_a_journal_does_not_open), T(upper_that_cannot_flush_at_close_keeps_its_journal),
          T(upper_left_nothing_in_the_folder))
