/* The cache and what it cannot rely on: files damaged behind its back, and disks that fail or fill.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <sys/mount.h>

#include "cache_fixture.h"

#define MIB (1u << 20)

/* ---- trust ------------------------------------------------------------------------ */

TEST(test_a_chunk_that_was_damaged_while_nobody_looked_is_absent)
{
    struct cache_fixture fixture;
    fixture_open(&fixture, 64 * MIB);
    struct blob *blob = fixture_blob(&fixture, 1, 4 * CHUNK);
    for (uint64_t chunk = 0; chunk < 4; chunk++)
        CHECK(store(blob, 1, chunk));
    blob_close(blob);
    cache_close(fixture.cache);
    damage(&fixture, 1, 2 * CHUNK + 77);
    fixture_reopen(&fixture);
    blob = fixture_blob(&fixture, 1, 4 * CHUNK);
    CHECK(read_back(blob, 1, CHUNK, 2 * CHUNK) == OBD_E_MISS);
    CHECK(fixture_stats(&fixture).nr_damaged == 1 && !blob_is_present(blob, 2));
    CHECK_OK(read_back(blob, 1, 0, 2 * CHUNK));
    CHECK(blob_first_absent(blob, 0, 3) == 2);
    CHECK(store(blob, 1, 2));
    CHECK_OK(read_back(blob, 1, 0, 4 * CHUNK));
    blob_close(blob);
    fixture_close(&fixture);
}

TEST(test_a_chunk_is_checked_at_its_first_use_only)
{
    struct cache_fixture fixture;
    fixture_open(&fixture, 64 * MIB);
    struct blob *blob = fixture_blob(&fixture, 1, CHUNK);
    CHECK(store(blob, 1, 0));
    blob_close(blob);
    cache_close(fixture.cache);
    fixture_reopen(&fixture);
    blob = fixture_blob(&fixture, 1, CHUNK);
    CHECK_OK(read_back(blob, 1, 0, 100));
    damage(&fixture, 1, CHUNK - 1);
    CHECK_OK(read_back(blob, 1, 0, 100)); /* a second check would have found it */
    CHECK(fixture_stats(&fixture).nr_damaged == 0);
    blob_close(blob);
    fixture_close(&fixture);
}

TEST(test_a_read_that_may_not_wait_leaves_the_check_to_another)
{
    struct cache_fixture fixture;
    uint8_t bytes[100];
    struct iovec iov = {.iov_base = bytes, .iov_len = sizeof bytes};
    struct iov_cursor cursor = iov_cursor_at(&iov, 1);
    fixture_open(&fixture, 64 * MIB);
    struct blob *blob = fixture_blob(&fixture, 1, CHUNK);
    CHECK(store(blob, 1, 0));
    blob_close(blob);
    cache_close(fixture.cache);
    fixture_reopen(&fixture);
    blob = fixture_blob(&fixture, 1, CHUNK);
    CHECK(blob_read(blob, &cursor, sizeof bytes, 0, true) == OBD_E_AGAIN);
    CHECK_OK(read_back(blob, 1, 0, sizeof bytes));
    enum obd_status status = blob_read(blob, &cursor, sizeof bytes, 0, true);
    CHECK(status == OBD_OK || status == OBD_E_AGAIN); /* as the page cache will have it */
    blob_close(blob);
    fixture_close(&fixture);
}

TEST(test_a_blob_of_other_size_or_chunk_size_is_made_anew)
{
    struct cache_fixture fixture;
    fixture_open(&fixture, 64 * MIB);
    struct blob *blob = fixture_blob(&fixture, 1, 4 * CHUNK);
    CHECK(store(blob, 1, 0));
    blob_close(blob);
    blob = fixture_blob(&fixture, 1, 5 * CHUNK);
    CHECK(!blob_is_present(blob, 0) && store(blob, 1, 4));
    blob_close(blob);
    cache_close(fixture.cache);
    fixture.params.chunk_size = 2 * CHUNK;
    fixture_reopen(&fixture);
    blob = fixture_blob(&fixture, 1, 5 * CHUNK);
    CHECK(blob_chunk_size(blob) == 2 * CHUNK && !blob_is_present(blob, 2));
    blob_close(blob);
    CHECK(fixture_stats(&fixture).used_bytes == 0);
    fixture_close(&fixture);
}

