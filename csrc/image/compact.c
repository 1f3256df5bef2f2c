/* compact: see compact.h.  The algorithm is spec/lsmt.md section 7.
 *
 * Data is copied in pieces of the source's segments.  Every 32 KiB of a segment
 * make an entry of their own, as the reference does it, and each new entry is
 * joined to the last one when it continues that and both are shorter than
 * SEGMENT_MAX_LENGTH together.  So the bytes depend on the segments alone, not on
 * how the work was cut into steps.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/compact.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"

#define HEADER_SIZE   4096u
#define CHUNK_SECTORS 64u  /* an entry of the reference's, before joining */
#define PIECE_SECTORS 512u /* read at once; a whole number of chunks */
#define ZERO_SECTORS  8u   /* detect_zeros looks at this much, aligned on the disk */
#define INDEX_UNIT    256u /* the index is padded to a multiple of these entries */

struct compact {
    struct image *image;   /* referenced */
    struct writer *writer; /* borrowed */
    struct obd_compact_params params;
    struct segment_array frozen;
    size_t at; /* the segment being copied, and its sectors already done */
    uint32_t at_sector;
    uint64_t total, done; /* bytes */
    uint8_t *piece;

    struct segment *entries; /* of the new index */
    size_t nr, room;
};

/* ---- open and close ---- */

static uint64_t data_bytes(const struct segment_array *array)
{
    uint64_t sectors = 0;
    for (size_t i = 0; i < array->nr; i++)
        sectors += array->segments[i].zeroed ? 0 : array->segments[i].length;
    return sectors << SECTOR_SHIFT;
}

enum obd_status compact_open(struct image *image, struct writer *writer, const struct obd_compact_params *params,
                             struct compact **out)
{
    if (writer_position(writer) != HEADER_SIZE)
        return status_set(OBD_E_INVALID, "image %s: a commit begins behind %u bytes of header, not at %llu",
                          image_name(image), HEADER_SIZE, (unsigned long long)writer_position(writer));
    struct compact *compact = calloc(1, sizeof *compact);
    if (compact == NULL || (compact->piece = malloc(PIECE_SECTORS * SECTOR_SIZE)) == NULL) {
        free(compact);
        return status_set(OBD_E_NO_MEMORY, "no memory to commit image %s", image_name(image));
    }
    compact->image = image_ref(image);
    compact->writer = writer;
    compact->params = *params;
    enum obd_status status =
        params->upper_only != 0 ? image_freeze_upper(image, &compact->frozen) : image_freeze(image, &compact->frozen);
    if (status != OBD_OK) {
        compact_close(compact);
        return status;
    }
    compact->total = data_bytes(&compact->frozen);
    *out = compact;
    return OBD_OK;
}

void compact_close(struct compact *compact)
{
    if (compact == NULL)
        return;
    segment_array_free(&compact->frozen);
    image_unref(compact->image);
    free(compact->entries);
    free(compact->piece);
    free(compact);
}

uint64_t compact_total(const struct compact *compact)
{
    return compact->total;
}

/* ---- entries ---- */

static enum obd_status refuse_large_index(const struct compact *compact)
{
    return status_set(OBD_E_LIMIT, "image %s: its index would have more than %d entries, which no reader opens",
                      image_name(compact->image), OBD_MAX_LAYER_SEGMENTS);
}

static enum obd_status append_entry(struct compact *compact, struct segment s)
{
    if (compact->nr == OBD_MAX_LAYER_SEGMENTS)
        return refuse_large_index(compact);
    if (compact->nr == compact->room) {
        size_t room = compact->room == 0 ? 1024 : compact->room * 2;
        struct segment *entries = realloc(compact->entries, room * sizeof *entries);
        if (entries == NULL)
            return status_set(OBD_E_NO_MEMORY, "no memory for an index of %zu entries", room);
        compact->entries = entries;
        compact->room = room;
    }
    compact->entries[compact->nr++] = s;
    return OBD_OK;
}

/* Does b continue a, on the disk and in the file, and do both fit into one? */
static bool can_join(struct segment a, struct segment b)
{
    return segment_end(a) == b.offset && segment_mapped_end(a) == b.moffset && a.zeroed == b.zeroed && a.tag == b.tag &&
           (uint32_t)a.length + b.length < SEGMENT_MAX_LENGTH;
}

static enum obd_status add_entry(struct compact *compact, struct segment s)
{
    s.tag = compact->params.keep_tags != 0 ? s.tag : 0;
    s.moffset = writer_position(compact->writer) >> SECTOR_SHIFT;
    struct segment *last = compact->nr == 0 ? NULL : &compact->entries[compact->nr - 1];
    if (last == NULL || !can_join(*last, s))
        return append_entry(compact, s);
    last->length += s.length;
    return OBD_OK;
}

/* ---- pieces ---- */

static enum obd_status add_zeros(struct compact *compact, struct segment s)
{
    s.zeroed = 1;
    return compact->params.drop_zeros != 0 ? OBD_OK : add_entry(compact, s);
}

