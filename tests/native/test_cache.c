/* The cache: what is kept, for how long, and what is never given out.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "cache_fixture.h"

#define MIB (1u << 20)

/* ---- keeping ------------------------------------------------------------------- */

TEST(test_what_was_stored_is_read_and_the_rest_is_a_miss)
{
    struct cache_fixture fixture;
    fixture_open(&fixture, 64 * MIB);
    struct blob *blob = fixture_blob(&fixture, 1, 3 * CHUNK + 100);
    CHECK(read_back(blob, 1, 0, 10) == OBD_E_MISS);
    CHECK(store(blob, 1, 1) && store(blob, 1, 3));
    CHECK_OK(read_back(blob, 1, CHUNK + 5, 1000));
    CHECK_OK(read_back(blob, 1, 3 * CHUNK, 100));
    CHECK(read_back(blob, 1, CHUNK, CHUNK + 1) == OBD_E_MISS);
    CHECK(blob_first_absent(blob, 0, 3) == 0 && blob_first_absent(blob, 1, 3) == 2 &&
          blob_first_absent(blob, 3, 3) < 0);
    CHECK(store(blob, 1, 2));
    CHECK_OK(read_back(blob, 1, CHUNK, 2 * CHUNK + 100));
    blob_close(blob);
    fixture_close(&fixture);
}

TEST(test_a_blob_is_shared_and_survives_closing_and_reopening)
{
    struct cache_fixture fixture;
    fixture_open(&fixture, 64 * MIB);
    struct blob *blob = fixture_blob(&fixture, 1, 4 * CHUNK), *same = fixture_blob(&fixture, 1, 4 * CHUNK);
    CHECK(blob == same && store(blob, 1, 2));
    blob_close(blob);
    CHECK_OK(read_back(same, 1, 2 * CHUNK, CHUNK));
    blob_close(same);
    blob = fixture_blob(&fixture, 1, 4 * CHUNK);
    CHECK_OK(read_back(blob, 1, 2 * CHUNK, CHUNK));
    blob_close(blob);
    uint64_t used = fixture_stats(&fixture).used_bytes;
    cache_close(fixture.cache);
    fixture_reopen(&fixture);
    CHECK(fixture_stats(&fixture).nr_blobs == 1 && fixture_stats(&fixture).used_bytes == used);
    blob = fixture_blob(&fixture, 1, 4 * CHUNK);
    CHECK_OK(read_back(blob, 1, 2 * CHUNK, CHUNK));
    blob_close(blob);
    fixture_close(&fixture);
}

TEST(test_a_blob_of_which_nothing_is_kept_leaves_no_file)
{
    struct cache_fixture fixture;
    char path[256];
    fixture_open(&fixture, 64 * MIB);
    blob_close(fixture_blob(&fixture, 1, CHUNK));
    path_of_blob(&fixture, 1, ".map", path);
    CHECK(access(path, F_OK) != 0);
    CHECK(fixture_stats(&fixture).nr_blobs == 0 && fixture_stats(&fixture).used_bytes == 0);
    fixture_close(&fixture);
}

TEST(test_one_digest_cannot_have_two_sizes_at_once)
{
    struct cache_fixture fixture;
    uint8_t digest[32] = {0};
    struct blob *blob, *other;
    fixture_open(&fixture, 64 * MIB);
    CHECK_OK(blob_open(fixture.cache, digest, 100, &blob));
    CHECK_FAILS(blob_open(fixture.cache, digest, 101, &other), OBD_E_INVALID, "cannot also have 101");
    blob_close(blob);
    fixture_close(&fixture);
}

/* ---- the limit ------------------------------------------------------------------ */

TEST(test_pinned_chunks_are_never_evicted_and_then_nothing_more_is_kept)
{
    struct cache_fixture fixture;
    fixture_open(&fixture, 4 * CHUNK + MAP_ROOM);
    struct blob *blob = fixture_blob(&fixture, 1, 8 * CHUNK);
    for (uint64_t chunk = 0; chunk < 4; chunk++)
        CHECK(store(blob, 1, chunk) && blob_pin(blob, chunk));
    CHECK(!store(blob, 1, 4) && fixture_stats(&fixture).nr_not_kept == 1);
    for (uint64_t chunk = 0; chunk < 4; chunk++)
        CHECK(blob_is_present(blob, chunk));
    blob_unpin(blob, 2);
    CHECK(store(blob, 1, 4) && !blob_is_present(blob, 2));
    CHECK(fixture_stats(&fixture).nr_evicted == 1);
    for (uint64_t chunk = 0; chunk < 4; chunk++)
        if (chunk != 2)
            blob_unpin(blob, chunk);
    blob_close(blob);
    fixture_close(&fixture);
}

