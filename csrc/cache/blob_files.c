/* blob_files: a blob's two files, opened when needed, removed when empty.
 *
 * A folder may hold thousands of blobs, so only those have open files that somebody
 * has opened, or of which a chunk is just being dropped.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/hook.h"
#include "cache/cache_state.h"

static uint64_t map_room(const struct blob *blob)
{
    return round_up(chunk_map_file_size(blob->map), ROOM_UNIT);
}

static void close_files(struct blob *blob)
{
    file_close(blob->data);
    blob->data = NULL;
    chunk_map_close_file(blob->map);
}

/* ---- using ------------------------------------------------------------------------- */

static enum obd_status check_size(struct blob *blob)
{
    uint64_t size;
    enum obd_status status = file_size(blob->data, &size);
    if (status == OBD_OK && size != blob_size(blob))
        return status_set(OBD_E_CORRUPT, "%s has %llu bytes, but its blob %llu", blob->path, (unsigned long long)size,
                          (unsigned long long)blob_size(blob));
    return status;
}

static enum obd_status open_files(struct blob *blob)
{
    bool is_read_only = blob->cache->is_read_only;
    enum obd_status status = file_open(blob->path, (is_read_only ? O_RDONLY : O_RDWR) | O_NOFOLLOW, 0, &blob->data);
    if (status == OBD_OK)
        status = check_size(blob);
    if (status == OBD_OK && !is_read_only)
        status = chunk_map_open_file(blob->map);
    if (status != OBD_OK)
        close_files(blob);
    return status;
}

enum obd_status blob_files_use(struct blob *blob)
{
    assert(blob->has_files);
    enum obd_status status = blob->nr_file_users == 0 ? open_files(blob) : OBD_OK;
    if (status == OBD_OK)
        blob->nr_file_users++;
    return status;
}

void blob_files_leave(struct blob *blob)
{
    assert(blob->nr_file_users > 0);
    if (--blob->nr_file_users > 0)
        return;
    close_files(blob);
    blob_free_if_empty(blob);
}

/* ---- making ------------------------------------------------------------------------ */

static enum obd_status make_data(struct blob *blob)
{
    enum obd_status status = file_open(blob->path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600, &blob->data);
    if (status == OBD_OK)
        status = file_truncate(blob->data, blob_size(blob));
    HOOK("cache.data_made");
    return status;
}

static void unlink_files(struct blob *blob)
{
    unlink(chunk_map_path(blob->map)); /* data without a map is removed by the next owner */
    unlink(blob->path);
}

enum obd_status blob_files_make(struct blob *blob)
{
    assert(!blob->has_files && blob->nr_file_users == 0);
    enum obd_status status = cache_take_room(blob->cache, map_room(blob));
    if (status != OBD_OK)
        return status;
    status = make_data(blob);
    if (status == OBD_OK)
        status = chunk_map_create_file(blob->map);
    HOOK("cache.map_made");
    if (status != OBD_OK) {
        close_files(blob);
        unlink_files(blob);
        cache_give_room(blob->cache, map_room(blob));
        return status;
    }
    blob->has_files = true;
    blob->nr_file_users = 1;
    return OBD_OK;
}

/* ---- removing ------------------------------------------------------------------------ */

static void forget_chunk(struct blob *blob, uint64_t chunk)
{
    chunk_map_clear(blob->map, chunk);
    blob_leave_chunk(blob, chunk);
    cache_give_room(blob->cache, blob_chunk_room(blob, chunk));
}

void blob_files_forget(struct blob *blob)
{
    for (uint64_t chunk = 0; chunk < chunk_map_nr_chunks(blob->map); chunk++)
        if (chunk_map_is_present(blob->map, chunk))
            forget_chunk(blob, chunk);
    if (blob->has_files)
        cache_give_room(blob->cache, map_room(blob));
    blob->has_files = false;
    if (!blob->cache->is_read_only)
        unlink_files(blob);
}

void blob_files_remove(struct blob *blob)
{
    assert(blob->nr_users == 0);
    blob_files_forget(blob);
    list_remove(&blob->in_cache); /* so that it is not found; who just drops a chunk of it frees it */
    if (blob->nr_file_users == 0)
        blob_free(blob);
}

void blob_free_if_empty(struct blob *blob)
{
    if (blob->nr_users > 0 || blob->nr_file_users > 0 || chunk_map_nr_present(blob->map) > 0)
        return;
    if (list_is_linked(&blob->in_cache))
        blob_files_remove(blob);
    else
        blob_free(blob);
}
