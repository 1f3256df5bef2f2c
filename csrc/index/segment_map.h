/* segment_map: the mutable index of a writable layer.
 *
 * An ordered set of segments that do not overlap.  Inserting one cuts away
 * whatever it covers (spec/lsmt.md section 6.1): an older segment keeps what is
 * left of it on either side, or goes.  Neighbours are not merged.
 *
 * Kept as sorted leaves of a few hundred segments under one sorted directory, so
 * that a look-up is two binary searches and an insert moves a few KiB.
 *
 * Not thread-safe: the upper that owns the map holds its lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_INDEX_SEGMENT_MAP_H
#define OBD_INDEX_SEGMENT_MAP_H

#include "index/segment_array.h"

struct segment_map;

enum obd_status segment_map_new(struct segment_map **out);
void segment_map_free(struct segment_map *map);

size_t segment_map_count(const struct segment_map *map);

/* Makes sure that the next nr inserts cannot fail, so that memory is refused
 * before anything is written and never after. */
enum obd_status segment_map_reserve(struct segment_map *map, size_t nr);

/* Never fails after a reserve that covers it; s.length > 0. */
void segment_map_insert(struct segment_map *map, struct segment s);

/* Segments that overlap [begin, end), clipped to it, in order, at most max;
 * returns how many.  When that is max, go on from the end of the last one. */
size_t segment_map_lookup(const struct segment_map *map, uint64_t begin, uint64_t end, struct segment *out, size_t max);

/* A sorted copy of the whole. */
enum obd_status segment_map_freeze(const struct segment_map *map, struct segment_array *out);

bool segment_map_check(const struct segment_map *map); /* used in assert only */

#endif
