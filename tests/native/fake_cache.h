/* fake_cache: a cache in memory, of one blob, that a test can make small or forgetful.
 *
 * It stands where csrc/cache/cache.c does in the program, so that what sits above it
 * can be tested for every answer it may give.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FAKE_CACHE_H
#define FAKE_CACHE_H

#include <pthread.h>

#include "check.h"

#include "base/checked.h"
#include "cache/cache.h"

#define FAKE_MAX_CHUNKS 1024

struct blob {
    uint64_t size;
    uint32_t chunk_size;
    struct miss_table *table;
    pthread_mutex_t lock;
    uint8_t *bytes;
    bool is_present[FAKE_MAX_CHUNKS];
    unsigned nr_pins[FAKE_MAX_CHUNKS];
    unsigned nr_stored, nr_kept; /* kept: present now */
    unsigned nr_openings;
    _Atomic uint64_t nr_hits, nr_misses; /* chunks */
    unsigned limit;                      /* chunks */
};

struct cache {
    struct blob blob;
    uint64_t limit_bytes;
};

static inline void fake_cache_init(struct cache *cache, uint32_t chunk_size, unsigned limit)
{
    memset(cache, 0, sizeof *cache);
    cache->blob.chunk_size = chunk_size;
    cache->blob.limit = limit;
    cache->limit_bytes = UINT64_C(1) << 30;
    pthread_mutex_init(&cache->blob.lock, NULL);
}

/* Nothing of it may be pinned, or open, any more. */
static inline void fake_cache_destroy(struct cache *cache)
{
    CHECK(cache->blob.nr_openings == 0);
    for (unsigned i = 0; i < FAKE_MAX_CHUNKS; i++)
        CHECK(cache->blob.nr_pins[i] == 0);
    pthread_mutex_destroy(&cache->blob.lock);
    free(cache->blob.bytes);
}

void cache_stats(struct cache *cache, struct obd_cache_stats *stats)
{
    *stats = (struct obd_cache_stats){.limit_bytes = cache->limit_bytes};
}

enum obd_status blob_open(struct cache *cache, const uint8_t digest[32], uint64_t size, struct blob **out)
{
    struct blob *blob = &cache->blob;
    (void)digest;
    pthread_mutex_lock(&blob->lock);
    if (blob->nr_openings++ == 0) {
        CHECK_OK(miss_table_open(&blob->table));
        blob->size = size;
        if (blob->bytes == NULL)
            blob->bytes = malloc(size);
    }
    pthread_mutex_unlock(&blob->lock);
    *out = blob;
    return OBD_OK;
}

void blob_close(struct blob *blob)
{
    pthread_mutex_lock(&blob->lock);
    if (--blob->nr_openings == 0)
        miss_table_close(blob->table);
    pthread_mutex_unlock(&blob->lock);
}

uint64_t blob_size(const struct blob *blob)
{
    return blob->size;
}

uint32_t blob_chunk_size(const struct blob *blob)
{
    return blob->chunk_size;
}

uint32_t blob_chunk_bytes(const struct blob *blob, uint64_t chunk)
{
    return (uint32_t)min_u64(blob->chunk_size, blob->size - chunk * blob->chunk_size);
}

struct miss_table *blob_miss_table(struct blob *blob)
{
    return blob->table;
}

bool blob_is_present(const struct blob *blob, uint64_t chunk)
{
    struct blob *locked = (struct blob *)blob;
    pthread_mutex_lock(&locked->lock);
    bool is = blob->is_present[chunk];
    pthread_mutex_unlock(&locked->lock);
    return is;
}

void blob_count_hits(struct blob *blob, uint64_t nr_chunks)
{
    blob->nr_hits += nr_chunks;
}

void blob_count_miss(struct blob *blob)
{
    blob->nr_misses++;
}

