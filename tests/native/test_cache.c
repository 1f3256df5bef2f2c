/* The cache: what is kept and for how long, and whose folder it is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
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
          T(test_a_second_owner_is_told_who_the_first_is), T(test_a_folder_of_a_newer_version_is_refused),
          T(test_a_chunk_size_that_makes_no_sense_is_refused), T(test_a_read_only_folder_is_read_and_keeps_nothing_new),
          T(test_a_folder_that_cannot_be_made_is_an_error))
