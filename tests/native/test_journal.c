/* Tests of the journal: what is written comes back in order, and nothing else does. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

#include "image/journal_format.h"

#define UUID  "00000001-1111-2222-3333-000000000001"
#define SLOTS 8

static char path[64] = "/tmp/obd-journal-XXXXXX";
static const uint8_t boot[16] = {1};
static const struct journal_owner owner = {.uuid = UUID, .data_device = 1, .data_inode = 2};

static struct journal *create_or_take_over(void)
{
    struct journal *journal;
    CHECK_OK(journal_create(path, &owner, "somebody, pid 12", SLOTS, 4096, &journal));
    return journal;
}

static struct journal *create(void)
{
    remove(path);
    return create_or_take_over();
}

/* Record s writes at s sectors, so that each is known by its sequence. */
static void append(struct journal *journal, int nr)
{
    for (int i = 0; i < nr; i++) {
        uint64_t next = journal_last_sequence(journal) + 1;
        struct journal_record record = {
            .offset = next * 512, .length = 512, .place = 4096 + next * 512, .kind = JOURNAL_DATA};
        CHECK_OK(journal_append(journal, &record));
        CHECK(record.sequence == next);
    }
}

static struct journal_contents contents_of(void)
{
    struct journal_contents contents;
    CHECK_OK(journal_read(path, &owner, &contents));
    CHECK(contents.exists);
    return contents;
}

/* The journal file holds exactly records first..last to replay. */
static void check_records(uint64_t first, uint64_t last)
{
    struct journal_contents contents = contents_of();
    CHECK(contents.nr_records == last + 1 - first);
    for (size_t i = 0; i < contents.nr_records; i++) {
        CHECK(contents.records[i].sequence == first + i);
        CHECK(contents.records[i].offset == (first + i) * 512 && contents.records[i].length == 512);
        CHECK(contents.records[i].place == 4096 + (first + i) * 512 && contents.records[i].kind == JOURNAL_DATA);
    }
    journal_contents_free(&contents);
}

static void overwrite(uint64_t offset, const void *bytes, size_t length)
{
    int fd = open(path, O_WRONLY);
    CHECK(fd >= 0 && pwrite(fd, bytes, length, (off_t)offset) == (ssize_t)length);
    close(fd);
}

static void flip_byte(uint64_t offset)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && pread(fd, &byte, 1, (off_t)offset) == 1);
    byte ^= 0x40;
    CHECK(pwrite(fd, &byte, 1, (off_t)offset) == 1);
    close(fd);
}

TEST(journal_that_is_missing_is_no_error)
{
    struct journal_contents contents;
    CHECK_OK(journal_read("/tmp/obd-no-such-journal", &owner, &contents));
    CHECK(!contents.exists && contents.nr_records == 0);
}

TEST(journal_gives_back_what_was_appended)
{
    struct journal *journal = create();
    append(journal, 5);
    CHECK(journal_nr_free(journal) == SLOTS - 5);
    journal_close(journal);
    check_records(1, 5);
    struct journal_contents contents = contents_of();
    CHECK(contents.is_same_boot && contents.is_same_uuid && contents.is_same_file);
    CHECK(contents.state == JOURNAL_OPEN && contents.index_length == 4096);
    CHECK(strcmp(contents.holder, "somebody, pid 12") == 0);
    CHECK(!contents.is_provably_empty);
    journal_contents_free(&contents);
}

TEST(journal_fills_every_slot)
{
    struct journal *journal = create();
    append(journal, SLOTS);
    CHECK(journal_nr_free(journal) == 0);
    journal_close(journal);
    check_records(1, SLOTS);
}

TEST(journal_reuses_trimmed_slots_round_after_round)
{
    struct journal *journal = create();
    uint64_t index_length = 4096;
    for (int round = 0; round < 20; round++) {
        append(journal, 3);
        index_length += 48;
        CHECK_OK(journal_trim(journal, journal_last_sequence(journal), index_length));
    }
    append(journal, SLOTS);
    CHECK(journal_nr_free(journal) == 0 && journal_at(journal, 62)->offset == 62 * 512);
    journal_close(journal);
    check_records(61, 60 + SLOTS);
}

