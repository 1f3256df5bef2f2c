/* upper_sectors: see upper_sectors.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/upper_sectors.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hook.h"
#include "base/log.h"
#include "codec/crc32c.h"
#include "image/file_extents.h"
#include "image/upper_sparse.h"

enum sectors_state { SECTORS_OPEN = 1, SECTORS_CLEAN = 2 };

/* The header as it lies on disk. */
struct sectors_header {
    uint8_t magic[8];
    uint32_t version;
    uint32_t state;
    char uuid[36];
    uint32_t zero;
    uint64_t data_size;
    uint64_t mtime_seconds;
    uint64_t mtime_nanoseconds;
    uint32_t crc;
};

#define HEADER_CRC_AT offsetof(struct sectors_header, crc)

_Static_assert(HEADER_CRC_AT == 80, "the layout in upper_sectors.h");

static const uint8_t magic[8] = {'O', 'B', 'D', 'S', 'E', 'C', 'T', 1};

/* An index with more than twice the entries that it needs, and this many, is worth writing anew. */
#define COMPACT_FROM 4096u

/* ---- the header ---- */

static void stamp(struct sectors_header *header, const struct stat *data)
{
    header->data_size = htole64((uint64_t)data->st_size);
    header->mtime_seconds = htole64((uint64_t)data->st_mtim.tv_sec);
    header->mtime_nanoseconds = htole64((uint64_t)data->st_mtim.tv_nsec);
}

static bool has_stamp_of(const struct sectors_header *header, const struct stat *data)
{
    struct sectors_header now;
    stamp(&now, data);
    return header->data_size == now.data_size && header->mtime_seconds == now.mtime_seconds &&
           header->mtime_nanoseconds == now.mtime_nanoseconds;
}

static enum obd_status stat_data(struct upper *upper, struct stat *st)
{
    if (fstat(file_fd(upper->data), st) != 0)
        return status_set_errno(errno, "cannot ask for the times of %s", upper->name);
    return OBD_OK;
}

/* data NULL: open. */
static struct sectors_header make_header(const struct upper *upper, const struct stat *data)
{
    struct sectors_header header = {.version = htole32(1), .state = htole32(data ? SECTORS_CLEAN : SECTORS_OPEN)};
    memcpy(header.magic, magic, sizeof magic);
    memcpy(header.uuid, upper->owner.uuid, sizeof header.uuid);
    if (data != NULL)
        stamp(&header, data);
    header.crc = htole32(crc32c_raw(&header, HEADER_CRC_AT, 0));
    return header;
}

/* Why the file is not to be believed, or NULL. */
static const char *doubt(const struct upper *upper, const struct sectors_header *header, const struct stat *data)
{
    if (memcmp(header->magic, magic, sizeof magic) != 0 || le32toh(header->crc) != crc32c_raw(header, HEADER_CRC_AT, 0))
        return "is damaged";
    if (le32toh(header->version) != 1)
        return "is of a version that this program does not know";
    if (memcmp(header->uuid, upper->owner.uuid, sizeof header->uuid) != 0)
        return "belongs to another upper";
    if (le32toh(header->state) != SECTORS_OPEN && !has_stamp_of(header, data))
        return "is outdated: another program has written to the data file";
    return NULL;
}

/* ---- making the file ---- */

static enum obd_status write_entries(struct file *file, const struct segment_array *segments)
{
    struct segment batch[256];
    const size_t room = sizeof batch / sizeof batch[0];
    uint64_t at = UPPER_HEADER_SIZE;
    enum obd_status status = OBD_OK;
    for (size_t i = 0; i < segments->nr && status == OBD_OK; i += room) {
        size_t nr = segments->nr - i < room ? segments->nr - i : room;
        segments_to_disk(batch, segments->segments + i, nr);
        status = file_write(file, batch, nr * UPPER_ENTRY_SIZE, at);
        at += nr * UPPER_ENTRY_SIZE;
    }
    return status;
}

static enum obd_status write_whole(struct file *file, const struct sectors_header *header,
                                   const struct segment_array *segments)
{
    uint8_t block[UPPER_HEADER_SIZE] = {0};
    memcpy(block, header, sizeof *header);
    enum obd_status status = file_write(file, block, sizeof block, 0);
    if (status == OBD_OK)
        status = write_entries(file, segments);
    return status == OBD_OK ? file_sync_data(file) : status;
}

/* Takes new_path's finished file to its place in one step; upper->index is it then. */
static enum obd_status put_in_place(struct upper *upper, const char *new_path)
{
    struct file *file;
    enum obd_status status = file_rename(new_path, upper->index_path);
    if (status == OBD_OK)
        status = file_open(upper->index_path, O_RDWR, 0, &file);
    if (status != OBD_OK)
        return status;
    file_close(upper->index); /* of an index that is made shorter */
    upper->index = file;
    HOOK("sparse.sectors_replaced");
    return file_sync_folder_of(upper->index_path);
}