/* s as data: its entries, chunk by chunk, and its bytes. */
static enum obd_status add_data(struct compact *compact, struct segment s, const uint8_t *bytes)
{
    while (s.length > 0) {
        struct segment chunk = s;
        chunk.length = min_u64(s.length, CHUNK_SECTORS);
        enum obd_status status = add_entry(compact, chunk);
        if (status == OBD_OK)
            status = writer_write(compact->writer, bytes, chunk.length * SECTOR_SIZE);
        if (status != OBD_OK)
            return status;
        bytes += chunk.length * SECTOR_SIZE;
        s.offset += chunk.length;
        s.length -= chunk.length;
    }
    return OBD_OK;
}

/* How many of the first sectors of s go together, up to the next aligned block,
 * and whether they are a whole block of zeros. */
static uint32_t next_block(struct segment s, const uint8_t *bytes, bool *is_zero)
{
    static const uint8_t zeros[ZERO_SECTORS * SECTOR_SIZE];
    uint32_t sectors = min_u64(s.length, ZERO_SECTORS - s.offset % ZERO_SECTORS);
    *is_zero = sectors == ZERO_SECTORS && memcmp(bytes, zeros, sizeof zeros) == 0;
    return sectors;
}

/* The longest run at the beginning of s that is all zero blocks, or all others. */
static uint32_t next_run(struct segment s, const uint8_t *bytes, bool *is_zero)
{
    uint32_t run = next_block(s, bytes, is_zero), sectors;
    bool is_same = true;
    while (run < s.length && is_same) {
        struct segment rest = {.offset = s.offset + run, .length = s.length - run};
        bool is_zero_too;
        sectors = next_block(rest, bytes + (size_t)run * SECTOR_SIZE, &is_zero_too);
        is_same = is_zero_too == *is_zero;
        run += is_same ? sectors : 0;
    }
    return run;
}

static enum obd_status add_looking_for_zeros(struct compact *compact, struct segment s, const uint8_t *bytes)
{
    while (s.length > 0) {
        struct segment run = s;
        bool is_zero;
        run.length = next_run(s, bytes, &is_zero);
        enum obd_status status = is_zero ? add_zeros(compact, run) : add_data(compact, run, bytes);
        if (status != OBD_OK)
            return status;
        bytes += run.length * SECTOR_SIZE;
        s.offset += run.length;
        s.length -= run.length;
    }
    return OBD_OK;
}

/* ---- steps ---- */

/* What is copied next: a part of the segment at hand. */
static struct segment next_piece(const struct compact *compact)
{
    struct segment s = compact->frozen.segments[compact->at];
    if (compact->at_sector > 0)
        s = segment_trim_front(s, compact->at_sector);
    if (!s.zeroed && s.length > PIECE_SECTORS)
        s.length = PIECE_SECTORS;
    return s;
}

static void move_on(struct compact *compact, struct segment piece)
{
    compact->at_sector += piece.length;
    compact->done += piece.zeroed ? 0 : (uint64_t)piece.length << SECTOR_SHIFT;
    if (compact->at_sector == compact->frozen.segments[compact->at].length) {
        compact->at++;
        compact->at_sector = 0;
    }
}

/* When the data does not come, nothing has happened, and it can be tried again. */
static enum obd_status copy_piece(struct compact *compact, struct segment s)
{
    if (s.zeroed)
        return add_zeros(compact, s);
    uint64_t deadline_ns = clock_deadline_ns(compact->params.timeout_ms);
    enum obd_status status = image_read_mapped(compact->image, s, compact->piece, deadline_ns);
    if (status != OBD_OK)
        return status;
    return compact->params.detect_zeros != 0 ? add_looking_for_zeros(compact, s, compact->piece)
                                             : add_data(compact, s, compact->piece);
}

static bool is_at_end(const struct compact *compact)
{
    return compact->at == compact->frozen.nr;
}

enum obd_status compact_step(struct compact *compact, uint64_t max_bytes, uint64_t *done)
{
    uint64_t stop = compact->done + min_u64(max_bytes, compact->total - compact->done);
    /* Zeroed segments cost nothing, so those behind the last byte come with it. */
    while (!is_at_end(compact) && (compact->done < stop || compact->done == compact->total)) {
        struct segment piece = next_piece(compact);
        enum obd_status status = copy_piece(compact, piece);
        if (status != OBD_OK)
            return status;
        move_on(compact, piece);
    }
    *done = compact->done;
    return OBD_OK;
}

/* ---- the index ---- */

static enum obd_status pad_index(struct compact *compact)
{
    while (compact->nr % INDEX_UNIT != 0) {
        enum obd_status status = append_entry(compact, (struct segment){.offset = SEGMENT_INVALID_OFFSET});
        if (status != OBD_OK)
            return status;
    }
    return OBD_OK;
}

static enum obd_status write_index(struct compact *compact)
{
    segments_to_disk(compact->entries, compact->entries, compact->nr);
    return writer_write(compact->writer, compact->entries, compact->nr * sizeof *compact->entries);
}

enum obd_status compact_finish(struct compact *compact, struct obd_compact_result *result)
{
    uint64_t done;
    enum obd_status status = compact_step(compact, UINT64_MAX, &done);
    if (status != OBD_OK)
        return status;
    result->nr_segments = compact->nr;
    result->index_offset = writer_position(compact->writer);
    status = pad_index(compact);
    result->nr_entries = compact->nr;
    return status == OBD_OK && compact->nr > 0 ? write_index(compact) : status;
}