uint64_t blob_present_bytes(struct blob *blob)
{
    uint64_t bytes = 0;
    for (uint64_t chunk = 0; chunk * blob->chunk_size < blob->size; chunk++)
        bytes += blob_is_present(blob, chunk) ? blob_chunk_bytes(blob, chunk) : 0;
    return bytes;
}

int64_t blob_first_absent(struct blob *blob, uint64_t first, uint64_t last)
{
    for (uint64_t chunk = first; chunk <= last; chunk++)
        if (!blob_is_present(blob, chunk))
            return (int64_t)chunk;
    return -1;
}

enum obd_status blob_read(struct blob *blob, struct iov_cursor *cursor, size_t length, uint64_t offset, bool nowait)
{
    (void)nowait;
    pthread_mutex_lock(&blob->lock);
    bool is_here = true;
    for (uint64_t chunk = offset / blob->chunk_size; chunk <= (offset + length - 1) / blob->chunk_size; chunk++)
        is_here &= blob->is_present[chunk];
    if (is_here)
        iov_cursor_write(cursor, blob->bytes + offset, length);
    pthread_mutex_unlock(&blob->lock);
    return is_here ? OBD_OK : OBD_E_MISS;
}

bool blob_pin(struct blob *blob, uint64_t chunk)
{
    pthread_mutex_lock(&blob->lock);
    bool is_here = blob->is_present[chunk];
    blob->nr_pins[chunk] += is_here;
    pthread_mutex_unlock(&blob->lock);
    return is_here;
}

void blob_unpin(struct blob *blob, uint64_t chunk)
{
    pthread_mutex_lock(&blob->lock);
    CHECK(blob->nr_pins[chunk] > 0);
    blob->nr_pins[chunk]--;
    pthread_mutex_unlock(&blob->lock);
}

/* With the lock held: makes room for one chunk, if something is not pinned. */
static inline bool fake_evict(struct blob *blob)
{
    for (unsigned i = 0; i < FAKE_MAX_CHUNKS && blob->nr_kept >= blob->limit; i++) {
        if (!blob->is_present[i] || blob->nr_pins[i] > 0)
            continue;
        blob->is_present[i] = false;
        blob->nr_kept--;
    }
    return blob->nr_kept < blob->limit;
}

bool blob_has_spare_room(struct blob *blob, uint64_t chunk)
{
    (void)chunk;
    pthread_mutex_lock(&blob->lock);
    bool has = blob->nr_kept < blob->limit;
    pthread_mutex_unlock(&blob->lock);
    return has;
}

enum obd_status blob_store(struct blob *blob, uint64_t chunk, const void *bytes, bool *is_kept)
{
    pthread_mutex_lock(&blob->lock);
    blob->nr_stored++;
    *is_kept = blob->is_present[chunk] || fake_evict(blob);
    if (*is_kept) {
        blob->nr_kept += !blob->is_present[chunk];
        blob->is_present[chunk] = true;
        blob->nr_pins[chunk]++;
        memcpy(blob->bytes + chunk * blob->chunk_size, bytes, blob_chunk_bytes(blob, chunk));
    }
    pthread_mutex_unlock(&blob->lock);
    return OBD_OK;
}

static inline void fake_drop(struct blob *blob, uint64_t chunk)
{
    blob->nr_kept -= blob->is_present[chunk];
    blob->is_present[chunk] = false;
}

void blob_discard(struct blob *blob, uint64_t chunk)
{
    pthread_mutex_lock(&blob->lock);
    fake_drop(blob, chunk);
    pthread_mutex_unlock(&blob->lock);
}

/* What eviction does, to all that is not pinned. */
static inline void fake_forget(struct cache *cache)
{
    pthread_mutex_lock(&cache->blob.lock);
    for (unsigned i = 0; i < FAKE_MAX_CHUNKS; i++)
        if (cache->blob.nr_pins[i] == 0)
            fake_drop(&cache->blob, i);
    pthread_mutex_unlock(&cache->blob.lock);
}

#endif
