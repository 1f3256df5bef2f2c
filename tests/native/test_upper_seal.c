/* Tests of the end of an upper: sealed in place, or taken back.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <errno.h>

#include "check.h"

#include "trailer.h"
#include "upper_pair.h"

static struct obd_sealed_index seal(struct upper *upper)
{
    struct obd_sealed_index index;
    unsigned char trailer[4096];
    CHECK_OK(upper_seal(upper, &index));
    trailer_fill(trailer, &index);
    CHECK_OK(upper_finish_seal(upper, trailer));
    return index;
}

TEST(a_sealed_file_is_log_index_and_trailer)
{
    new_pair();
    struct upper *upper = open_upper(0);
    CHECK_OK(write_fill(upper, 8192, 4096, 2));
    CHECK_OK(write_fill(upper, 0, 4096, 1));
    CHECK_OK(upper_discard(upper, 4096, 65536));
    struct obd_sealed_index index = seal(upper);
    CHECK(index.index_offset == 3 * 4096 && index.nr_entries == 3 && index.trailer_offset == 3 * 4096 + 512);
    CHECK(size_of(data_path) == 3 * 4096 + 512 + 4096);
    struct file *file;
    struct segment entries[32], wanted[3] = {{.offset = 0, .length = 8, .moffset = 16},
                                             {.offset = 16, .length = 8, .moffset = 8},
                                             {.offset = 128, .length = 8, .moffset = 24, .zeroed = 1}};
    CHECK_OK(file_open(data_path, O_RDONLY, 0, &file));
    CHECK_OK(file_read(file, entries, sizeof entries, index.index_offset));
    file_close(file);
    segments_from_disk(entries, entries, 3);
    CHECK(memcmp(entries, wanted, sizeof wanted) == 0);
    for (size_t i = sizeof wanted; i < sizeof entries; i++)
        CHECK(((unsigned char *)entries)[i] == 0);
    CHECK_OK(upper_close(upper));
}

TEST(a_sealed_upper_is_read_flushed_and_not_written)
{
    new_pair();
    struct upper *upper = open_upper(0);
    write_ten(upper);
    seal(upper);
    CHECK(shows_ten(upper));
    CHECK_OK(upper_flush(upper));
    CHECK_FAILS(write_fill(upper, 0, 4096, 9), OBD_E_READ_ONLY, "is sealed");
    CHECK_FAILS(upper_discard(upper, 4096, 0), OBD_E_READ_ONLY, "is sealed");
    struct obd_sealed_index index;
    CHECK_FAILS(upper_seal(upper, &index), OBD_E_READ_ONLY, "is sealed");
    CHECK_OK(upper_close(upper));
    check_refused(0, OBD_E_READ_ONLY, "is sealed");
}

TEST(an_empty_upper_can_be_sealed)
{
    new_pair();
    struct upper *upper = open_upper(0);
    struct obd_sealed_index index = seal(upper);
    CHECK(index.index_offset == 4096 && index.nr_entries == 0 && index.trailer_offset == 4096);
    CHECK_OK(upper_close(upper));
    check_refused(0, OBD_E_READ_ONLY, "is sealed");
}

static void write_ten_and_seal(struct upper *upper)
{
    write_ten(upper);
    seal(upper);
}

TEST(a_seal_survives_the_process)
{
    new_pair();
    in_killed_process(write_ten_and_seal);
    check_refused(0, OBD_E_READ_ONLY, "is sealed");
}

TEST(a_seal_taken_back_leaves_a_writable_upper)
{
    new_pair();
    struct upper *upper = open_upper(0);
    write_ten(upper);
    seal(upper);
    CHECK_OK(upper_unseal(upper));
    CHECK(size_of(data_path) == 11 * 4096);
    CHECK_OK(write_fill(upper, 1 << 20, 4096, 33));
    CHECK_OK(upper_close(upper));
    upper = open_upper(0);
    CHECK(shows_ten(upper) && sector_byte(upper, 1 << 20) == 33);
    CHECK_OK(upper_close(upper));
}

static void write_ten_and_seal_half(struct upper *upper)
{
    struct obd_sealed_index index;
    write_ten(upper);
    CHECK_OK(upper_seal(upper, &index));
}

TEST(an_index_without_its_trailer_is_nothing)
{
    new_pair();
    in_killed_process(write_ten_and_seal_half);
    struct upper *upper = open_upper(0);
    CHECK(shows_ten(upper));
    CHECK_OK(write_fill(upper, 1 << 20, 4096, 33));
    CHECK_OK(upper_close(upper));
    upper = open_upper(0);
    CHECK(shows_ten(upper) && sector_byte(upper, 1 << 20) == 33);
    CHECK_OK(upper_close(upper));
}

TEST(a_trailer_that_is_not_its_own_seals_nothing)
{
    new_pair();
    struct upper *upper = open_upper(0);
    struct obd_sealed_index index, other;
    unsigned char trailer[4096];
    write_ten(upper);
    CHECK_OK(upper_seal(upper, &index));
    other = index;
    other.index_offset -= 4096;
    trailer_fill(trailer, &other);
    CHECK_FAILS(upper_finish_seal(upper, trailer), OBD_E_INVALID, "not its own");
    CHECK_OK(upper_unseal(upper));
    seal(upper);
    CHECK_OK(upper_close(upper));
}

TEST(a_full_disk_takes_no_seal_and_loses_nothing)
{
    new_pair();
    struct upper *upper = open_upper(0);
    struct obd_sealed_index index;
    write_ten(upper);
    fail_file("/data", "write", 1, ENOSPC, 0);
    CHECK_FAILS(upper_seal(upper, &index), OBD_E_NO_SPACE, data_path);
    no_faults();
    CHECK_OK(upper_unseal(upper));
    CHECK_OK(write_fill(upper, 1 << 20, 4096, 33));
    CHECK(shows_ten(upper));
    CHECK_OK(upper_close(upper));
}

TEST(a_sync_that_fails_in_a_seal_fails_the_upper)
{
    new_pair();
    struct upper *upper = open_upper(0);
    struct obd_sealed_index index;
    CHECK_OK(write_fill(upper, 0, 4096, 5));
    CHECK_OK(upper_flush(upper));
    CHECK_OK(write_fill(upper, 0, 4096, 6));
    fail_file("/data", "sync", 1, EIO, 0);
    CHECK_FAILS(upper_seal(upper, &index), OBD_E_IO, data_path);
    no_faults();
    CHECK_OK(upper_unseal(upper));
    CHECK(sector_byte(upper, 0) == 5);
    CHECK_FAILS(write_fill(upper, 0, 4096, 7), OBD_E_READ_ONLY, "read-only");
    upper_close(upper);
}

TEST_MAIN(T(upper_has_a_folder), T(a_sealed_file_is_log_index_and_trailer),
          T(a_sealed_upper_is_read_flushed_and_not_written), T(an_empty_upper_can_be_sealed),
          T(a_seal_survives_the_process), T(a_seal_taken_back_leaves_a_writable_upper),
          T(an_index_without_its_trailer_is_nothing), T(a_trailer_that_is_not_its_own_seals_nothing),
          T(a_full_disk_takes_no_seal_and_loses_nothing), T(a_sync_that_fails_in_a_seal_fails_the_upper),
          T(upper_left_nothing_in_the_folder))