TEST(journal_that_was_trimmed_is_provably_empty)
{
    struct journal *journal = create();
    append(journal, SLOTS);
    CHECK_OK(journal_trim(journal, SLOTS, 5000));
    journal_close(journal);
    struct journal_contents contents = contents_of();
    CHECK(contents.is_provably_empty && contents.flushed_sequence == SLOTS && contents.index_length == 5000);
    journal_contents_free(&contents);
}

TEST(journal_stops_at_a_damaged_record)
{
    struct journal *journal = create();
    append(journal, 6);
    journal_close(journal);
    flip_byte(journal_slot_offset(4, SLOTS) + 9);
    check_records(1, 3);
    flip_byte(journal_slot_offset(1, SLOTS) + 9);
    check_records(1, 0);
    struct journal_contents contents = contents_of();
    CHECK(!contents.is_provably_empty); /* something was there */
    journal_contents_free(&contents);
}

TEST(journal_stops_at_a_gap)
{
    static const uint8_t nothing[JOURNAL_RECORD_SIZE];
    struct journal *journal = create();
    append(journal, 6);
    journal_close(journal);
    overwrite(journal_slot_offset(3, SLOTS), nothing, sizeof nothing);
    check_records(1, 2);
}

TEST(journal_takes_no_record_of_the_one_before_it)
{
    uint64_t first = 1;
    struct journal *journal = create();
    for (int round = 0; round < 5; round++) { /* each leaves the slots full of the last one's */
        append(journal, SLOTS - 2);
        journal_close(journal);
        journal = create_or_take_over();
        CHECK(journal_nr_free(journal) == SLOTS);
        CHECK(journal_last_sequence(journal) == first - 1 + 2 * SLOTS);
        first = journal_last_sequence(journal) + 1;
        append(journal, 2);
        check_records(first, first + 1);
    }
    journal_close(journal);
}

TEST(journal_takes_the_file_over_that_is_there_with_its_slots)
{
    struct stat before, after;
    struct journal *journal = create();
    append(journal, 3);
    journal_close(journal);
    CHECK(stat(path, &before) == 0);
    CHECK_OK(journal_create(path, &owner, "another", 1000, 5000, &journal));
    CHECK(journal_nr_slots(journal) == SLOTS);
    journal_close(journal);
    CHECK(stat(path, &after) == 0 && after.st_ino == before.st_ino && after.st_size == before.st_size);
    struct journal_contents contents = contents_of();
    CHECK(contents.is_provably_empty && contents.index_length == 5000 && strcmp(contents.holder, "another") == 0);
    journal_contents_free(&contents);
}

TEST(journal_replaces_a_file_that_is_none)
{
    struct journal *journal = create();
    append(journal, 3);
    journal_close(journal);
    flip_byte(100);
    flip_byte(JOURNAL_HEADER_COPY + 100);
    journal = create_or_take_over();
    append(journal, 1);
    journal_close(journal);
    check_records(1, 1);
}

TEST(journal_takes_no_record_of_another_upper)
{
    uint8_t bytes[JOURNAL_RECORD_SIZE];
    struct journal_owner other = owner;
    other.uuid[0] = '7';
    journal_close(create());
    struct journal_record record = {.sequence = 1, .offset = 512, .length = 512, .place = 4608, .kind = JOURNAL_DATA};
    journal_record_encode(&record, journal_record_seed(&other), boot, bytes);
    overwrite(journal_slot_offset(1, SLOTS), bytes, sizeof bytes);
    check_records(1, 0);
}

