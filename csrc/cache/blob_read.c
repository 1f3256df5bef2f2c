/* blob_read: reading without a lock, and the check at first use.
 *
 *   stamp of the chunks --> bytes are copied --> the same stamp again: they are right
 *
 * Whoever drops a chunk clears it, which changes its stamp, before the first of its
 * bytes is punched or replaced (chunk_map.h).  So bytes that were copied between two
 * equal stamps were there all the time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/log.h"
#include "cache/cache_state.h"
#include "codec/crc32c.h"

/* ---- the check at first use ------------------------------------------------------ */

static bool has_crc(struct blob *blob, uint64_t chunk, void *buffer, uint32_t crc)
{
    uint32_t length = blob_chunk_bytes(blob, chunk);
    return file_read(blob->data, buffer, length, chunk * blob_chunk_size(blob)) == OBD_OK &&
           crc32c_raw(buffer, length, (uint32_t)chunk) == crc;
}

/* Under the lock: what was found out about a chunk that had that generation. */
static void judge(struct blob *blob, uint64_t chunk, uint32_t generation, bool is_right)
{
    if (!chunk_map_is_present(blob->map, chunk) || chunk_map_generation(blob->map, chunk) != generation)
        return; /* dropped meanwhile: what was read says nothing */
    if (is_right) {
        chunk_map_vouch(blob->map, chunk);
        return;
    }
    log_write(OBD_LOG_WARNING, "%s: chunk %llu is damaged and will be fetched again", blob->path,
              (unsigned long long)chunk);
    blob->cache->nr_damaged++;
    blob_drop_chunk(blob, chunk);
}

static void check_chunk(struct blob *blob, uint64_t chunk, void *buffer)
{
    struct cache *cache = blob->cache;
    pthread_mutex_lock(&cache->lock);
    if (chunk_map_is_present(blob->map, chunk) && !chunk_map_is_trusted(blob->map, chunk)) {
        uint32_t crc = chunk_map_crc(blob->map, chunk), generation = chunk_map_generation(blob->map, chunk);
        pthread_mutex_unlock(&cache->lock);
        bool is_right = has_crc(blob, chunk, buffer, crc);
        pthread_mutex_lock(&cache->lock);
        judge(blob, chunk, generation, is_right);
    }
    pthread_mutex_unlock(&cache->lock);
}

/* Checks what is not trusted yet; *absent is the first that is not there, or -1. */
static enum obd_status find_absent(struct blob *blob, uint64_t first, uint64_t last, int64_t *absent)
{
    void *buffer = NULL;
    *absent = -1;
    for (uint64_t chunk = first; chunk <= last && *absent < 0; chunk++) {
        bool is_unchecked = chunk_map_is_present(blob->map, chunk) && !chunk_map_is_trusted(blob->map, chunk);
        if (is_unchecked && buffer == NULL && (buffer = malloc(blob_chunk_size(blob))) == NULL)
            return status_set(OBD_E_NO_MEMORY, "no memory to check a chunk of %s", blob->path);
        if (is_unchecked)
            check_chunk(blob, chunk, buffer);
        if (!chunk_map_is_trusted(blob->map, chunk))
            *absent = (int64_t)chunk;
    }
    free(buffer);
    return OBD_OK;
}

int64_t blob_first_absent(struct blob *blob, uint64_t first, uint64_t last)
{
    int64_t absent;
    return find_absent(blob, first, last, &absent) == OBD_OK ? absent : (int64_t)first;
}

/* Some chunk of the range cannot be read yet. */
static enum obd_status make_readable(struct blob *blob, uint64_t first, uint64_t last, bool nowait)
{
    int64_t absent;
    for (uint64_t chunk = first; chunk <= last; chunk++)
        if (!chunk_map_is_present(blob->map, chunk))
            return OBD_E_MISS;
    if (nowait)
        return OBD_E_AGAIN; /* a check reads whole chunks from the disk */
    enum obd_status status = find_absent(blob, first, last, &absent);
    return status == OBD_OK && absent >= 0 ? OBD_E_MISS : status;
}

/* ---- reading -------------------------------------------------------------------------- */

static void note(struct blob *blob, uint64_t first, uint64_t last, size_t length, uint64_t offset)
{
    uint32_t chunk_size = blob_chunk_size(blob);
    for (uint64_t chunk = first; chunk <= last; chunk++) {
        uint64_t begin = max_u64(offset, chunk * chunk_size) - chunk * chunk_size;
        uint64_t end = min_u64(offset + length, (chunk + 1) * chunk_size) - chunk * chunk_size;
        chunk_use_note(&blob->uses[chunk], chunk_size, (uint32_t)begin, (uint32_t)end);
    }
}

/* The local disk fails: the registry has the bytes too. */
static enum obd_status give_up(struct blob *blob, uint64_t first, uint64_t last)
{
    log_write(OBD_LOG_WARNING, "will be fetched again: %s", status_text());
    for (uint64_t chunk = first; chunk <= last; chunk++)
        blob_discard(blob, chunk);
    return OBD_E_MISS;
}

enum obd_status blob_read(struct blob *blob, struct iov_cursor *cursor, size_t length, uint64_t offset, bool nowait)
{
    assert(length > 0 && range_is_inside(offset, length, blob_size(blob)));
    uint64_t first = offset / blob_chunk_size(blob), last = (offset + length - 1) / blob_chunk_size(blob);
    uint64_t before, after;
    enum obd_status status = OBD_OK;
    while (status == OBD_OK && !chunk_map_stamp(blob->map, first, last, &before))
        status = make_readable(blob, first, last, nowait);
    if (status != OBD_OK)
        return status;
    struct iov_cursor at = *cursor;
    status =
        nowait ? file_read_iov_nowait(blob->data, &at, length, offset) : file_read_iov(blob->data, &at, length, offset);
    if (status == OBD_E_AGAIN)
        return status;
    atomic_thread_fence(memory_order_acquire); /* the copy comes before the second stamp */
    if (!chunk_map_stamp(blob->map, first, last, &after) || after != before)
        return OBD_E_MISS;
    if (status != OBD_OK)
        return give_up(blob, first, last);
    note(blob, first, last, length, offset);
    *cursor = at;
    return OBD_OK;
}
