/* file_extents: see file_extents.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/file_extents.h"

#include <stdlib.h>

#include "base/checked.h"

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

enum obd_status file_extents(struct file *file, uint64_t disk_begin, uint64_t disk_end, struct segment_array *out)
{
    struct collector collector = {.disk_begin = disk_begin};
    enum obd_status status = collect_file(&collector, file, disk_end);
    if (status != OBD_OK) {
        free(collector.segments);
        return status;
    }
    *out = (struct segment_array){.segments = collector.segments, .nr = collector.nr};
    return OBD_OK;
}
