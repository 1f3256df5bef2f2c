/* image_read: the read path of an image.
 *
 * A read is walked segment by segment: upper, then the merged lowers in the
 * upper's gaps, then zeros.  Neighbouring pieces that continue each other in the
 * same place (a layer file, the log, zeros) are joined into one run, so that a
 * large read of a large segment is one vectored read however its buffers lie.
 *
 * Nothing is allocated here.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>

#include "base/checked.h"
#include "image/image_state.h"

enum run_kind { RUN_ZERO, RUN_LOWER, RUN_UPPER };

/* Bytes that one call can deliver. */
struct run {
    enum run_kind kind;
    size_t lower;    /* RUN_LOWER: place in image->lowers */
    uint64_t place;  /* bytes, in the layer file or the log */
    uint64_t length; /* bytes; 0: there is no run yet */
};

struct reader {
    struct image *image;
    const struct read_context *context;
    struct iov_cursor *cursor;
    struct run run;  /* collected, not delivered */
    bool has_missed; /* the read will be run again: only more misses are looked for */
};

/* ---- runs ---- */

static enum obd_status read_lower(struct reader *reader, const struct run *run, struct iov_cursor *cursor)
{
    struct layer *layer = reader->image->lowers[run->lower];
    provenance_expect(&reader->context->demand->provenance, OBD_FROM_LAYER);
    enum obd_status status = source_read(layer->source, reader->context, cursor, run->length, run->place);
    if (status == OBD_E_MISS) {
        reader->has_missed = true;
        return OBD_OK;
    }
    if (status == OBD_OK || status == OBD_E_AGAIN)
        return status;
    return status_prefix(status, "layer %zu of image %s", reader->image->nr_lowers - run->lower, reader->image->name);
}

static enum obd_status read_run(struct reader *reader, const struct run *run, struct iov_cursor *cursor)
{
    if (run->kind == RUN_LOWER)
        return read_lower(reader, run, cursor);
    if (reader->has_missed)
        return OBD_OK; /* what is at hand now would only be read twice */
    provenance_expect(&reader->context->demand->provenance, run->kind == RUN_ZERO ? OBD_FROM_ZEROS : OBD_FROM_UPPER);
    if (run->kind == RUN_ZERO) {
        iov_cursor_zero(cursor, run->length);
        return OBD_OK;
    }
    return upper_read_log(reader->image->upper, cursor, run->length, run->place, reader->context->nowait);
}

static enum obd_status deliver(struct reader *reader)
{
    struct run run = reader->run;
    reader->run.length = 0;
    if (run.length == 0)
        return OBD_OK;
    struct iov_cursor cursor = *reader->cursor; /* a miss leaves it anywhere */
    enum obd_status status = read_run(reader, &run, &cursor);
    if (status == OBD_OK) {
        iov_cursor_advance(reader->cursor, run.length);
        provenance_count(&reader->context->demand->provenance, run.length);
    }
    return status;
}

static bool continues(const struct run *run, const struct run *next)
{
    if (run->length == 0 || run->kind != next->kind)
        return false;
    if (run->kind == RUN_ZERO)
        return true;
    return run->lower == next->lower && run->place + run->length == next->place;
}

static enum obd_status add_run(struct reader *reader, struct run next)
{
    if (continues(&reader->run, &next)) {
        reader->run.length += next.length;
        return OBD_OK;
    }
    enum obd_status status = deliver(reader);
    reader->run = next;
    return status;
}

static enum obd_status add_zeros(struct reader *reader, uint64_t sectors)
{
    return sectors == 0 ? OBD_OK : add_run(reader, (struct run){.kind = RUN_ZERO, .length = sectors << SECTOR_SHIFT});
}

static enum obd_status add_segment(struct reader *reader, enum run_kind kind, struct segment s)
{
    if (s.zeroed)
        return add_zeros(reader, s.length);
    return add_run(reader, (struct run){
                               .kind = kind,
                               .lower = kind == RUN_LOWER ? s.tag : 0,
                               .place = (uint64_t)s.moffset << SECTOR_SHIFT,
                               .length = (uint64_t)s.length << SECTOR_SHIFT,
                           });
}

/* ---- the walk; sectors ---- */

static enum obd_status walk_lowers(struct reader *reader, uint64_t begin, uint64_t end)
{
    const struct segment_array *merged = &reader->image->merged;
    enum obd_status status = OBD_OK;
    for (size_t i = segment_array_find(merged, begin); begin < end && status == OBD_OK; i++) {
        if (i == merged->nr || merged->segments[i].offset >= end)
            return add_zeros(reader, end - begin);
        struct segment s = segment_clip(merged->segments[i], begin, end);
        status = add_zeros(reader, s.offset - begin);
        if (status == OBD_OK)
            status = add_segment(reader, RUN_LOWER, s);
        begin = segment_end(s);
    }
    return status;
}

static enum obd_status walk_upper(struct reader *reader, uint64_t begin, uint64_t end)
{
    struct segment found[IMAGE_LOOKUP_BATCH];
    enum obd_status status = OBD_OK;
    while (begin < end && status == OBD_OK) {
        size_t nr = upper_lookup(reader->image->upper, begin, end, found, IMAGE_LOOKUP_BATCH);
        for (size_t i = 0; i < nr && status == OBD_OK; i++) {
            status = walk_lowers(reader, begin, found[i].offset);
            if (status == OBD_OK)
                status = add_segment(reader, RUN_UPPER, found[i]);
            begin = segment_end(found[i]);
        }
        if (nr < IMAGE_LOOKUP_BATCH)
            return status == OBD_OK ? walk_lowers(reader, begin, end) : status;
    }
    return status;
}

enum obd_status image_read(struct image *image, const struct read_context *context, struct iov_cursor *cursor,
                           uint64_t length, uint64_t offset)
{
    assert(is_aligned(offset | length, SECTOR_SIZE) && range_is_inside(offset, length, image->virtual_size));
    struct reader reader = {.image = image, .context = context, .cursor = cursor};
    provenance_begin(&context->demand->provenance);
    uint64_t begin = offset >> SECTOR_SHIFT, end = (offset + length) >> SECTOR_SHIFT;
    enum obd_status status = image->upper == NULL ? walk_lowers(&reader, begin, end) : walk_upper(&reader, begin, end);
    if (status == OBD_OK)
        status = deliver(&reader);
    return status == OBD_OK && reader.has_missed ? OBD_E_MISS : status;
}