TEST(test_a_discarded_chunk_keeps_its_pins_and_can_be_stored_again)
{
    struct cache_fixture fixture;
    fixture_open(&fixture, 64 * MIB);
    struct blob *blob = fixture_blob(&fixture, 1, 2 * CHUNK);
    CHECK(store(blob, 1, 0) && blob_pin(blob, 0) && blob_pin(blob, 0));
    blob_discard(blob, 0);
    CHECK(!blob_is_present(blob, 0) && !blob_pin(blob, 0));
    blob_unpin(blob, 0);
    CHECK(store(blob, 1, 0));
    CHECK_OK(read_back(blob, 1, 0, CHUNK));
    blob_unpin(blob, 0);
    blob_close(blob);
    fixture_close(&fixture);
}

TEST(test_evicted_space_is_given_back_to_the_disk)
{
    struct cache_fixture fixture;
    struct stat st;
    char path[256];
    fixture_open(&fixture, 8 * CHUNK + MAP_ROOM);
    struct blob *blob = fixture_blob(&fixture, 1, 100 * CHUNK);
    for (uint64_t chunk = 0; chunk < 100; chunk++)
        CHECK(store(blob, 1, chunk));
    path_of_blob(&fixture, 1, "", path);
    CHECK(stat(path, &st) == 0 && st.st_blocks * 512 <= 8 * CHUNK + 4 * PAGE);
    CHECK(fixture_stats(&fixture).used_bytes <= fixture.params.limit_bytes);
    CHECK(fixture_stats(&fixture).nr_evicted == 92);
    blob_close(blob);
    fixture_close(&fixture);
}

TEST(test_a_lower_limit_holds_as_soon_as_the_folder_is_opened)
{
    struct cache_fixture fixture;
    fixture_open(&fixture, 64 * MIB);
    for (unsigned n = 1; n <= 3; n++) {
        struct blob *blob = fixture_blob(&fixture, n, 8 * CHUNK);
        for (uint64_t chunk = 0; chunk < 8; chunk++)
            CHECK(store(blob, n, chunk));
        blob_close(blob);
    }
    cache_close(fixture.cache);
    fixture.params.limit_bytes = 10 * CHUNK;
    fixture_reopen(&fixture);
    CHECK(fixture_stats(&fixture).used_bytes <= 10 * CHUNK && fixture_stats(&fixture).used_bytes > 8 * CHUNK);
    CHECK(fixture_stats(&fixture).nr_blobs == 2); /* the longest unused is gone, with its files */
    cache_close(fixture.cache);
    fixture.params.limit_bytes = 0;
    fixture_reopen(&fixture);
    CHECK(fixture_stats(&fixture).used_bytes == 0 && fixture_stats(&fixture).nr_blobs == 0);
    fixture_close(&fixture);
}

TEST(test_a_limit_without_room_for_a_map_keeps_nothing_and_fails_nothing)
{
    struct cache_fixture fixture;
    fixture_open(&fixture, 0);
    struct blob *blob = fixture_blob(&fixture, 1, 8 * CHUNK);
    CHECK(!store(blob, 1, 0) && read_back(blob, 1, 0, 1) == OBD_E_MISS && !blob_pin(blob, 0));
    CHECK(fixture_stats(&fixture).used_bytes == 0);
    blob_close(blob);
    fixture_close(&fixture);
}

/* ---- eviction --------------------------------------------------------------------- */

static void read_in_pieces(struct blob *blob, unsigned n, uint64_t first, uint64_t last)
{
    for (uint64_t offset = first * CHUNK; offset < (last + 1) * CHUNK; offset += PAGE)
        CHECK_OK(read_back(blob, n, offset, PAGE));
}

