/* blob: opening, closing, pins.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "cache/cache_state.h"

uint64_t blob_size(const struct blob *blob)
{
    return chunk_map_shape(blob->map)->blob_size;
}

uint32_t blob_chunk_size(const struct blob *blob)
{
    return chunk_map_shape(blob->map)->chunk_size;
}

uint32_t blob_chunk_bytes(const struct blob *blob, uint64_t chunk)
{
    return chunk_map_chunk_bytes(blob->map, chunk);
}

struct miss_table *blob_miss_table(struct blob *blob)
{
    return blob->table;
}

bool blob_is_present(const struct blob *blob, uint64_t chunk)
{
    return chunk_map_is_present(blob->map, chunk);
}

uint64_t blob_present_bytes(struct blob *blob)
{
    uint64_t last = chunk_map_nr_chunks(blob->map) - 1;
    pthread_mutex_lock(&blob->cache->lock);
    uint64_t bytes = chunk_map_nr_present(blob->map) * blob_chunk_size(blob);
    if (chunk_map_is_present(blob->map, last))
        bytes -= blob_chunk_size(blob) - blob_chunk_bytes(blob, last);
    pthread_mutex_unlock(&blob->cache->lock);
    return bytes;
}

/* ---- memory ---------------------------------------------------------------------- */

enum obd_status blob_make(struct cache *cache, const char *path, struct chunk_map *map, struct blob **out)
{
    size_t path_size = strlen(path) + 1;
    struct blob *blob = calloc(1, sizeof *blob + path_size);
    struct chunk_use *uses = calloc(chunk_map_nr_chunks(map), sizeof *uses);
    if (blob == NULL || uses == NULL) {
        free(blob);
        free(uses);
        chunk_map_free(map);
        return status_set(OBD_E_NO_MEMORY, "no memory for the cached blob %s", path);
    }
    memcpy(blob->path, path, path_size);
    blob->cache = cache;
    blob->map = map;
    blob->uses = uses;
    list_append(&cache->blobs, &blob->in_cache);
    *out = blob;
    return OBD_OK;
}

/* It is in no list any more. */
void blob_free(struct blob *blob)
{
    assert(blob->nr_users == 0 && blob->nr_file_users == 0);
    blob->cache->nr_hits += atomic_load(&blob->nr_hits);
    blob->cache->nr_misses += atomic_load(&blob->nr_misses);
    for (uint64_t chunk = 0; chunk < chunk_map_nr_chunks(blob->map); chunk++)
        free(blob->uses[chunk].resident);
    chunk_map_free(blob->map);
    free(blob->uses);
    free(blob);
}

/* ---- opening, under the lock ----------------------------------------------------------- */

static struct blob *find(struct cache *cache, const uint8_t digest[32])
{
    for (struct list *link = cache->blobs.next; link != &cache->blobs; link = link->next) {
        struct blob *blob = LIST_ENTRY(link, struct blob, in_cache);
        if (memcmp(chunk_map_shape(blob->map)->digest, digest, 32) == 0)
            return blob;
    }
    return NULL;
}

static bool fits(const struct blob *blob, const struct chunk_map_shape *shape)
{
    const struct chunk_map_shape *is = chunk_map_shape(blob->map);
    return is->blob_size == shape->blob_size && is->chunk_size == shape->chunk_size;
}

static enum obd_status path_of(const struct cache *cache, const uint8_t digest[32], char path[PATH_MAX])
{
    int length = snprintf(path, PATH_MAX, "%s/blobs/", cache->folder);
    if (length < 0 || length + 64 + (int)sizeof ".map" > PATH_MAX)
        return status_set(OBD_E_INVALID, "cache %s: its path is too long", cache->folder);
    for (int i = 0; i < 32; i++)
        length += snprintf(path + length, PATH_MAX - (size_t)length, "%02x", digest[i]);
    return OBD_OK;
}

static enum obd_status make_empty(struct cache *cache, const struct chunk_map_shape *shape, struct blob **out)
{
    char path[PATH_MAX], map_path[PATH_MAX + sizeof ".map"];
    struct chunk_map *map;
    enum obd_status status = path_of(cache, shape->digest, path);
    if (status != OBD_OK)
        return status;
    snprintf(map_path, sizeof map_path, "%s.map", path);
    status = chunk_map_new(map_path, shape, &map);
    return status == OBD_OK ? blob_make(cache, path, map, out) : status;
}

