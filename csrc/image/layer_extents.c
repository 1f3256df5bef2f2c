/* layer_extents: see layer_extents.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/layer_extents.h"

#include <fcntl.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/file.h"

/* A sparse layer's disk begins behind its header. */
#define SPARSE_BEGIN 4096u

/* Segments being collected, in order. */
struct collector {
    struct segment *segments; /* owned */
    size_t nr, room;
    uint64_t disk_begin; /* byte 0 of the disk lies here in the file */
};

static enum obd_status collect(struct collector *collector, struct segment s)
{
    if (collector->nr == collector->room) {
        size_t room = collector->room == 0 ? 64 : collector->room * 2;
        struct segment *segments = realloc(collector->segments, room * sizeof *segments);
        if (segments == NULL)
            return status_set(OBD_E_NO_MEMORY, "no memory for %zu segments", room);
        collector->segments = segments;
        collector->room = room;
    }
    collector->segments[collector->nr++] = s;
    return OBD_OK;
}

/* Bytes [begin, end) of the file are data: whole sectors of it. */
static enum obd_status collect_extent(struct collector *collector, uint64_t begin, uint64_t end)
{
    uint64_t sector = begin >> SECTOR_SHIFT, end_sector = end >> SECTOR_SHIFT;
    while (sector < end_sector) {
        uint64_t length = min_u64(end_sector - sector, SEGMENT_MAX_LENGTH);
        struct segment s = {
            .offset = sector - (collector->disk_begin >> SECTOR_SHIFT), .length = length, .moffset = sector};
        enum obd_status status = collect(collector, s);
        if (status != OBD_OK)
            return status;
        sector += length;
    }
    return OBD_OK;
}

/* Walks the data extents in [disk_begin, disk_end) of the file. */
static enum obd_status collect_file(struct collector *collector, struct file *file, uint64_t disk_end)
{
    uint64_t at = collector->disk_begin;
    while (at < disk_end) {
        uint64_t begin, end;
        enum obd_status status = file_next_data(file, at, &begin, &end);
        if (status != OBD_OK)
            return status;
        if (begin >= disk_end || begin == end)
            return OBD_OK;
        /* Two extents may meet in one sector; it is the first one's. */
        begin = max_u64(round_down(begin, SECTOR_SIZE), at);
        end = min_u64(round_up(end, SECTOR_SIZE), disk_end);
        status = collect_extent(collector, begin, end);
        if (status != OBD_OK)
            return status;
        at = end;
    }
    return OBD_OK;
}

/* The file as whole sectors: what its last one lacks reads as zeros. */
static enum obd_status open_whole_sectors(const char *path, struct source **out)
{
    struct source *file;
    enum obd_status status = source_open_file(path, &file);
    if (status != OBD_OK)
        return status;
    status = source_open_padded(file, round_up(file->size, SECTOR_SIZE), out);
    source_unref(file); /* the padded one has its own */
    return status;
}

static enum obd_status open_extents(const char *path, uint64_t disk_begin, uint64_t virtual_size, struct layer **out)
{
    struct file *file;
    struct source *source;
    enum obd_status status = file_open(path, O_RDONLY, 0, &file);
    if (status != OBD_OK)
        return status;
    struct collector collector = {.disk_begin = disk_begin};
    status = collect_file(&collector, file, disk_begin + virtual_size);
    file_close(file);
    if (status == OBD_OK)
        status = open_whole_sectors(path, &source);
    if (status != OBD_OK) {
        free(collector.segments);
        return status;
    }
    struct layer *layer = layer_new(source, virtual_size);
    source_unref(source); /* the layer has its own */
    if (layer == NULL) {
        free(collector.segments);
        return OBD_E_NO_MEMORY;
    }
    layer->index = (struct segment_array){.segments = collector.segments, .nr = collector.nr};
    *out = layer;
    return OBD_OK;
}

static enum obd_status size_of(const char *path, uint64_t *size)
{
    struct file *file;
    enum obd_status status = file_open(path, O_RDONLY, 0, &file);
    if (status != OBD_OK)
        return status;
    status = file_size(file, size);
    file_close(file);
    return status;
}

enum obd_status layer_open_sparse(const char *path, uint64_t virtual_size, struct layer **out)
{
    uint64_t size;
    enum obd_status status = size_of(path, &size);
    if (status != OBD_OK)
        return status;
    if (size < SPARSE_BEGIN || !is_aligned(size | virtual_size, SECTOR_SIZE) ||
        virtual_size >> SECTOR_SHIFT > SEGMENT_MAX_OFFSET)
        return status_set(OBD_E_CORRUPT, "sparse layer %s: %llu bytes cannot hold a disk of %llu bytes", path,
                          (unsigned long long)size, (unsigned long long)virtual_size);
    return open_extents(path, SPARSE_BEGIN, virtual_size, out);
}

enum obd_status layer_open_raw(const char *path, struct layer **out)
{
    uint64_t size;
    enum obd_status status = size_of(path, &size);
    if (status != OBD_OK)
        return status;
    if (size >> SECTOR_SHIFT >= SEGMENT_MAX_OFFSET)
        return status_set(OBD_E_LIMIT, "raw image %s: %llu bytes are more than a layer can describe", path,
                          (unsigned long long)size);
    return open_extents(path, 0, round_up(size, SECTOR_SIZE), out);
}