static void scan(struct blob *blob, unsigned n, uint64_t nr_chunks)
{
    for (uint64_t chunk = 0; chunk < nr_chunks; chunk++) {
        CHECK(store(blob, n, chunk));
        read_in_pieces(blob, n, chunk, chunk);
    }
}

TEST(test_a_set_that_was_read_twice_survives_a_scan_of_four_times_the_limit)
{
    enum { LIMIT = 64, HOT = 32 };
    struct cache_fixture fixture;
    fixture_open(&fixture, LIMIT * CHUNK + 2 * MAP_ROOM);
    struct blob *hot = fixture_blob(&fixture, 1, HOT * CHUNK), *cold = fixture_blob(&fixture, 2, 4 * LIMIT * CHUNK);
    scan(hot, 1, HOT);
    read_in_pieces(hot, 1, 0, HOT - 1);
    scan(cold, 2, 4 * LIMIT);
    for (uint64_t chunk = 0; chunk < HOT; chunk++)
        CHECK(blob_is_present(hot, chunk));
    blob_close(hot);
    blob_close(cold);
    fixture_close(&fixture);
}

TEST(test_a_set_that_was_read_once_in_small_pieces_does_not_survive_it)
{
    enum { LIMIT = 64, COLD = 32 };
    struct cache_fixture fixture;
    fixture_open(&fixture, LIMIT * CHUNK + 2 * MAP_ROOM);
    struct blob *once = fixture_blob(&fixture, 1, COLD * CHUNK), *cold = fixture_blob(&fixture, 2, 4 * LIMIT * CHUNK);
    scan(once, 1, COLD);
    scan(cold, 2, 4 * LIMIT);
    for (uint64_t chunk = 0; chunk < COLD; chunk++)
        CHECK(!blob_is_present(once, chunk));
    blob_close(once);
    blob_close(cold);
    fixture_close(&fixture);
}

TEST(test_a_hot_set_that_is_not_read_any_more_makes_room_for_another)
{
    enum { LIMIT = 64 };
    struct cache_fixture fixture;
    fixture_open(&fixture, LIMIT * CHUNK + 2 * MAP_ROOM);
    struct blob *old = fixture_blob(&fixture, 1, LIMIT * CHUNK), *young = fixture_blob(&fixture, 2, LIMIT * CHUNK);
    scan(old, 1, LIMIT);
    read_in_pieces(old, 1, 0, LIMIT - 1);
    unsigned nr_old = 0, nr_young = 0;
    for (int round = 0; round < 6; round++)
        for (uint64_t chunk = 0; chunk < LIMIT; chunk++) {
            if (!blob_is_present(young, chunk))
                CHECK(store(young, 2, chunk));
            read_in_pieces(young, 2, chunk, chunk);
            read_in_pieces(young, 2, chunk, chunk);
        }
    for (uint64_t chunk = 0; chunk < LIMIT; chunk++) {
        nr_old += blob_is_present(old, chunk);
        nr_young += blob_is_present(young, chunk);
    }
    CHECK(nr_young > nr_old);
    blob_close(old);
    blob_close(young);
    fixture_close(&fixture);
}

/* ---- trust ------------------------------------------------------------------------ */

static void damage(struct cache_fixture *fixture, unsigned n, uint64_t offset)
{
    char path[256];
    uint8_t wrong = (uint8_t)(byte_of(n, offset) ^ 1);
    path_of_blob(fixture, n, "", path);
    overwrite(path, &wrong, 1, offset);
}

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

/* ---- folders ----------------------------------------------------------------------- */

TEST(test_a_second_owner_is_told_who_the_first_is)
{
    struct cache_fixture fixture;
    struct cache *second;
    char owner[32];
    int status;
    fixture_open(&fixture, MIB);
    snprintf(owner, sizeof owner, "in use by process %d", getpid());
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK_FAILS(cache_open(&fixture.params, &second), OBD_E_BUSY, owner);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    fixture_close(&fixture);
}

TEST(test_a_folder_of_a_newer_version_is_refused)
{
    struct cache_fixture fixture;
    struct cache *second;
    char path[128];
    fixture_open(&fixture, MIB);
    cache_close(fixture.cache);
    snprintf(path, sizeof path, "%s/version", fixture.folder);
    overwrite(path, "2", 1, 0);
    CHECK_FAILS(cache_open(&fixture.params, &second), OBD_E_UNSUPPORTED, "is of version 2");
    fixture_remove(&fixture);
}

