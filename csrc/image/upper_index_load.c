/* upper_index_load: reading an index file, and deciding where it ends.
 *
 * The file has no checksums, and its end may be anything: half an entry, zeros or
 * garbage after a power cut, entries whose data never reached the disk.  It may also
 * have been written by the reference, which pads with invalid entries.  What is an
 * error and what is only the end depends on what was surely flushed:
 *
 *   a bad entry lies          it is
 *   ------------------------  -------------------------------------------------------
 *   before flushed_length     corruption: it was right once, and was promised to stay
 *   behind flushed_length     the end: nothing from there on was flushed
 *   flushed_length unknown,   corruption
 *     good ones behind it
 *   flushed_length unknown,   the end, when no writer can have meant it: the log has no
 *     none behind it          such place in any life of it, or the disk no such sector;
 *                             else corruption, as its data was cut off
 *
 * Unknown is the index of a clean close, all of which was flushed, and of the reference,
 * which promises nothing.  That a drop is not explained is remembered, for image verify.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/checked.h"
#include "image/upper_state.h"

/* Entries read at once. */
#define LOAD_BATCH 4096u

struct index_loader {
    struct upper *upper;
    const struct upper_index_bounds *bounds;
    struct segment_map *map;
    uint64_t at;       /* place in the file of the next entry */
    uint64_t data_end; /* of the data file, sectors */
    bool is_at_end;    /* what follows was never flushed */
    /* The bad entries that no good one has followed so far: perhaps the end. */
    uint64_t bad_at;            /* place of the first; 0: there is none */
    enum obd_status bad_status; /* of the first that is wrong, not just empty; OBD_OK: there is none */
    bool is_bad_plausible;
    char bad_text[STATUS_TEXT_SIZE];
};

static bool is_behind_flushed(const struct index_loader *loader)
{
    return loader->bounds->is_flushed_known && loader->at >= loader->bounds->flushed_length;
}

static bool is_on_disk(const struct index_loader *loader, struct segment s)
{
    return segment_end(s) <= loader->upper->virtual_size >> SECTOR_SHIFT;
}

/* May its data have been there once? */
static bool is_plausible(const struct index_loader *loader, struct segment s)
{
    return is_on_disk(loader, s) && s.moffset >= UPPER_HEADER_SIZE >> SECTOR_SHIFT;
}

/* One of no sectors says nothing, and is tolerated among others. */
static enum obd_status check_entry(const struct index_loader *loader, struct segment s)
{
    if (s.length == 0)
        return status_set(OBD_E_CORRUPT, "it is of no sectors");
    if (segment_end(s) > SEGMENT_MAX_OFFSET)
        return status_set(OBD_E_CORRUPT, "it ends at sector %llu, past all that can be addressed",
                          (unsigned long long)segment_end(s));
    if (is_behind_flushed(loader) && !is_on_disk(loader, s))
        return status_set(OBD_E_CORRUPT, "it ends at sector %llu, past the disk", (unsigned long long)segment_end(s));
    if (loader->upper->is_sparse && s.moffset != s.offset + (UPPER_HEADER_SIZE >> SECTOR_SHIFT))
        return status_set(OBD_E_CORRUPT, "sector %llu of the disk cannot lie at sector %llu of the file",
                          (unsigned long long)s.offset, (unsigned long long)s.moffset);
    return segment_check_place(s, UPPER_HEADER_SIZE >> SECTOR_SHIFT, loader->data_end);
}

/* The entry is bad, and this thread's sentence says why: an error, or perhaps the end. */
static enum obd_status meet_bad_entry(struct index_loader *loader, struct segment s, enum obd_status status)
{
    bool is_empty = s.length == 0;
    if (loader->bounds->is_flushed_known && !is_behind_flushed(loader) && is_empty)
        return OBD_OK;
    status_prefix(status, "upper index %s: entry %llu", file_path(loader->upper->index),
                  (unsigned long long)((loader->at - UPPER_HEADER_SIZE) / UPPER_ENTRY_SIZE));
    if (loader->bounds->is_flushed_known && !is_behind_flushed(loader))
        return status;
    if (loader->bad_at == 0)
        loader->bad_at = loader->at;
    if (loader->bad_status == OBD_OK) { /* the first that is wrong counts, not the empty ones before it */
        snprintf(loader->bad_text, sizeof loader->bad_text, "%s", status_text());
        loader->bad_status = is_empty ? OBD_OK : status;
        loader->is_bad_plausible = !is_empty && is_plausible(loader, s);
    }
    loader->is_at_end = is_behind_flushed(loader);
    return OBD_OK;
}

