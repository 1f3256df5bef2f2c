/* cache_room: the byte limit, the free-space floor, and what goes to keep them.
 *
 * Room is taken before a byte is written and given back after it was punched, so
 * used_bytes is never less than what is on the disk, nor more than the limit (but
 * for what a folder held already that is opened with a lower one).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>
#include <errno.h>
#include <sys/statvfs.h>

#include "base/log.h"
#include "cache/cache_state.h"

/* When others fill the disk, every chunk that comes makes the cache smaller by a few,
 * but a file system that gives space back late does not empty it. */
#define MAX_EVICTED_FOR_FLOOR 4

bool cache_evict_one(struct cache *cache)
{
    struct resident *victim = eviction_victim(&cache->eviction);
    if (victim == NULL)
        return false;
    cache->nr_evicted++;
    blob_drop_chunk(victim->blob, (uint64_t)(victim->use - victim->blob->uses));
    return true;
}

static bool has_room(const struct cache *cache, uint64_t bytes)
{
    return cache->used_bytes <= cache->limit_bytes && bytes <= cache->limit_bytes - cache->used_bytes;
}

bool cache_has_spare_room(struct cache *cache, uint64_t bytes)
{
    struct statvfs fs;
    if (!has_room(cache, bytes) || statvfs(cache->folder, &fs) != 0)
        return false;
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return free_bytes >= bytes && free_bytes - bytes >= cache->free_floor_bytes;
}

enum obd_status cache_take_room(struct cache *cache, uint64_t bytes)
{
    while (!has_room(cache, bytes))
        if (bytes > cache->limit_bytes || !cache_evict_one(cache))
            return status_set(OBD_E_LIMIT, "cache %s: no room for %llu bytes: %llu of %llu are in use", cache->folder,
                              (unsigned long long)bytes, (unsigned long long)cache->used_bytes,
                              (unsigned long long)cache->limit_bytes);
    cache->used_bytes += bytes;
    return OBD_OK;
}

void cache_give_room(struct cache *cache, uint64_t bytes)
{
    assert(bytes <= cache->used_bytes);
    cache->used_bytes -= bytes;
}

void cache_shrink(struct cache *cache)
{
    while (cache->used_bytes > cache->limit_bytes && cache_evict_one(cache))
        ;
}

enum obd_status cache_check_floor(struct cache *cache, uint64_t bytes)
{
    uint64_t free_bytes = 0;
    for (unsigned nr_evicted = 0;; nr_evicted++) {
        struct statvfs fs;
        if (statvfs(cache->folder, &fs) != 0)
            return status_set_errno(errno, "cache %s: cannot ask for free space", cache->folder);
        free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
        if (free_bytes >= bytes && free_bytes - bytes >= cache->free_floor_bytes)
            return OBD_OK;
        if (nr_evicted == MAX_EVICTED_FOR_FLOOR || !cache_evict_one(cache))
            break;
    }
    return status_set(OBD_E_NO_SPACE, "cache %s: %llu bytes are free on its disk, and %llu of them shall stay so",
                      cache->folder, (unsigned long long)free_bytes, (unsigned long long)cache->free_floor_bytes);
}

void cache_note_kept(struct cache *cache, enum obd_status status)
{
    if (status != OBD_OK)
        cache->nr_not_kept++;
    if (status != OBD_OK && cache->trouble != status)
        log_write(OBD_LOG_WARNING, "not kept, only handed on: %s", status_text());
    if (status == OBD_OK && cache->trouble != OBD_OK)
        log_write(OBD_LOG_INFO, "cache %s keeps chunks again", cache->folder);
    cache->trouble = status;
}
