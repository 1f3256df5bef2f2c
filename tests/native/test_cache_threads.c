/* The cache under many threads at once.  Also for TSan.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <sched.h>

#include "cache_fixture.h"

#define MIB (1u << 20)

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

TEST_MAIN(T(test_many_readers_and_writers_never_break_the_limit_nor_see_wrong_bytes),
          T(test_a_chunk_that_comes_and_goes_is_read_right_or_not_at_all),
          T(test_blobs_come_and_go_while_others_evict_from_them))