static enum obd_status find_or_make(struct cache *cache, const struct chunk_map_shape *shape, struct blob **out)
{
    struct blob *blob = find(cache, shape->digest);
    if (blob != NULL && fits(blob, shape)) {
        *out = blob;
        return OBD_OK;
    }
    if (blob != NULL && blob->nr_users > 0)
        return status_set(OBD_E_INVALID, "%s is open with %llu bytes, and cannot also have %llu", blob->path,
                          (unsigned long long)blob_size(blob), (unsigned long long)shape->blob_size);
    if (blob != NULL)
        blob_files_remove(blob); /* of another chunk size, or of a registry that lied */
    return make_empty(cache, shape, out);
}

/* Without files a blob works too: it keeps nothing. */
static void get_files(struct blob *blob)
{
    if (blob->has_files && blob_files_use(blob) == OBD_OK) {
        blob->keeps_files = true;
        return;
    }
    if (blob->has_files) {
        log_write(OBD_LOG_WARNING, "what was cached is lost: %s", status_text());
        blob_files_forget(blob);
    }
    if (blob->cache->is_read_only)
        return;
    enum obd_status status = blob_files_make(blob);
    blob->keeps_files = status == OBD_OK;
    if (status != OBD_OK)
        log_write(OBD_LOG_WARNING, "nothing of it is kept: %s", status_text());
}

static enum obd_status open_shape(struct cache *cache, const struct chunk_map_shape *shape, struct blob **out)
{
    struct blob *blob;
    enum obd_status status = find_or_make(cache, shape, &blob);
    if (status == OBD_OK && blob->nr_users == 0)
        status = miss_table_open(&blob->table);
    if (status != OBD_OK)
        return status; /* an empty blob may stay behind, and be found by the next who opens it */
    if (blob->nr_users++ == 0)
        get_files(blob);
    *out = blob;
    return OBD_OK;
}

enum obd_status blob_open(struct cache *cache, const uint8_t digest[32], uint64_t size, struct blob **out)
{
    struct chunk_map_shape shape = {.blob_size = size, .chunk_size = cache->chunk_size};
    if (size == 0)
        return status_set(OBD_E_INVALID, "cache %s: a blob of no bytes cannot be opened", cache->folder);
    memcpy(shape.digest, digest, sizeof shape.digest);
    pthread_mutex_lock(&cache->lock);
    enum obd_status status = open_shape(cache, &shape, out);
    pthread_mutex_unlock(&cache->lock);
    return status;
}

void blob_close(struct blob *blob)
{
    struct cache *cache = blob->cache;
    pthread_mutex_lock(&cache->lock);
    if (--blob->nr_users == 0) {
        miss_table_close(blob->table);
        blob->table = NULL;
        bool keeps_files = blob->keeps_files;
        blob->keeps_files = false;
        if (keeps_files)
            blob_files_leave(blob);
        else
            blob_free_if_empty(blob);
    }
    pthread_mutex_unlock(&cache->lock);
}

/* ---- pins --------------------------------------------------------------------------- */

bool blob_pin(struct blob *blob, uint64_t chunk)
{
    pthread_mutex_lock(&blob->cache->lock);
    bool is_present = chunk_map_is_present(blob->map, chunk);
    if (is_present)
        blob_pin_chunk(blob, chunk);
    pthread_mutex_unlock(&blob->cache->lock);
    return is_present;
}

void blob_pin_chunk(struct blob *blob, uint64_t chunk)
{
    struct chunk_use *use = &blob->uses[chunk];
    if (use->nr_pins++ == 0)
        eviction_leave(&blob->cache->eviction, use->resident);
}

void blob_unpin(struct blob *blob, uint64_t chunk)
{
    struct chunk_use *use = &blob->uses[chunk];
    pthread_mutex_lock(&blob->cache->lock);
    assert(use->nr_pins > 0);
    if (--use->nr_pins == 0 && use->resident != NULL)
        eviction_enter(&blob->cache->eviction, use->resident);
    pthread_mutex_unlock(&blob->cache->lock);
}

/* ---- statistics ----------------------------------------------------------------------- */

void blob_count_hits(struct blob *blob, uint64_t nr_chunks)
{
    atomic_fetch_add_explicit(&blob->nr_hits, nr_chunks, memory_order_relaxed);
}

void blob_count_miss(struct blob *blob)
{
    atomic_fetch_add_explicit(&blob->nr_misses, 1, memory_order_relaxed);
}