static void expect_anew(const char *suffix, const void *bytes, size_t length, off_t size)
{
    struct cache_fixture fixture;
    char path[256];
    fixture_open(&fixture, 64 * MIB);
    struct blob *blob = fixture_blob(&fixture, 1, 4 * CHUNK);
    CHECK(store(blob, 1, 0));
    blob_close(blob);
    cache_close(fixture.cache);
    path_of_blob(&fixture, 1, suffix, path);
    if (length > 0)
        overwrite(path, bytes, length, 0);
    else
        CHECK(size < 0 ? unlink(path) == 0 : truncate(path, size) == 0);
    fixture_reopen(&fixture);
    CHECK(fixture_stats(&fixture).nr_blobs == 0 && fixture_stats(&fixture).used_bytes == 0);
    blob = fixture_blob(&fixture, 1, 4 * CHUNK);
    CHECK(read_back(blob, 1, 0, 1) == OBD_E_MISS && store(blob, 1, 0));
    CHECK_OK(read_back(blob, 1, 0, CHUNK));
    blob_close(blob);
    fixture_close(&fixture);
}

TEST(test_a_blob_with_a_damaged_map_or_lost_data_is_made_anew)
{
    expect_anew(".map", "XXXX", 4, 0);
    expect_anew(".map", NULL, 0, -1);
    expect_anew(".map", NULL, 0, 100);
    expect_anew("", NULL, 0, -1);
    expect_anew("", NULL, 0, 3 * CHUNK);
}

TEST(test_data_shortened_under_a_running_cache_is_fetched_again)
{
    struct cache_fixture fixture;
    char path[256];
    fixture_open(&fixture, 64 * MIB);
    struct blob *blob = fixture_blob(&fixture, 1, 4 * CHUNK);
    CHECK(store(blob, 1, 3));
    path_of_blob(&fixture, 1, "", path);
    CHECK(truncate(path, CHUNK) == 0);
    CHECK(read_back(blob, 1, 3 * CHUNK, CHUNK) == OBD_E_MISS);
    CHECK(store(blob, 1, 3));
    CHECK_OK(read_back(blob, 1, 3 * CHUNK, CHUNK));
    blob_close(blob);
    fixture_close(&fixture);
}

TEST(test_a_chunk_killed_between_its_bytes_and_its_record_takes_no_room)
{
    struct cache_fixture fixture;
    struct stat st;
    char path[256];
    fixture_open(&fixture, 64 * MIB);
    struct blob *blob = fixture_blob(&fixture, 1, 8 * CHUNK);
    CHECK(store(blob, 1, 0));
    blob_close(blob);
    cache_close(fixture.cache);
    path_of_blob(&fixture, 1, "", path);
    uint8_t *bytes = calloc(1, 4 * CHUNK);
    overwrite(path, bytes, 4 * CHUNK, 2 * CHUNK);
    free(bytes);
    fixture_reopen(&fixture);
    CHECK(stat(path, &st) == 0 && st.st_blocks * 512 <= CHUNK + 2 * PAGE);
    fixture_close(&fixture);
}

/* ---- disks ---------------------------------------------------------------------------- */

TEST(test_a_failing_write_is_not_kept_and_takes_no_room)
{
    struct cache_fixture fixture;
    char path[256];
    fixture_open(&fixture, 64 * MIB);
    struct blob *blob = fixture_blob(&fixture, 1, 4 * CHUNK);
    uint64_t used = fixture_stats(&fixture).used_bytes;
    for (int i = 0; i < 3; i++) {
        static const struct {
            const char *suffix, *operation;
            int error;
        } faults[] = {{"", "write", ENOSPC}, {"", "tear", EIO}, {".map", "write", ENOSPC}};
        path_of_blob(&fixture, 1, faults[i].suffix, path);
        CHECK_OK(fault_file_add_rule(path, faults[i].operation, 1, faults[i].error, 0));
        CHECK(!store(blob, 1, 0));
        CHECK(fixture_stats(&fixture).used_bytes == used && read_back(blob, 1, 0, 1) == OBD_E_MISS);
        CHECK_OK(fault_file_add_rule("", "write", 0, 0, 0));
    }
    CHECK(fixture_stats(&fixture).nr_not_kept == 3);
    CHECK(store(blob, 1, 0));
    CHECK_OK(read_back(blob, 1, 0, CHUNK));
    blob_close(blob);
    fixture_close(&fixture);
}

