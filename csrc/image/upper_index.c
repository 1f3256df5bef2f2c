/* upper_index: the upper's index file, a log of 16-byte entries in write order.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/checked.h"
#include "image/upper_state.h"

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