static enum obd_status replace(struct upper *upper, const struct sectors_header *header,
                               const struct segment_array *segments)
{
    size_t size = strlen(upper->index_path) + sizeof ".new";
    char *new_path = malloc(size);
    if (new_path == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to write %s", upper->index_path);
    snprintf(new_path, size, "%s.new", upper->index_path);
    struct file *file;
    enum obd_status status = file_open(new_path, O_RDWR | O_CREAT | O_TRUNC, 0600, &file);
    if (status == OBD_OK) {
        status = write_whole(file, header, segments);
        file_close(file);
        HOOK("sparse.sectors_written");
        if (status == OBD_OK)
            status = put_in_place(upper, new_path);
        if (status != OBD_OK)
            file_remove(new_path);
    }
    free(new_path);
    return status;
}

/* ---- opening ---- */

/* Fills upper->derived from the file system; what is lost by it is said when there may be something. */
static enum obd_status derive(struct upper *upper, const char *why)
{
    enum obd_status status =
        file_extents(upper->data, UPPER_HEADER_SIZE, UPPER_HEADER_SIZE + upper->virtual_size, &upper->derived);
    if (status != OBD_OK)
        return status;
    upper->is_derived = true;
    file_close(upper->index); /* not to be believed, nor written to */
    upper->index = NULL;
    if (why != NULL || upper->derived.nr > 0)
        log_write(OBD_LOG_WARNING,
                  "upper %s: its map is read from the holes of the file, as %s %s; discards and writes of less than "
                  "a file system block, made before now, may show wrong data of lower layers",
                  upper->name, upper->index_path, why == NULL ? "does not exist" : why);
    for (size_t i = 0; i < upper->derived.nr; i++)
        upper->derived.segments[i].tag = (uint8_t)upper->tag;
    if (upper->is_read_only)
        return OBD_OK;
    struct sectors_header header = make_header(upper, NULL);
    status = replace(upper, &header, &upper->derived);
    upper->is_marked_open = true;
    return status;
}

/* upper->index is open: is it to be believed? */
static enum obd_status judge(struct upper *upper, const char **why)
{
    struct sectors_header header;
    struct stat data;
    uint64_t size;
    enum obd_status status = file_size(upper->index, &size);
    if (status == OBD_OK)
        status = stat_data(upper, &data);
    if (status != OBD_OK)
        return status;
    *why = "is cut short";
    if (size < UPPER_HEADER_SIZE)
        return OBD_OK;
    status = file_read(upper->index, &header, sizeof header, 0);
    if (status != OBD_OK)
        return status;
    *why = doubt(upper, &header, &data);
    upper->is_marked_open = *why == NULL && le32toh(header.state) == SECTORS_OPEN;
    return OBD_OK;
}

enum obd_status upper_sectors_open(struct upper *upper)
{
    const char *why = NULL;
    enum obd_status status = file_open(upper->index_path, upper->is_read_only ? O_RDONLY : O_RDWR, 0, &upper->index);
    if (status == OBD_E_NOT_FOUND)
        return derive(upper, NULL);
    if (status == OBD_OK)
        status = judge(upper, &why);
    if (status != OBD_OK || why == NULL)
        return status;
    return derive(upper, why);
}

enum obd_status upper_sectors_load_derived(struct upper *upper, struct segment_map **map)
{
    enum obd_status status = segment_map_new(map);
    if (status != OBD_OK)
        return status;
    status = segment_map_reserve(*map, upper->derived.nr);
    if (status != OBD_OK) {
        segment_map_free(*map);
        *map = NULL;
        return status;
    }
    for (size_t i = 0; i < upper->derived.nr; i++)
        segment_map_insert(*map, upper->derived.segments[i]);
    return OBD_OK;
}

/* ---- open and clean ---- */

static enum obd_status write_header(struct upper *upper, const struct sectors_header *header)
{
    enum obd_status status = file_write(upper->index, header, sizeof *header, 0);
    return status == OBD_OK ? file_sync_data(upper->index) : status;
}

enum obd_status upper_sectors_mark_open(struct upper *upper)
{
    if (upper->is_marked_open)
        return OBD_OK;
    struct sectors_header header = make_header(upper, NULL);
    enum obd_status status = write_header(upper, &header);
    upper->is_marked_open = status == OBD_OK;
    HOOK("sparse.marked_open");
    return status;
}

/* A shorter index with the same map, or none: a full disk is no reason not to close. */
static bool compact(struct upper *upper, const struct sectors_header *header)
{
    uint64_t nr_entries = (upper->index_length - UPPER_HEADER_SIZE) / UPPER_ENTRY_SIZE;
    struct segment_array segments;
    if (nr_entries < COMPACT_FROM || upper_freeze(upper, &segments) != OBD_OK)
        return false;
    bool is_done = segments.nr < nr_entries / 2 && replace(upper, header, &segments) == OBD_OK;
    segment_array_free(&segments);
    return is_done;
}

enum obd_status upper_sectors_mark_clean(struct upper *upper)
{
    struct stat data;
    enum obd_status status = file_sync_all(upper->data); /* with its mtime, which is compared at the next open */
    if (status == OBD_OK)
        status = stat_data(upper, &data);
    if (status != OBD_OK)
        return status;
    struct sectors_header header = make_header(upper, &data);
    status = compact(upper, &header) ? OBD_OK : write_header(upper, &header);
    HOOK("sparse.marked_clean");
    return status;
}
