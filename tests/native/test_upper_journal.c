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

static struct obd_upper_stats stats_of(struct upper *upper)
{
    struct obd_upper_stats stats;
    upper_stats(upper, &stats);
    return stats;
}

/* What a power cut may leave behind the one entry that was flushed. */
static void check_is_cut_off(const void *tail, size_t length)
{
    for (int is_rebooted = 0; is_rebooted <= 1; is_rebooted++) {
        new_pair();
        in_killed_process(flush_half);
        append_to_index(tail, length);
        if (is_rebooted)
            change_journal(other_boot);
        struct upper *upper = open_upper(OBD_UPPER_READ_ONLY);
        CHECK(sector_byte(upper, 0) == (is_rebooted ? 77 : 1) && size_of(index_path) == 4096 + 16 + length);
        CHECK(stats_of(upper).dropped_bytes == length && !stats_of(upper).is_drop_unexplained);
        CHECK_OK(upper_close(upper));
        upper = open_upper(0);
        CHECK(sector_byte(upper, 0) == (is_rebooted ? 77 : 1) && stats_of(upper).dropped_bytes == length);
        CHECK(size_of(index_path) == 4096 + 16 + (is_rebooted ? 0 : 11 * 16));
        CHECK_OK(upper_close(upper));
    }
}

TEST(upper_drops_what_lies_behind_the_flushed_index_and_cannot_be_an_entry)
{
    static const char zeros[48];
    struct segment half = {.offset = 5, .length = 8};
    struct segment other_half = {.moffset = 9};
    struct segment ahead_of_its_data[] = {{.offset = 1, .length = 8, .moffset = 100000}, {.moffset = 8, .length = 1}};
    struct segment past_the_disk = {.offset = DISK_SIZE / 512, .length = 1, .moffset = 8};
    check_is_cut_off(zeros, sizeof zeros);
    check_is_cut_off(&half, sizeof half);
    check_is_cut_off(&other_half, sizeof other_half);
    check_is_cut_off(ahead_of_its_data, sizeof ahead_of_its_data);
    check_is_cut_off(&past_the_disk, sizeof past_the_disk);
    check_is_cut_off("torn", 4);
}

TEST(upper_drops_garbage_behind_the_flushed_index)
{
    uint8_t garbage[300];
    srand(3);
    for (int i = 0; i < 20; i++) {
        for (size_t at = 0; at < sizeof garbage; at++)
            garbage[at] = (uint8_t)rand();
        check_is_cut_off(garbage, 1 + (size_t)rand() % sizeof garbage);
    }
}

TEST(upper_with_a_bad_entry_before_the_flushed_end_is_corrupt)
{
    for (int is_rebooted = 0; is_rebooted <= 1; is_rebooted++) {
        new_pair();
        in_killed_process(flush_half);
        if (is_rebooted)
            change_journal(other_boot);
        struct segment bad = {.offset = 0, .length = 8, .moffset = 100000};
        int fd = open(index_path, O_WRONLY);
        CHECK(pwrite(fd, &bad, sizeof bad, 4096) == sizeof bad);
        close(fd);
        check_refused(0, OBD_E_CORRUPT, "entry 0");
        check_refused(OBD_UPPER_READ_ONLY, OBD_E_CORRUPT, "entry 0");
    }
}

TEST(upper_without_a_journal_drops_what_nobody_can_have_meant_and_remembers_that)
{
    static const char zeros[20];
    new_pair();
    struct upper *upper = open_upper(0);
    CHECK_OK(write_fill(upper, 0, 4096, 1));
    CHECK_OK(upper_close(upper));
    append_to_index(zeros, sizeof zeros);
    upper = open_upper(0);
    CHECK(sector_byte(upper, 0) == 1 && stats_of(upper).dropped_bytes == 20 && stats_of(upper).is_drop_unexplained);
    CHECK_OK(upper_close(upper));
    CHECK(size_of(index_path) == 4096 + 16);
}

