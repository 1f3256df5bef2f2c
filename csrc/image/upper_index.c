/* upper_index: the upper's index file, a log of 16-byte entries in write order.
 *
 * The file may have been written by the reference, which pads with invalid
 * entries and can leave a torn last one (spec/lsmt.md section 4.2).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "base/checked.h"
#include "image/upper_state.h"

/* Entries read at once. */
#define LOAD_BATCH 4096u

/* Longest segment that a record is cut into: as the reference cuts, so that the
 * same writes become the same index and the same commit. */
static uint64_t max_segment(enum journal_kind kind)
{
    return kind == JOURNAL_DATA ? 8192 : SEGMENT_MAX_LENGTH;
}

struct record_walk record_walk_begin(const struct journal_record *record, uint32_t tag)
{
    return (struct record_walk){
        .offset = record->offset >> SECTOR_SHIFT,
        .left = record->kind == JOURNAL_REWRITE ? 0 : record->length >> SECTOR_SHIFT,
        .place = record->place >> SECTOR_SHIFT,
        .kind = record->kind,
        .tag = (uint8_t)tag,
    };
}

bool record_walk_next(struct record_walk *walk, struct segment *out)
{
    if (walk->left == 0)
        return false;
    uint64_t length = min_u64(walk->left, max_segment(walk->kind));
    *out = (struct segment){
        .offset = walk->offset,
        .length = length,
        .moffset = walk->place,
        .zeroed = walk->kind == JOURNAL_DISCARD,
        .tag = walk->tag,
    };
    walk->offset += length;
    walk->left -= length;
    if (walk->kind == JOURNAL_DATA)
        walk->place += length;
    return true;
}

uint64_t record_nr_segments(enum journal_kind kind, uint64_t length)
{
    if (kind == JOURNAL_REWRITE)
        return 0;
    uint64_t sectors = length >> SECTOR_SHIFT, longest = max_segment(kind);
    return sectors / longest + (sectors % longest != 0);
}

/* ---- loading ---- */

struct index_loader {
    struct upper *upper;
    const struct upper_index_bounds *bounds;
    struct segment_map *map;
    uint64_t at;       /* place in the file of the next entry */
    uint64_t data_end; /* of the data file, sectors */
    bool is_at_zeros;  /* met the zeros of a power cut: the rest was never flushed */
};

static bool is_all_zero(struct segment s)
{
    return s.offset == 0 && s.length == 0 && s.moffset == 0 && s.zeroed == 0 && s.tag == 0;
}

static enum obd_status load_entry(struct index_loader *loader, struct segment s)
{
    if (s.offset == SEGMENT_INVALID_OFFSET)
        return OBD_OK;
    enum obd_status status = segment_check_place(s, UPPER_HEADER_SIZE >> SECTOR_SHIFT, loader->data_end);
    if (status == OBD_OK && segment_end(s) > SEGMENT_MAX_OFFSET)
        status = status_set(OBD_E_CORRUPT, "it ends at sector %llu, past all that can be addressed",
                            (unsigned long long)segment_end(s));
    if (status == OBD_OK && loader->upper->is_sparse && s.moffset != s.offset + (UPPER_HEADER_SIZE >> SECTOR_SHIFT))
        status = status_set(OBD_E_CORRUPT, "sector %llu of the disk cannot lie at sector %llu of the file",
                            (unsigned long long)s.offset, (unsigned long long)s.moffset);
    if (status != OBD_OK)
        return status_prefix(status, "upper index %s: entry %llu", file_path(loader->upper->index),
                             (unsigned long long)((loader->at - UPPER_HEADER_SIZE) / UPPER_ENTRY_SIZE));
    if (s.length > 0)
        segment_map_insert(loader->map, s);
    return OBD_OK;
}

