/* blob_store: keeping the chunks that came, and dropping those that go.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/hook.h"
#include "base/log.h"
#include "cache/cache_state.h"
#include "codec/crc32c.h"

uint64_t blob_chunk_room(const struct blob *blob, uint64_t chunk)
{
    return round_up(blob_chunk_bytes(blob, chunk), ROOM_UNIT);
}

/* ---- residents -------------------------------------------------------------------- */

enum obd_status blob_enter_chunk(struct blob *blob, uint64_t chunk)
{
    struct chunk_use *use = &blob->uses[chunk];
    assert(use->resident == NULL);
    use->resident = malloc(sizeof *use->resident);
    if (use->resident == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory for a chunk of %s", blob->path);
    *use->resident = (struct resident){.blob = blob, .use = use};
    atomic_store_explicit(&use->marks, 0, memory_order_relaxed);
    if (use->nr_pins == 0)
        eviction_enter(&blob->cache->eviction, use->resident);
    return OBD_OK;
}

void blob_leave_chunk(struct blob *blob, uint64_t chunk)
{
    struct chunk_use *use = &blob->uses[chunk];
    if (use->nr_pins == 0)
        eviction_leave(&blob->cache->eviction, use->resident);
    free(use->resident);
    use->resident = NULL;
}

/* ---- dropping --------------------------------------------------------------------- */

/* With the lock held but during the punch; the chunk is busy. */
static enum obd_status punch(struct blob *blob, uint64_t chunk)
{
    struct cache *cache = blob->cache;
    pthread_mutex_unlock(&cache->lock);
    enum obd_status status = file_punch(blob->data, chunk * blob_chunk_size(blob), blob_chunk_room(blob, chunk));
    pthread_mutex_lock(&cache->lock);
    return status;
}

/* The chunk is busy, and will be absent.  What could not be punched keeps its room
 * until the folder is loaded again. */
static void vacate(struct blob *blob, uint64_t chunk)
{
    enum obd_status status = punch(blob, chunk);
    blob->uses[chunk].is_busy = false;
    if (status == OBD_OK)
        cache_give_room(blob->cache, blob_chunk_room(blob, chunk));
    else
        log_write(OBD_LOG_ERROR, "%s", status_text());
}

void blob_drop_chunk(struct blob *blob, uint64_t chunk)
{
    assert(!blob->uses[chunk].is_busy);
    enum obd_status status = blob->cache->is_read_only ? OBD_E_READ_ONLY : blob_files_use(blob);
    chunk_map_clear(blob->map, chunk); /* after the files are open, so that it is cleared there too */
    blob_leave_chunk(blob, chunk);
    if (status != OBD_OK)
        return; /* on the disk it is still present, and so it is counted */
    blob->uses[chunk].is_busy = true;
    HOOK("cache.chunk_cleared");
    vacate(blob, chunk);
    HOOK("cache.chunk_dropped");
    blob_files_leave(blob);
}

void blob_discard(struct blob *blob, uint64_t chunk)
{
    struct cache *cache = blob->cache;
    pthread_mutex_lock(&cache->lock);
    if (chunk_map_is_present(blob->map, chunk)) {
        cache->nr_damaged++;
        blob_drop_chunk(blob, chunk);
    }
    pthread_mutex_unlock(&cache->lock);
}

/* ---- storing ------------------------------------------------------------------------ */

static enum obd_status write_chunk(struct blob *blob, uint64_t chunk, const void *bytes)
{
    struct cache *cache = blob->cache;
    pthread_mutex_unlock(&cache->lock);
    enum obd_status status =
        file_write(blob->data, bytes, blob_chunk_bytes(blob, chunk), chunk * blob_chunk_size(blob));
    pthread_mutex_lock(&cache->lock);
    return status;
}

/* A disk that is full of what we keep: the newest is worth more than the oldest. */
static enum obd_status write_or_make_space(struct blob *blob, uint64_t chunk, const void *bytes)
{
    enum obd_status status = write_chunk(blob, chunk, bytes);
    if (status == OBD_E_NO_SPACE && cache_evict_one(blob->cache))
        status = write_chunk(blob, chunk, bytes);
    return status;
}

/* The chunk is busy, and has room. */
static enum obd_status fill(struct blob *blob, uint64_t chunk, const void *bytes)
{
    uint32_t crc = crc32c_raw(bytes, blob_chunk_bytes(blob, chunk), (uint32_t)chunk);
    enum obd_status status = write_or_make_space(blob, chunk, bytes);
    HOOK("cache.chunk_written");
    if (status == OBD_OK)
        status = blob_enter_chunk(blob, chunk);
    if (status != OBD_OK)
        return status;
    status = chunk_map_set(blob->map, chunk, crc);
    HOOK("cache.chunk_noted");
    if (status != OBD_OK)
        blob_leave_chunk(blob, chunk);
    return status;
}

static enum obd_status keep(struct blob *blob, uint64_t chunk, const void *bytes)
{
    struct chunk_use *use = &blob->uses[chunk];
    uint64_t room = blob_chunk_room(blob, chunk);
    use->is_busy = true;
    enum obd_status status = cache_check_floor(blob->cache, room);
    if (status == OBD_OK)
        status = cache_take_room(blob->cache, room);
    if (status != OBD_OK) {
        use->is_busy = false;
        return status;
    }
    status = fill(blob, chunk, bytes);
    if (status == OBD_OK)
        use->is_busy = false;
    else
        vacate(blob, chunk);
    return status;
}

bool blob_has_spare_room(struct blob *blob, uint64_t chunk)
{
    pthread_mutex_lock(&blob->cache->lock);
    bool has = cache_has_spare_room(blob->cache, blob_chunk_room(blob, chunk));
    pthread_mutex_unlock(&blob->cache->lock);
    return has;
}

enum obd_status blob_store(struct blob *blob, uint64_t chunk, const void *bytes, bool *is_kept)
{
    struct cache *cache = blob->cache;
    pthread_mutex_lock(&cache->lock);
    *is_kept = chunk_map_is_present(blob->map, chunk);
    if (!*is_kept && blob->keeps_files && !blob->uses[chunk].is_busy) {
        enum obd_status status = keep(blob, chunk, bytes);
        cache_note_kept(cache, status);
        *is_kept = status == OBD_OK;
    } else if (!*is_kept) {
        cache->nr_not_kept++; /* a blob without files, or a chunk that another brings or drops just now */
    }
    if (*is_kept)
        blob_pin_chunk(blob, chunk);
    pthread_mutex_unlock(&cache->lock);
    return OBD_OK;
}
