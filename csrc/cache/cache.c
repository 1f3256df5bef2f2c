/* cache: opening, closing, statistics.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cache/cache.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/log.h"
#include "cache/cache_state.h"

static enum obd_status check_params(const struct obd_cache_params *params)
{
    uint32_t chunk_size = params->chunk_size;
    if (is_power_of_two(chunk_size) && chunk_size >= CHUNK_MIN_SIZE && chunk_size <= CHUNK_MAX_SIZE)
        return OBD_OK;
    return status_set(OBD_E_INVALID, "cache %s: a chunk size of %u is no power of two from %u to %u", params->folder,
                      chunk_size, CHUNK_MIN_SIZE, CHUNK_MAX_SIZE);
}

static enum obd_status make_cache(const struct obd_cache_params *params, struct cache **out)
{
    struct cache *cache = calloc(1, sizeof *cache);
    char *folder = strdup(params->folder);
    if (cache == NULL || folder == NULL) {
        free(cache);
        free(folder);
        return status_set(OBD_E_NO_MEMORY, "no memory to open the cache %s", params->folder);
    }
    *cache = (struct cache){.folder = folder,
                            .limit_bytes = params->limit_bytes,
                            .free_floor_bytes = params->free_floor_bytes,
                            .chunk_size = params->chunk_size};
    pthread_mutex_init(&cache->lock, NULL);
    list_init(&cache->blobs);
    eviction_init(&cache->eviction);
    *out = cache;
    return OBD_OK;
}

enum obd_status cache_open(const struct obd_cache_params *params, struct cache **out)
{
    struct cache *cache = NULL;
    enum obd_status status = check_params(params);
    if (status == OBD_OK)
        status = make_cache(params, &cache);
    if (status != OBD_OK)
        return status;
    status = cache_folder_claim(cache);
    if (status == OBD_OK)
        status = cache_folder_load(cache);
    if (status != OBD_OK) {
        cache_close(cache);
        return status;
    }
    pthread_mutex_lock(&cache->lock);
    if (!cache->is_read_only)
        cache_shrink(cache);
    pthread_mutex_unlock(&cache->lock);
    *out = cache;
    return OBD_OK;
}

void cache_close(struct cache *cache)
{
    struct list *link;
    while ((link = list_pop(&cache->blobs)) != NULL)
        blob_free(LIST_ENTRY(link, struct blob, in_cache));
    file_close(cache->owner_lock);
    pthread_mutex_destroy(&cache->lock);
    free(cache->folder);
    free(cache);
}

static void count_blobs(struct cache *cache, struct obd_cache_stats *stats)
{
    for (struct list *link = cache->blobs.next; link != &cache->blobs; link = link->next) {
        struct blob *blob = LIST_ENTRY(link, struct blob, in_cache);
        stats->nr_blobs++;
        stats->nr_hits += atomic_load_explicit(&blob->nr_hits, memory_order_relaxed);
        stats->nr_misses += atomic_load_explicit(&blob->nr_misses, memory_order_relaxed);
    }
}

void cache_stats(struct cache *cache, struct obd_cache_stats *stats)
{
    pthread_mutex_lock(&cache->lock);
    *stats = (struct obd_cache_stats){
        .limit_bytes = cache->limit_bytes,
        .used_bytes = cache->used_bytes,
        .nr_evicted = cache->nr_evicted,
        .nr_damaged = cache->nr_damaged,
        .nr_not_kept = cache->nr_not_kept,
        .nr_hits = cache->nr_hits,
        .nr_misses = cache->nr_misses,
    };
    count_blobs(cache, stats);
    pthread_mutex_unlock(&cache->lock);
}
