/* Tests of what a journal beside an upper means: see the table in upper_replay.c. */
#define _GNU_SOURCE
#include "check.h"

#include "upper_pair.h"

static void other_inode(struct journal_header *header)
{
    header->owner.data_inode++;
}

static void other_uuid(struct journal_header *header)
{
    header->owner.uuid[0] = '9';
}

static void do_nothing(struct upper *upper)
{
    (void)upper;
}

TEST(upper_refuses_a_journal_of_other_files_until_told_to_drop_it)
{
    void (*changes[])(struct journal_header *) = {other_inode, other_uuid};
    for (int i = 0; i < 2; i++) {
        new_pair();
        in_killed_process(write_ten);
        change_journal(changes[i]);
        uint64_t journal_size = size_of(journal_path);
        check_refused(0, OBD_E_JOURNAL, "copy");
        check_refused(OBD_UPPER_READ_ONLY, OBD_E_JOURNAL, "--drop-unflushed");
        CHECK(size_of(journal_path) == journal_size);
        struct upper *upper = open_upper(OBD_UPPER_READ_ONLY | OBD_UPPER_DROP_UNFLUSHED);
        CHECK(sector_byte(upper, 0) == -1);
        CHECK_OK(upper_close(upper));
        upper = open_upper(OBD_UPPER_DROP_UNFLUSHED);
        CHECK(sector_byte(upper, 0) == -1);
        CHECK_OK(upper_close(upper));
        CHECK(size_of(journal_path) == UINT64_MAX);
    }
}

TEST(upper_takes_an_empty_journal_of_other_files_for_none)
{
    new_pair();
    in_killed_process(do_nothing);
    change_journal(other_inode);
    CHECK_OK(upper_close(open_upper(0)));
}

TEST(upper_takes_a_journal_of_another_boot_for_empty)
{
    new_pair();
    in_killed_process(flush_half);
    change_journal(other_boot);
    struct upper *upper = open_upper(0);
    CHECK(sector_byte(upper, 0) == 77 && sector_byte(upper, 4096) == -1);
    CHECK_OK(upper_close(upper));
}

TEST(upper_takes_zeros_behind_the_flushed_index_for_the_work_of_a_power_cut)
{
    static const char zeros[48];
    new_pair();
    in_killed_process(flush_half);
    append_to_index(zeros, sizeof zeros);
    change_journal(other_boot);
    struct upper *upper = open_upper(0);
    CHECK(sector_byte(upper, 0) == 77 && size_of(index_path) == 4096 + 16);
    CHECK_OK(upper_close(upper));
    append_to_index(zeros, sizeof zeros); /* with nothing that explains them they are damage */
    check_refused(0, OBD_E_CORRUPT, "entry 1");
}

TEST(upper_refuses_an_index_file_shorter_than_the_journal_has_seen)
{
    new_pair();
    in_killed_process(flush_half);
    CHECK(truncate(index_path, 4096) == 0);
    check_refused(0, OBD_E_JOURNAL, "replaced");
    CHECK_OK(upper_close(open_upper(OBD_UPPER_DROP_UNFLUSHED)));
}

TEST(upper_refuses_what_is_no_journal_and_leaves_it_there)
{
    new_pair();
    write_file(journal_path, "my diary", 8);
    check_refused(0, OBD_E_JOURNAL, "no journal");
    check_refused(OBD_UPPER_READ_ONLY, OBD_E_JOURNAL, "no journal");
    CHECK(size_of(journal_path) == 8);
    CHECK_OK(upper_close(open_upper(OBD_UPPER_DROP_UNFLUSHED)));
}

TEST(upper_refuses_a_record_that_points_past_the_log)
{
    new_pair();
    in_killed_process(write_ten);
    CHECK(truncate(data_path, 4096 + 5 * 4096) == 0);
    check_refused(0, OBD_E_CORRUPT, "record 6");
}

TEST(upper_whose_journal_is_sealed_is_read_only)
{
    new_pair();
    in_killed_process(do_nothing);
    CHECK_OK(journal_mark(journal_path, JOURNAL_SEALED));
    check_refused(0, OBD_E_READ_ONLY, "sealed");
    check_refused(OBD_UPPER_DROP_UNFLUSHED, OBD_E_READ_ONLY, "sealed");
    CHECK_OK(upper_close(open_upper(OBD_UPPER_READ_ONLY)));
}

TEST(upper_with_a_clean_journal_opens)
{
    new_pair();
    in_killed_process(do_nothing);
    change_journal(other_uuid);
    CHECK_OK(journal_mark(journal_path, JOURNAL_CLEAN));
    CHECK_OK(upper_close(open_upper(0)));
}

TEST_MAIN(T(upper_has_a_folder), T(upper_refuses_a_journal_of_other_files_until_told_to_drop_it),
          T(upper_takes_an_empty_journal_of_other_files_for_none), T(upper_takes_a_journal_of_another_boot_for_empty),
          T(upper_takes_zeros_behind_the_flushed_index_for_the_work_of_a_power_cut),
          T(upper_refuses_an_index_file_shorter_than_the_journal_has_seen),
          T(upper_refuses_what_is_no_journal_and_leaves_it_there), T(upper_refuses_a_record_that_points_past_the_log),
          T(upper_whose_journal_is_sealed_is_read_only), T(upper_with_a_clean_journal_opens),
          T(upper_left_nothing_in_the_folder))