TEST(journal_knows_another_owner_and_another_boot)
{
    struct journal *journal = create();
    append(journal, 1);
    journal_close(journal);
    struct journal_owner other = owner;
    struct journal_contents contents;
    other.data_inode++;
    CHECK_OK(journal_read(path, &other, &contents));
    CHECK(contents.is_same_uuid && !contents.is_same_file && contents.nr_records == 1);
    journal_contents_free(&contents);
    other.uuid[5] = 'f';
    CHECK_OK(journal_read(path, &other, &contents));
    CHECK(!contents.is_same_uuid && !contents.is_same_file);
    journal_contents_free(&contents);

    setenv("OBD_TEST_BOOT_ID", "00000000-0000-0000-0000-000000000001", 1);
    contents = contents_of();
    CHECK(!contents.is_same_boot && contents.is_same_uuid && contents.is_same_file);
    journal_contents_free(&contents);
    unsetenv("OBD_TEST_BOOT_ID");
}

/* What is wrong with the file, and how many records of this boot are lost with it. */
static void check_damage(const char *part, bool has_header, uint64_t nr_lost)
{
    struct journal_contents contents = contents_of();
    CHECK(contents.damage != NULL && strstr(contents.damage, part) != NULL);
    CHECK(contents.has_header == has_header && contents.nr_lost == nr_lost);
    journal_contents_free(&contents);
}

TEST(journal_with_any_byte_of_one_header_flipped_is_whole)
{
    for (uint64_t at = 0; at < JOURNAL_HEADER_COPY + JOURNAL_HEADER_USED; at++) {
        struct journal *journal = create();
        append(journal, 3);
        CHECK_OK(journal_trim(journal, 1, 5000));
        journal_close(journal);
        flip_byte(at);
        check_records(2, 3);
        struct journal_contents contents = contents_of();
        CHECK(contents.damage == NULL && contents.index_length == 5000);
        journal_contents_free(&contents);
    }
}

TEST(journal_without_a_header_counts_what_this_boot_loses_with_it)
{
    for (uint64_t at = 0; at < JOURNAL_HEADER_USED; at += 11) {
        struct journal *journal = create();
        append(journal, 3);
        journal_close(journal);
        flip_byte(at);
        flip_byte(JOURNAL_HEADER_COPY + at);
        check_damage(at < 8 ? "magic" : "checksum", false, 3);
        setenv("OBD_TEST_BOOT_ID", "00000000-0000-0000-0000-000000000001", 1);
        check_damage("", false, 0);
        unsetenv("OBD_TEST_BOOT_ID");
    }
}

TEST(journal_with_a_damaged_record_counts_those_behind_it)
{
    struct journal *journal = create();
    append(journal, 6);
    journal_close(journal);
    flip_byte(journal_slot_offset(4, SLOTS) + 9);
    check_damage("a record", true, 2);
    check_records(1, 3);
}

TEST(journal_that_is_cut_short_has_what_is_left_of_it)
{
    struct journal *journal = create();
    append(journal, 6);
    journal_close(journal);
    CHECK(truncate(path, 4096 + 4 * 64 + 10) == 0); /* in record 4 */
    check_damage("shorter than its slots", true, 0);
    check_records(1, 3);
    CHECK(truncate(path, 600) == 0);
    check_damage("shorter than its slots", true, 0);
    CHECK(truncate(path, 100) == 0);
    check_damage("shorter than its header", false, 0);
    CHECK(truncate(path, 0) == 0);
    check_damage("shorter than its header", false, 0);
}

TEST(journal_file_has_its_full_size_and_disk_space_from_the_start)
{
    struct journal *journal;
    struct stat st;
    remove(path);
    CHECK_OK(journal_create(path, &owner, "x", 16384, 4096, &journal));
    journal_close(journal);
    CHECK(stat(path, &st) == 0 && st.st_size == 4096 + 16384 * 64 && st.st_blocks * 512 >= st.st_size);
    char new_path[80];
    snprintf(new_path, sizeof new_path, "%s.new", path);
    CHECK(access(new_path, F_OK) != 0);
}