TEST(test_a_full_disk_under_the_cache_is_used_for_the_newest)
{
    struct cache_fixture fixture;
    char path[256];
    fixture_open(&fixture, 64 * MIB);
    struct blob *blob = fixture_blob(&fixture, 1, 4 * CHUNK);
    CHECK(store(blob, 1, 0));
    path_of_blob(&fixture, 1, "", path);
    CHECK_OK(fault_file_add_rule(path, "write", 1, ENOSPC, 0));
    CHECK(store(blob, 1, 1)); /* in the space of the first */
    CHECK_OK(fault_file_add_rule("", "write", 0, 0, 0));
    CHECK(!blob_is_present(blob, 0));
    CHECK_OK(read_back(blob, 1, CHUNK, CHUNK));
    blob_close(blob);
    fixture_close(&fixture);
}

TEST(test_a_disk_that_cannot_be_read_is_a_miss)
{
    struct cache_fixture fixture;
    char path[256];
    fixture_open(&fixture, 64 * MIB);
    struct blob *blob = fixture_blob(&fixture, 1, 4 * CHUNK);
    CHECK(store(blob, 1, 0) && store(blob, 1, 1));
    path_of_blob(&fixture, 1, "", path);
    CHECK_OK(fault_file_add_rule(path, "read", 1, EIO, 0));
    CHECK(read_back(blob, 1, 0, 100) == OBD_E_MISS && !blob_is_present(blob, 0));
    CHECK_OK(fault_file_add_rule("", "read", 0, 0, 0));
    CHECK_OK(read_back(blob, 1, CHUNK, 100));
    blob_close(blob);
    fixture_close(&fixture);
}

TEST(test_a_tmpfs_smaller_than_the_limit_keeps_what_it_can)
{
    struct cache_fixture fixture;
    fixture_init(&fixture, 64 * MIB);
    if (mount("obd-test", fixture.folder, "tmpfs", 0, "size=1m") != 0) {
        printf("    skipped: a tmpfs cannot be mounted here\n");
        fixture_remove(&fixture);
        return;
    }
    fixture_reopen(&fixture);
    struct blob *blob = fixture_blob(&fixture, 1, 100 * CHUNK);
    for (uint64_t chunk = 0; chunk < 100; chunk++)
        if (store(blob, 1, chunk))
            CHECK_OK(read_back(blob, 1, chunk * CHUNK, CHUNK));
    CHECK(blob_is_present(blob, 99) && fixture_stats(&fixture).used_bytes <= MIB);
    blob_close(blob);
    cache_close(fixture.cache);
    CHECK(umount(fixture.folder) == 0);
    fixture_remove(&fixture);
}

TEST(test_below_the_free_space_floor_nothing_is_kept_and_the_cache_shrinks)
{
    struct cache_fixture fixture;
    fixture_open(&fixture, 64 * MIB);
    struct blob *blob = fixture_blob(&fixture, 1, 16 * CHUNK);
    for (uint64_t chunk = 0; chunk < 8; chunk++)
        CHECK(store(blob, 1, chunk));
    blob_close(blob);
    cache_close(fixture.cache);
    fixture.params.free_floor_bytes = UINT64_C(1) << 60;
    fixture_reopen(&fixture);
    blob = fixture_blob(&fixture, 1, 16 * CHUNK);
    CHECK_OK(read_back(blob, 1, 0, 8 * CHUNK));
    CHECK(!store(blob, 1, 9) && fixture_stats(&fixture).nr_evicted == 4);
    CHECK(!store(blob, 1, 9) && fixture_stats(&fixture).nr_evicted == 8);
    CHECK(!store(blob, 1, 9) && fixture_stats(&fixture).nr_not_kept == 3);
    blob_close(blob);
    fixture_close(&fixture);
}

TEST_MAIN(T(test_a_chunk_that_was_damaged_while_nobody_looked_is_absent),
          T(test_a_chunk_is_checked_at_its_first_use_only),
          T(test_a_read_that_may_not_wait_leaves_the_check_to_another),
          T(test_a_blob_of_other_size_or_chunk_size_is_made_anew),
          T(test_a_blob_with_a_damaged_map_or_lost_data_is_made_anew),
          T(test_data_shortened_under_a_running_cache_is_fetched_again),
          T(test_a_chunk_killed_between_its_bytes_and_its_record_takes_no_room),
          T(test_a_failing_write_is_not_kept_and_takes_no_room),
          T(test_a_full_disk_under_the_cache_is_used_for_the_newest), T(test_a_disk_that_cannot_be_read_is_a_miss),
          T(test_a_tmpfs_smaller_than_the_limit_keeps_what_it_can),
          T(test_below_the_free_space_floor_nothing_is_kept_and_the_cache_shrinks))