static enum obd_status load_entry(struct index_loader *loader, struct segment s)
{
    if (s.offset == SEGMENT_INVALID_OFFSET)
        return OBD_OK;
    enum obd_status status = check_entry(loader, s);
    if (status != OBD_OK)
        return meet_bad_entry(loader, s, status);
    if (loader->bad_status != OBD_OK)
        return status_set(loader->bad_status, "%s", loader->bad_text);
    loader->bad_at = 0;
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
    for (size_t i = 0; i < nr && !loader->is_at_end; i++, loader->at += UPPER_ENTRY_SIZE) {
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
    while (status == OBD_OK && nr > 0 && !loader->is_at_end) {
        size_t batch = min_u64(nr, LOAD_BATCH);
        status = load_batch(loader, entries, batch);
        nr -= batch;
    }
    free(entries);
    return status;
}

/* The file is read: is its bad end one that can be dropped? */
static enum obd_status judge_end(const struct index_loader *loader)
{
    bool may_drop = (loader->upper->flags & OBD_UPPER_DROP_UNFLUSHED) != 0;
    if (loader->bad_at == 0 || loader->is_at_end || may_drop || !loader->is_bad_plausible)
        return OBD_OK;
    return status_set(loader->bad_status,
                      "%s; nothing says that it was not flushed (--drop-unflushed goes on without it)",
                      loader->bad_text);
}

/* How many whole entries there are to look at, and the bytes that they are part of. */
static enum obd_status count_entries(struct upper *upper, uint64_t length, uint64_t *nr, uint64_t *size)
{
    enum obd_status status = file_size(upper->index, size);
    if (status != OBD_OK)
        return status;
    if (*size < UPPER_HEADER_SIZE)
        return status_set(OBD_E_CORRUPT, "upper index %s is %llu bytes long, shorter than its header",
                          file_path(upper->index), (unsigned long long)*size);
    *size = max_u64(min_u64(*size, length), UPPER_HEADER_SIZE);
    *nr = (*size - UPPER_HEADER_SIZE) / UPPER_ENTRY_SIZE;
    if (*nr > OBD_MAX_UPPER_SEGMENTS)
        return status_set(OBD_E_LIMIT, "upper index %s has %llu entries, more than %d", file_path(upper->index),
                          (unsigned long long)*nr, OBD_MAX_UPPER_SEGMENTS);
    return OBD_OK;
}

static void describe(const struct index_loader *loader, uint64_t size, struct loaded_index *out)
{
    out->map = loader->map;
    out->end = loader->bad_at != 0 ? loader->bad_at : loader->at;
    out->dropped = size - out->end;
    snprintf(out->why_dropped, sizeof out->why_dropped, "%s", loader->bad_at != 0 ? loader->bad_text : "a torn entry");
}

enum obd_status upper_index_load(struct upper *upper, const struct upper_index_bounds *bounds, struct loaded_index *out)
{
    uint64_t nr = 0, size = 0, data_size = 0;
    enum obd_status status = count_entries(upper, bounds->length, &nr, &size);
    if (status == OBD_OK)
        status = file_size(upper->data, &data_size);
    struct index_loader loader = {.upper = upper, .bounds = bounds, .at = UPPER_HEADER_SIZE};
    if (status == OBD_OK)
        status = segment_map_new(&loader.map);
    if (status != OBD_OK)
        return status;
    loader.data_end = data_size >> SECTOR_SHIFT;
    status = load_entries(&loader, nr);
    if (status == OBD_OK)
        status = judge_end(&loader);
    if (status != OBD_OK) {
        segment_map_free(loader.map);
        return status;
    }
    describe(&loader, size, out);
    return OBD_OK;
}
