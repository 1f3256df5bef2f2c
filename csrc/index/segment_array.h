/* segment_array: the immutable index of a layer, or of a stack of layers.
 *
 * Segments are sorted by offset and do not overlap, so the one that covers a
 * sector is found by a binary search.  Made once (loaded, or merged), then only
 * read, by any number of threads at once.
 *
 * Invariants (segment_array_check)
 *   (1) length > 0 for every segment
 *   (2) end of a segment <= offset of the next
 *   (3) end of the last one <= SEGMENT_MAX_OFFSET, so that any part of any of them
 *       can be written as a segment
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_INDEX_SEGMENT_ARRAY_H
#define OBD_INDEX_SEGMENT_ARRAY_H

#include "base/status.h"
#include "index/segment.h"

struct segment_array {
    struct segment *segments; /* owned; NULL when nr is 0 */
    size_t nr;
};

/* Builds an array from nr entries as they lie on disk and checks them as
 * spec/lsmt.md section 4.1 says: padding is dropped, zero-length entries too,
 * tags become 0, order is strict, data lies in sectors [data_begin, data_end)
 * of the layer file.  OBD_E_CORRUPT names the entry.  Takes nothing. */
enum obd_status segment_array_load(struct segment_array *array, const void *disk, size_t nr, uint64_t data_begin,
                                   uint64_t data_end);

/* Checks one entry's place in the layer file, as segment_array_load does. */
enum obd_status segment_check_place(struct segment s, uint64_t data_begin, uint64_t data_end);

/* Decodes / encodes nr entries of 16 little-endian bytes, padding included. */
void segments_from_disk(struct segment *to, const void *from, size_t nr);
void segments_to_disk(void *to, const struct segment *from, size_t nr);

/* The place of the first segment whose end is past sector; nr when none. */
size_t segment_array_find(const struct segment_array *array, uint64_t sector);

/* Merges nr layers, layers[0] on top: at every sector the topmost layer that
 * has a segment there wins.  Tags of the result are places in layers, nr <= 255
 * (spec/lsmt.md section 6.2). */
enum obd_status segment_array_merge(struct segment_array *merged, const struct segment_array *const *layers, size_t nr);

void segment_array_free(struct segment_array *array);

bool segment_array_check(const struct segment_array *array); /* used in assert only */

#endif