TEST(test_a_chunk_size_that_makes_no_sense_is_refused)
{
    struct cache_fixture fixture;
    static const uint32_t sizes[] = {0, 1, CHUNK / 2, CHUNK + 1, 2 * MIB};
    fixture_init(&fixture, MIB);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        fixture.params.chunk_size = sizes[i];
        CHECK_FAILS(cache_open(&fixture.params, &fixture.cache), OBD_E_INVALID, "power of two");
    }
    fixture_remove(&fixture);
}

TEST(test_a_read_only_folder_is_read_and_keeps_nothing_new)
{
    struct cache_fixture fixture;
    fixture_open(&fixture, 64 * MIB);
    struct blob *blob = fixture_blob(&fixture, 1, 4 * CHUNK);
    CHECK(store(blob, 1, 0) && store(blob, 1, 1));
    blob_close(blob);
    cache_close(fixture.cache);
    damage(&fixture, 1, CHUNK);
    CHECK(chmod(fixture.folder, 0555) == 0);
    if (geteuid() == 0) /* to whom nothing is read-only */
        fixture_become_owner(&fixture, 65534);
    fixture_reopen(&fixture);
    blob = fixture_blob(&fixture, 1, 4 * CHUNK);
    CHECK_OK(read_back(blob, 1, 0, CHUNK));
    CHECK(read_back(blob, 1, CHUNK, CHUNK) == OBD_E_MISS); /* the damaged one */
    CHECK(!store(blob, 1, 2) && !store(blob, 1, 1));
    struct blob *new = fixture_blob(&fixture, 2, CHUNK);
    CHECK(!store(new, 2, 0) && read_back(new, 2, 0, 1) == OBD_E_MISS);
    blob_close(new);
    blob_close(blob);
    cache_close(fixture.cache);
    CHECK(getuid() != 0 || seteuid(0) == 0);
    CHECK(chmod(fixture.folder, 0755) == 0);
    fixture_remove(&fixture);
}

TEST(test_a_folder_that_cannot_be_made_is_an_error)
{
    struct obd_cache_params params = {.folder = "/proc/no-cache-here", .chunk_size = CHUNK};
    struct cache *cache;
    CHECK(cache_open(&params, &cache) != OBD_OK);
    CHECK(strstr(status_text(), "/proc/no-cache-here") != NULL);
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

/* ---- many threads ------------------------------------------------------------------------ */

enum { NR_BLOBS = 4, BLOB_CHUNKS = 40, NR_ROUNDS = 400, ROOM_CHUNKS = 24 };

struct crowd {
    struct cache_fixture fixture;
    struct blob *blobs[NR_BLOBS];
    atomic_uint nr_read, nr_missed, seed;
    atomic_bool is_over;
};

/* As the fetcher: brings what is missed, reads it while it is pinned. */
static void *bring_and_read(void *argument)
{
    struct crowd *crowd = argument;
    unsigned random = atomic_fetch_add(&crowd->seed, 1) * 7919 + 1;
    uint8_t *bytes = malloc(CHUNK);
    for (int round = 0; round < NR_ROUNDS; round++) {
        bool is_kept;
        random = random * 1103515245 + 12345;
        unsigned n = (random >> 16) % NR_BLOBS;
        uint64_t chunk = (random >> 20) % BLOB_CHUNKS;
        fill_bytes(n, bytes, chunk * CHUNK, CHUNK);
        CHECK_OK(blob_store(crowd->blobs[n], chunk, bytes, &is_kept));
        if (is_kept) { /* pinned: there, unless a reader has discarded it */
            bool is_there = read_back(crowd->blobs[n], n, chunk * CHUNK, CHUNK) == OBD_OK;
            CHECK(is_there || fixture_stats(&crowd->fixture).nr_damaged > 0);
            blob_unpin(crowd->blobs[n], chunk);
        }
        CHECK(fixture_stats(&crowd->fixture).used_bytes <= crowd->fixture.params.limit_bytes);
    }
    free(bytes);
    return NULL;
}

/* Never wrong bytes: read_back compares each. */
static void *read_anywhere(void *argument)
{
    struct crowd *crowd = argument;
    unsigned random = atomic_fetch_add(&crowd->seed, 1) * 104729 + 1;
    while (!atomic_load(&crowd->is_over)) {
        random = random * 1103515245 + 12345;
        unsigned n = (random >> 16) % NR_BLOBS;
        uint64_t chunk = (random >> 20) % (BLOB_CHUNKS - 1);
        enum obd_status status = read_back(crowd->blobs[n], n, chunk * CHUNK + 100, CHUNK / 2 + (random & 0x7fff));
        CHECK(status == OBD_OK || status == OBD_E_MISS);
        atomic_fetch_add(status == OBD_OK ? &crowd->nr_read : &crowd->nr_missed, 1);
        if (random % 64 == 0)
            blob_discard(crowd->blobs[n], chunk);
    }
    return NULL;
}

TEST(test_many_readers_and_writers_never_break_the_limit_nor_see_wrong_bytes)
{
    static struct crowd crowd;
    pthread_t writers[3], readers[3];
    fixture_open(&crowd.fixture, ROOM_CHUNKS * CHUNK + NR_BLOBS * MAP_ROOM);
    for (unsigned n = 0; n < NR_BLOBS; n++)
        crowd.blobs[n] = fixture_blob(&crowd.fixture, n, BLOB_CHUNKS * CHUNK);
    for (int i = 0; i < 3; i++) {
        CHECK(pthread_create(&writers[i], NULL, bring_and_read, &crowd) == 0);
        CHECK(pthread_create(&readers[i], NULL, read_anywhere, &crowd) == 0);
    }
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(writers[i], NULL) == 0);
    atomic_store(&crowd.is_over, true);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(readers[i], NULL) == 0);
    CHECK(crowd.nr_read > 0 && crowd.nr_missed > 0 && fixture_stats(&crowd.fixture).nr_evicted > 0);
    for (unsigned n = 0; n < NR_BLOBS; n++)
        blob_close(crowd.blobs[n]);
    fixture_close(&crowd.fixture);
}

