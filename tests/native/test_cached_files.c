/* The cached source over the real cache and the real fetcher, many threads at once: for
 * TSan, and for what only all three together can get wrong.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE /* nftw */
#include "fetch_fixture.h"

#include <ftw.h>

#include "cache/cached_source.h"

#define MIB (UINT64_C(1) << 20)

static struct fetch_fixture fixture;
static struct cache *cache;
static char folder[64];
static const uint8_t digest[32] = {1, 2, 3};

static struct source *open_cached(uint64_t limit_bytes)
{
    struct source *source;
    fixture_open(&fixture);
    snprintf(folder, sizeof folder, "/tmp/obd-cached-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
    CHECK_OK(cache_open(&(struct obd_cache_params){.folder = folder, .limit_bytes = limit_bytes, .chunk_size = CHUNK},
                        &cache));
    CHECK_OK(source_open_cached(cache, fixture.origin, digest, &source));
    return source;
}

static int remove_one(const char *path, const struct stat *stat, int kind, struct FTW *place)
{
    (void)stat, (void)kind, (void)place;
    return remove(path);
}

static void close_cached(struct source *source)
{
    source_unref(source);
    fixture_close(&fixture);
    cache_close(cache);
    CHECK(nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0);
}

static void *read_long(void *source)
{
    unsigned seed = (unsigned)(uintptr_t)&seed;
    uint8_t *buffer = malloc(MIB);
    for (int i = 0; i < 4; i++) {
        uint64_t offset = (uint64_t)rand_r(&seed) % (PEER_BLOB_SIZE - MIB);
        CHECK_OK(source_read_wait(source, buffer, MIB, offset, SECONDS(120)));
        for (size_t j = 0; j < MIB; j += 61)
            CHECK(buffer[j] == peer_byte(offset + j));
    }
    free(buffer);
    return NULL;
}

static void read_from_many_threads(uint64_t limit_bytes)
{
    struct source *source = open_cached(limit_bytes);
    struct obd_cache_stats stats;
    pthread_t threads[32];
    for (int i = 0; i < 32; i++)
        CHECK(pthread_create(&threads[i], NULL, read_long, source) == 0);
    for (int i = 0; i < 32; i++)
        pthread_join(threads[i], NULL);
    cache_stats(cache, &stats);
    CHECK(stats.used_bytes <= limit_bytes);
    close_cached(source);
}

TEST(readers_of_1_mib_through_a_cache_of_1_mib_all_end_with_right_bytes)
{
    read_from_many_threads(MIB);
}

TEST(readers_of_1_mib_through_a_cache_of_half_the_blob_all_end_with_right_bytes)
{
    read_from_many_threads(10 * MIB);
}

static void *read_and_discard(void *source)
{
    unsigned seed = (unsigned)(uintptr_t)&seed;
    uint8_t buffer[3 * CHUNK];
    for (int i = 0; i < 50; i++) {
        size_t length = 1 + (size_t)rand_r(&seed) % sizeof buffer;
        uint64_t offset = (uint64_t)rand_r(&seed) % (PEER_BLOB_SIZE - length);
        uint64_t deadline = i % 4 == 0 ? clock_now_ns() + NS_PER_MS : SECONDS(120);
        enum obd_status status = source_read_wait(source, buffer, length, offset, deadline);
        CHECK(status == OBD_OK || (i % 4 == 0 && status == OBD_E_TIMEOUT));
        for (size_t j = 0; j < length && status == OBD_OK; j += 61)
            CHECK(buffer[j] == peer_byte(offset + j));
        if (i % 5 == 0)
            CHECK_OK(source_discard(source, offset, length));
        if (i % 9 == 0)
            CHECK_OK(cached_source_prefetch(source, offset, length));
    }
    return NULL;
}

TEST(many_threads_read_discard_prefetch_and_give_up)
{
    struct source *source = open_cached(3 * MIB);
    pthread_t threads[6];
    for (int i = 0; i < 6; i++)
        CHECK(pthread_create(&threads[i], NULL, read_and_discard, source) == 0);
    for (int i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    close_cached(source);
}

TEST_MAIN(T(readers_of_1_mib_through_a_cache_of_1_mib_all_end_with_right_bytes),
          T(readers_of_1_mib_through_a_cache_of_half_the_blob_all_end_with_right_bytes),
          T(many_threads_read_discard_prefetch_and_give_up))