TEST(upper_refuses_an_index_file_shorter_than_the_journal_has_seen)
{
    for (int is_rebooted = 0; is_rebooted <= 1; is_rebooted++) {
        new_pair();
        in_killed_process(flush_half);
        if (is_rebooted)
            change_journal(other_boot);
        CHECK(truncate(index_path, 4096) == 0);
        check_refused(0, OBD_E_CORRUPT, "cut or replaced");
        CHECK_OK(upper_close(open_upper(OBD_UPPER_DROP_UNFLUSHED)));
    }
}

static void check_laid_aside(void)
{
    char aside[100];
    snprintf(aside, sizeof aside, "%s.damaged", journal_path);
    CHECK(remove(aside) == 0);
}

TEST(upper_drops_what_is_no_journal)
{
    new_pair();
    write_file(journal_path, "my diary", 8);
    CHECK_OK(upper_close(open_upper(OBD_UPPER_READ_ONLY)));
    CHECK(size_of(journal_path) == 8);
    CHECK_OK(upper_close(open_upper(OBD_UPPER_LOSE_NOTHING)));
    check_laid_aside();
}

static void lose_both_headers(void)
{
    static const char zeros[4096];
    int fd = open(journal_path, O_WRONLY);
    CHECK(pwrite(fd, zeros, sizeof zeros, 0) == sizeof zeros);
    close(fd);
}

TEST(upper_whose_journal_has_lost_its_headers_opens_on_what_was_flushed_and_keeps_the_file)
{
    new_pair();
    in_killed_process(flush_half);
    lose_both_headers();
    check_refused(OBD_UPPER_LOSE_NOTHING, OBD_E_JOURNAL, "12 or more acknowledged writes");
    struct upper *upper = open_upper(0);
    CHECK(sector_byte(upper, 0) == 77 && sector_byte(upper, 4096) == -1);
    CHECK(stats_of(upper).dropped_writes == 12);
    CHECK_OK(upper_close(upper));
    check_laid_aside();
}

TEST(upper_whose_journal_has_a_damaged_record_replays_what_comes_before_it)
{
    new_pair();
    in_killed_process(write_ten);
    int fd = open(journal_path, O_WRONLY);
    CHECK(pwrite(fd, "x", 1, (off_t)journal_slot_offset(4, 64)) == 1);
    close(fd);
    check_refused(OBD_UPPER_LOSE_NOTHING, OBD_E_JOURNAL, "a record before others is damaged");
    struct upper *upper = open_upper(0);
    CHECK(sector_byte(upper, 8192) == 3 && sector_byte(upper, 3 * 4096) == -1);
    CHECK(stats_of(upper).replayed == 3 && stats_of(upper).dropped_writes == 7);
    CHECK_OK(upper_close(upper));
    check_laid_aside();
}

TEST(upper_whose_log_was_cut_replays_what_is_left_of_it)
{
    new_pair();
    in_killed_process(write_ten);
    CHECK(truncate(data_path, 4096 + 5 * 4096 + 100) == 0);
    check_refused(OBD_UPPER_LOSE_NOTHING, OBD_E_JOURNAL, "too short for a record");
    struct upper *upper = open_upper(0);
    CHECK(sector_byte(upper, 4 * 4096) == 5 && sector_byte(upper, 5 * 4096) == -1);
    CHECK(stats_of(upper).dropped_writes == 6);
    CHECK_OK(upper_close(upper));
    check_laid_aside();
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
          T(upper_drops_what_lies_behind_the_flushed_index_and_cannot_be_an_entry),
          T(upper_drops_garbage_behind_the_flushed_index), T(upper_with_a_bad_entry_before_the_flushed_end_is_corrupt),
          T(upper_without_a_journal_drops_what_nobody_can_have_meant_and_remembers_that),
          T(upper_refuses_an_index_file_shorter_than_the_journal_has_seen), T(upper_drops_what_is_no_journal),
          T(upper_whose_journal_has_lost_its_headers_opens_on_what_was_flushed_and_keeps_the_file),
          T(upper_whose_journal_has_a_damaged_record_replays_what_comes_before_it),
          T(upper_whose_log_was_cut_replays_what_is_left_of_it), T(upper_whose_journal_is_sealed_is_read_only),
          T(upper_with_a_clean_journal_opens), T(upper_left_nothing_in_the_folder))