/* One chunk among many comes and goes; the reader copies all of them at once, so that
 * it is often just before that chunk when it goes, and far from the end when it is back. */
enum { DUEL_CHUNKS = 16, DUEL_CHUNK = 4, DUEL_ROUNDS = 4000 };

struct duel {
    struct cache_fixture fixture;
    struct blob *blob;
    uint8_t bytes[DUEL_CHUNKS * CHUNK];
    atomic_bool is_over;
};

static void *read_all_chunks(void *argument)
{
    struct duel *duel = argument;
    uint8_t *seen = malloc(sizeof duel->bytes);
    struct iovec iov = {.iov_base = seen, .iov_len = sizeof duel->bytes};
    while (!atomic_load(&duel->is_over)) {
        struct iov_cursor cursor = iov_cursor_at(&iov, 1);
        enum obd_status status = blob_read(duel->blob, &cursor, sizeof duel->bytes, 0, false);
        CHECK(status == OBD_E_MISS || memcmp(seen, duel->bytes, sizeof duel->bytes) == 0);
    }
    free(seen);
    return NULL;
}

static void store_duel_chunk(struct duel *duel, uint64_t chunk)
{
    bool is_kept;
    CHECK_OK(blob_store(duel->blob, chunk, duel->bytes + chunk * CHUNK, &is_kept));
    CHECK(is_kept);
    blob_unpin(duel->blob, chunk);
}

TEST(test_a_chunk_that_comes_and_goes_is_read_right_or_not_at_all)
{
    static struct duel duel;
    pthread_t readers[2];
    fixture_open(&duel.fixture, 64 * MIB);
    duel.blob = fixture_blob(&duel.fixture, 1, sizeof duel.bytes);
    fill_bytes(1, duel.bytes, 0, sizeof duel.bytes);
    for (uint64_t chunk = 0; chunk < DUEL_CHUNKS; chunk++)
        store_duel_chunk(&duel, chunk);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&readers[i], NULL, read_all_chunks, &duel) == 0);
    for (int round = 0; round < DUEL_ROUNDS; round++) {
        blob_discard(duel.blob, DUEL_CHUNK);
        store_duel_chunk(&duel, DUEL_CHUNK);
        for (int pause = round % 50; pause > 0; pause--) /* so that each meets the other at every place */
            sched_yield();
    }
    atomic_store(&duel.is_over, true);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(readers[i], NULL) == 0);
    blob_close(duel.blob);
    fixture_close(&duel.fixture);
}

