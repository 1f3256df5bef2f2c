/* Tests of an upper that becomes larger: what is refused, written, synced, and left of a failure. */
#include <endian.h>
#include <errno.h>

#include "upper_pair.h"

#define LARGER (DISK_SIZE + (UINT64_C(32) << 20))

static uint64_t size_in_header(const char *path)
{
    uint64_t size;
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0 && pread(fd, &size, sizeof size, 48) == sizeof size);
    close(fd);
    return le64toh(size);
}

static uint64_t nr_flushes(struct upper *upper)
{
    struct obd_upper_stats stats;
    upper_stats(upper, &stats);
    return stats.nr_flushes;
}

TEST(upper_that_has_grown_takes_writes_past_its_old_end_and_both_headers_say_so)
{
    new_pair();
    struct upper *upper = open_upper(0);
    CHECK_OK(upper_grow(upper, LARGER));
    CHECK(upper_virtual_size(upper) == LARGER);
    CHECK(size_in_header(data_path) == LARGER && size_in_header(index_path) == LARGER);
    CHECK_OK(write_fill(upper, LARGER - 4096, 4096, 7));
    CHECK(sector_byte(upper, LARGER - 512) == 7);
    CHECK_OK(upper_close(upper));
}

TEST(upper_syncs_a_new_size_once_also_when_nothing_was_written)
{
    new_pair();
    fail_file("/data", "sync", 2, EIO, 0);
    struct upper *upper = open_upper(0);
    CHECK_OK(upper_grow(upper, LARGER));
    CHECK_OK(upper_flush(upper));
    CHECK(nr_flushes(upper) == 1);
    CHECK_OK(upper_grow(upper, LARGER)); /* the same: nothing to do */
    CHECK_OK(upper_flush(upper));
    CHECK(nr_flushes(upper) == 1);
    CHECK_OK(upper_grow(upper, 2 * LARGER));
    CHECK(upper_flush(upper) != OBD_OK); /* the second sync of the data file */
    no_faults();
    upper_close(upper);
}

TEST(upper_whose_new_size_cannot_be_synced_is_read_only_from_then_on)
{
    new_pair();
    fail_file("/data", "sync", 1, EIO, 0);
    struct upper *upper = open_upper(0);
    CHECK_OK(upper_grow(upper, LARGER));
    CHECK(upper_flush(upper) != OBD_OK);
    CHECK(upper_grow(upper, 2 * LARGER) == OBD_E_READ_ONLY);
    no_faults();
    upper_close(upper);
}

TEST(upper_refuses_to_shrink_to_have_parts_of_sectors_and_to_grow_read_only)
{
    new_pair();
    struct upper *upper = open_upper(0);
    CHECK(upper_grow(upper, DISK_SIZE - 512) == OBD_E_INVALID);
    CHECK(upper_grow(upper, LARGER + 1) == OBD_E_INVALID);
    CHECK(upper_grow(upper, UINT64_MAX & ~UINT64_C(511)) == OBD_E_INVALID);
    CHECK_OK(upper_close(upper));
    upper = open_upper(OBD_UPPER_READ_ONLY);
    CHECK(upper_grow(upper, LARGER) == OBD_E_READ_ONLY);
    CHECK(upper_virtual_size(upper) == DISK_SIZE);
    CHECK_OK(upper_close(upper));
}

TEST(upper_keeps_its_size_when_the_header_that_counts_cannot_be_written)
{
    new_pair();
    fail_file("/index", "write", 1, EIO, 0);
    struct upper *upper = open_upper(0);
    CHECK(upper_grow(upper, LARGER) == OBD_E_IO);
    CHECK(upper_virtual_size(upper) == DISK_SIZE && size_in_header(index_path) == 0);
    CHECK_OK(upper_grow(upper, LARGER));
    CHECK(size_in_header(index_path) == LARGER);
    no_faults();
    CHECK_OK(upper_close(upper));
}

TEST_MAIN(T(upper_has_a_folder), T(upper_that_has_grown_takes_writes_past_its_old_end_and_both_headers_say_so),
          T(upper_syncs_a_new_size_once_also_when_nothing_was_written),
          T(upper_whose_new_size_cannot_be_synced_is_read_only_from_then_on),
          T(upper_refuses_to_shrink_to_have_parts_of_sectors_and_to_grow_read_only),
          T(upper_keeps_its_size_when_the_header_that_counts_cannot_be_written), T(upper_left_nothing_in_the_folder))