static enum obd_status load_batch(struct index_loader *loader, struct segment *entries, size_t nr)
{
    enum obd_status status = file_read(loader->upper->index, entries, nr * UPPER_ENTRY_SIZE, loader->at);
    if (status == OBD_OK)
        status = segment_map_reserve(loader->map, nr);
    if (status != OBD_OK)
        return status;
    segments_from_disk(entries, entries, nr);
    for (size_t i = 0; i < nr; i++, loader->at += UPPER_ENTRY_SIZE) {
        loader->is_at_zeros = loader->bounds->may_have_zero_tail && loader->at >= loader->bounds->flushed_length &&
                              is_all_zero(entries[i]);
        if (loader->is_at_zeros)
            return OBD_OK;
        status = load_entry(loader, entries[i]);
        if (status != OBD_OK)
            return status;
    }
    return OBD_OK;
}

static enum obd_status load_entries(struct index_loader *loader, uint64_t nr)
{
    struct segment *entries = malloc(LOAD_BATCH * sizeof *entries);
    if (entries == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to load %s", file_path(loader->upper->index));
    enum obd_status status = OBD_OK;
    while (status == OBD_OK && nr > 0 && !loader->is_at_zeros) {
        size_t batch = min_u64(nr, LOAD_BATCH);
        status = load_batch(loader, entries, batch);
        nr -= batch;
    }
    free(entries);
    return status;
}

/* How many whole entries there are to believe. */
static enum obd_status count_entries(struct upper *upper, uint64_t length, uint64_t *nr)
{
    uint64_t size;
    enum obd_status status = file_size(upper->index, &size);
    if (status != OBD_OK)
        return status;
    if (size < UPPER_HEADER_SIZE)
        return status_set(OBD_E_CORRUPT, "upper index %s is %llu bytes long, shorter than its header",
                          file_path(upper->index), (unsigned long long)size);
    *nr = (max_u64(min_u64(size, length), UPPER_HEADER_SIZE) - UPPER_HEADER_SIZE) / UPPER_ENTRY_SIZE;
    if (*nr > OBD_MAX_UPPER_SEGMENTS)
        return status_set(OBD_E_LIMIT, "upper index %s has %llu entries, more than %d", file_path(upper->index),
                          (unsigned long long)*nr, OBD_MAX_UPPER_SEGMENTS);
    return OBD_OK;
}

enum obd_status upper_index_load(struct upper *upper, const struct upper_index_bounds *bounds, struct segment_map **map,
                                 uint64_t *end)
{
    uint64_t nr = 0, data_size = 0;
    enum obd_status status = count_entries(upper, bounds->length, &nr);
    if (status == OBD_OK)
        status = file_size(upper->data, &data_size);
    struct index_loader loader = {.upper = upper, .bounds = bounds, .at = UPPER_HEADER_SIZE};
    if (status == OBD_OK)
        status = segment_map_new(&loader.map);
    if (status != OBD_OK)
        return status;
    loader.data_end = data_size >> SECTOR_SHIFT;
    status = load_entries(&loader, nr);
    if (status != OBD_OK) {
        segment_map_free(loader.map);
        return status;
    }
    *map = loader.map;
    *end = loader.at;
    return OBD_OK;
}

/* ---- appending ---- */

void index_appender_begin(struct index_appender *appender, struct upper *upper)
{
    appender->upper = upper;
    appender->end = upper->index_length;
    appender->nr = 0;
}

enum obd_status index_appender_finish(struct index_appender *appender)
{
    size_t length = appender->nr * UPPER_ENTRY_SIZE;
    if (length == 0)
        return OBD_OK;
    segments_to_disk(appender->pending, appender->pending, appender->nr);
    enum obd_status status = file_write(appender->upper->index, appender->pending, length, appender->end);
    if (status != OBD_OK)
        return status;
    appender->end += length;
    appender->nr = 0;
    return OBD_OK;
}

enum obd_status index_appender_add(struct index_appender *appender, const struct journal_record *record)
{
    struct record_walk walk = record_walk_begin(record, appender->upper->tag);
    while (record_walk_next(&walk, &appender->pending[appender->nr])) {
        appender->nr++;
        if (appender->nr == sizeof appender->pending / sizeof appender->pending[0]) {
            enum obd_status status = index_appender_finish(appender);
            if (status != OBD_OK)
                return status;
        }
    }
    return OBD_OK;
}
