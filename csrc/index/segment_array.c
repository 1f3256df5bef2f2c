/* segment_array: loading, checking and searching a sealed layer's index.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "index/segment_array.h"

#include <assert.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER != __LITTLE_ENDIAN
/* The bit fields of struct segment lie as on disk only there; another machine
 * needs the shifts of segment.h's table here. */
#error "segments are read in place: this needs a little-endian machine"
#endif

void segments_from_disk(struct segment *to, const void *from, size_t nr)
{
    memcpy(to, from, nr * sizeof *to);
}

void segments_to_disk(void *to, const struct segment *from, size_t nr)
{
    memcpy(to, from, nr * sizeof *from);
}

enum obd_status segment_check_place(struct segment s, uint64_t data_begin, uint64_t data_end)
{
    uint64_t begin = s.moffset, end = segment_mapped_end(s);
    if (begin < data_begin || end > data_end)
        return status_set(OBD_E_CORRUPT, "its data is at sectors %llu to %llu, outside of %llu to %llu",
                          (unsigned long long)begin, (unsigned long long)end, (unsigned long long)data_begin,
                          (unsigned long long)data_end);
    return OBD_OK;
}

static bool is_padding(struct segment s)
{
    return s.offset == SEGMENT_INVALID_OFFSET || s.length == 0;
}

static enum obd_status check_entry(const struct segment_array *array, struct segment s, uint64_t data_begin,
                                   uint64_t data_end)
{
    if (array->nr > 0 && segment_end(array->segments[array->nr - 1]) > s.offset)
        return status_set(OBD_E_CORRUPT, "it starts at sector %llu, before the end of the one before it at %llu",
                          (unsigned long long)s.offset,
                          (unsigned long long)segment_end(array->segments[array->nr - 1]));
    if (segment_end(s) > SEGMENT_MAX_OFFSET) /* what is left of it after a cut could not be written as a segment */
        return status_set(OBD_E_CORRUPT, "it ends at sector %llu, past %llu", (unsigned long long)segment_end(s),
                          (unsigned long long)SEGMENT_MAX_OFFSET);
    return segment_check_place(s, data_begin, data_end);
}

enum obd_status segment_array_load(struct segment_array *array, const void *disk, size_t nr, uint64_t data_begin,
                                   uint64_t data_end)
{
    *array = (struct segment_array){0};
    if (nr == 0)
        return OBD_OK;
    struct segment *entries = malloc(nr * sizeof *entries);
    if (entries == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory for an index of %zu entries", nr);
    segments_from_disk(entries, disk, nr);
    array->segments = entries; /* what is kept is moved to the front of the same memory */
    for (size_t i = 0; i < nr; i++) {
        struct segment s = entries[i];
        if (is_padding(s))
            continue;
        enum obd_status status = check_entry(array, s, data_begin, data_end);
        if (status != OBD_OK) {
            segment_array_free(array);
            return status_prefix(status, "index entry %zu of %zu", i, nr);
        }
        s.tag = 0;
        entries[array->nr++] = s;
    }
    if (array->nr == 0)
        segment_array_free(array);
    assert(segment_array_check(array));
    return OBD_OK;
}

size_t segment_array_find(const struct segment_array *array, uint64_t sector)
{
    const struct segment *at = array->segments;
    size_t nr = array->nr;
    if (nr == 0)
        return 0;
    while (nr > 1) { /* the answer is in [at, at + nr]; the compiler makes this a conditional move */
        size_t half = nr / 2;
        at = segment_end(at[half - 1]) <= sector ? at + half : at;
        nr -= half;
    }
    return (size_t)(at - array->segments) + (segment_end(*at) <= sector);
}

void segment_array_free(struct segment_array *array)
{
    free(array->segments);
    *array = (struct segment_array){0};
}

bool segment_array_check(const struct segment_array *array)
{
    if ((array->segments == NULL) != (array->nr == 0))
        return false;
    for (size_t i = 0; i < array->nr; i++) {
        if (array->segments[i].length == 0)
            return false; /* (1) */
        if (i > 0 && segment_end(array->segments[i - 1]) > array->segments[i].offset)
            return false; /* (2) */
    }
    return array->nr == 0 || segment_end(array->segments[array->nr - 1]) <= SEGMENT_MAX_OFFSET; /* (3) */
}