TEST(journal_state_is_kept)
{
    struct journal *journal = create();
    append(journal, 1);
    CHECK_OK(journal_set_state(journal, JOURNAL_FAILED));
    journal_close(journal);
    struct journal_contents contents = contents_of();
    CHECK(contents.state == JOURNAL_FAILED && contents.nr_records == 1);
    journal_contents_free(&contents);
    CHECK_OK(journal_mark(path, JOURNAL_SEALED));
    contents = contents_of();
    CHECK(contents.state == JOURNAL_SEALED);
    journal_contents_free(&contents);
}

TEST(journal_that_cannot_trim_frees_nothing)
{
    struct journal *journal = create();
    append(journal, 2);
    CHECK(obd_test_file_fault(path + 5, "write", 1, 5, 0) == OBD_OK);
    CHECK_FAILS(journal_trim(journal, 2, 4128), OBD_E_IO, path + 5);
    CHECK(journal_nr_free(journal) == SLOTS - 2 && journal_flushed_sequence(journal) == 0);
    CHECK_OK(journal_trim(journal, 2, 4128));
    CHECK(journal_nr_free(journal) == SLOTS);
    journal_close(journal);
    obd_test_file_fault("", "write", 0, 0, 0);
}

TEST(journal_that_cannot_append_is_as_it_was)
{
    struct journal *journal = create();
    append(journal, 1);
    CHECK(obd_test_file_fault(path + 5, "write", 1, 28, 0) == OBD_OK);
    struct journal_record record = {.offset = 0, .length = 512, .place = 4096, .kind = JOURNAL_DATA};
    CHECK_FAILS(journal_append(journal, &record), OBD_E_NO_SPACE, path + 5);
    CHECK(journal_last_sequence(journal) == 1);
    append(journal, 1);
    journal_close(journal);
    obd_test_file_fault("", "write", 0, 0, 0);
    check_records(1, 2);
}

TEST(journal_can_live_in_memory_alone)
{
    struct journal *journal;
    CHECK_OK(journal_create(NULL, &owner, "x", SLOTS, 4096, &journal));
    append(journal, SLOTS);
    CHECK(journal_nr_free(journal) == 0 && journal_at(journal, 3)->offset == 3 * 512);
    CHECK_OK(journal_trim(journal, 3, 5000));
    CHECK_OK(journal_set_state(journal, JOURNAL_CLEAN));
    CHECK(journal_nr_free(journal) == 3);
    journal_close(journal);
}

TEST(journal_lies_in_a_file_of_its_own)
{
    close(mkstemp(path));
}

TEST(journal_needs_a_sensible_number_of_slots)
{
    struct journal *journal;
    CHECK_FAILS(journal_create(path, &owner, "x", 0, 4096, &journal), OBD_E_INVALID, "0");
    CHECK_FAILS(journal_create(path, &owner, "x", JOURNAL_MAX_SLOTS + 1, 4096, &journal), OBD_E_INVALID, "slots");
    remove(path);
}

TEST_MAIN(T(journal_lies_in_a_file_of_its_own), T(journal_that_is_missing_is_no_error),
          T(journal_gives_back_what_was_appended), T(journal_fills_every_slot),
          T(journal_reuses_trimmed_slots_round_after_round), T(journal_that_was_trimmed_is_provably_empty),
          T(journal_stops_at_a_damaged_record), T(journal_stops_at_a_gap),
          T(journal_takes_no_record_of_the_one_before_it), T(journal_takes_the_file_over_that_is_there_with_its_slots),
          T(journal_replaces_a_file_that_is_none), T(journal_takes_no_record_of_another_upper),
          T(journal_knows_another_owner_and_another_boot), T(journal_with_any_byte_of_one_header_flipped_is_whole),
          T(journal_without_a_header_counts_what_this_boot_loses_with_it),
          T(journal_with_a_damaged_record_counts_those_behind_it), T(journal_that_is_cut_short_has_what_is_left_of_it),
          T(journal_file_has_its_full_size_and_disk_space_from_the_start), T(journal_state_is_kept),
          T(journal_that_cannot_trim_frees_nothing), T(journal_that_cannot_append_is_as_it_was),
          T(journal_can_live_in_memory_alone), T(journal_needs_a_sensible_number_of_slots))