/* Blobs come and go while others evict from them. */
static void *open_and_close(void *argument)
{
    struct crowd *crowd = argument;
    unsigned me = atomic_fetch_add(&crowd->seed, 1);
    for (int round = 0; round < NR_ROUNDS / 4; round++) {
        unsigned n = (me + (unsigned)round) % NR_BLOBS;
        struct blob *blob = fixture_blob(&crowd->fixture, n, BLOB_CHUNKS * CHUNK);
        for (uint64_t chunk = 0; chunk < 6; chunk++) {
            uint64_t at = (chunk * 5 + (uint64_t)round) % BLOB_CHUNKS;
            if (read_back(blob, n, at * CHUNK, CHUNK) == OBD_E_MISS)
                store(blob, n, at);
        }
        blob_close(blob);
    }
    return NULL;
}

TEST(test_blobs_come_and_go_while_others_evict_from_them)
{
    static struct crowd crowd;
    pthread_t threads[4];
    fixture_open(&crowd.fixture, 8 * CHUNK + NR_BLOBS * MAP_ROOM);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, open_and_close, &crowd) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    struct obd_cache_stats stats = fixture_stats(&crowd.fixture);
    CHECK(stats.used_bytes <= stats.limit_bytes);
    cache_close(crowd.fixture.cache);
    fixture_reopen(&crowd.fixture);
    CHECK(fixture_stats(&crowd.fixture).used_bytes == stats.used_bytes);
    fixture_close(&crowd.fixture);
}

TEST_MAIN(T(test_what_was_stored_is_read_and_the_rest_is_a_miss),
          T(test_a_blob_is_shared_and_survives_closing_and_reopening),
          T(test_a_blob_of_which_nothing_is_kept_leaves_no_file), T(test_one_digest_cannot_have_two_sizes_at_once),
          T(test_pinned_chunks_are_never_evicted_and_then_nothing_more_is_kept),
          T(test_a_discarded_chunk_keeps_its_pins_and_can_be_stored_again),
          T(test_evicted_space_is_given_back_to_the_disk), T(test_a_lower_limit_holds_as_soon_as_the_folder_is_opened),
          T(test_a_limit_without_room_for_a_map_keeps_nothing_and_fails_nothing),
          T(test_a_set_that_was_read_twice_survives_a_scan_of_four_times_the_limit),
          T(test_a_set_that_was_read_once_in_small_pieces_does_not_survive_it),
          T(test_a_hot_set_that_is_not_read_any_more_makes_room_for_another),
          T(test_a_chunk_that_was_damaged_while_nobody_looked_is_absent),
          T(test_a_chunk_is_checked_at_its_first_use_only),
          T(test_a_read_that_may_not_wait_leaves_the_check_to_another),
          T(test_a_blob_of_other_size_or_chunk_size_is_made_anew),
          T(test_a_blob_with_a_damaged_map_or_lost_data_is_made_anew),
          T(test_data_shortened_under_a_running_cache_is_fetched_again),
          T(test_a_chunk_killed_between_its_bytes_and_its_record_takes_no_room),
          T(test_a_second_owner_is_told_who_the_first_is), T(test_a_folder_of_a_newer_version_is_refused),
          T(test_a_chunk_size_that_makes_no_sense_is_refused), T(test_a_read_only_folder_is_read_and_keeps_nothing_new),
          T(test_a_folder_that_cannot_be_made_is_an_error), T(test_a_failing_write_is_not_kept_and_takes_no_room),
          T(test_a_full_disk_under_the_cache_is_used_for_the_newest), T(test_a_disk_that_cannot_be_read_is_a_miss),
          T(test_a_tmpfs_smaller_than_the_limit_keeps_what_it_can),
          T(test_below_the_free_space_floor_nothing_is_kept_and_the_cache_shrinks),
          T(test_many_readers_and_writers_never_break_the_limit_nor_see_wrong_bytes),
          T(test_a_chunk_that_comes_and_goes_is_read_right_or_not_at_all),
          T(test_blobs_come_and_go_while_others_evict_from_them))
