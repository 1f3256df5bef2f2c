/* segment_map: sorted leaves under a sorted directory.
 *
 *   directory   [first offset, leaf] [first offset, leaf] ...
 *   leaf        up to LEAF_CAPACITY segments
 *
 * Invariants (segment_map_check)
 *   (1) segments are in order and do not overlap, within and across leaves
 *   (2) directory[i].first is the offset of that leaf's first segment
 *   (3) a leaf is empty only when it is the only one
 *   (4) nr_segments is the sum over the leaves
 *
 * An insert adds at most two segments to one leaf (it may cut one in two), so it
 * takes at most one new leaf, by splitting a full one.  reserve() keeps that many
 * spare: every leaf there is now may be full and split once, and any further
 * split needs a half-empty leaf to be filled first, by FILLING_INSERTS inserts.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "index/segment_map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

#define LEAF_CAPACITY   256u /* 4 KiB */
#define FILLING_INSERTS (LEAF_CAPACITY / 4 - 1)

struct leaf {
    unsigned nr;
    struct leaf *next_spare; /* valid only in the list of spares */
    struct segment segments[LEAF_CAPACITY];
};

struct directory_entry {
    uint64_t first;
    struct leaf *leaf;
};

struct segment_map {
    struct directory_entry *directory;
    size_t nr_leaves; /* at least 1 */
    size_t capacity;  /* of directory */
    size_t nr_segments;
    struct leaf *spares;
    size_t nr_spares;
    size_t nr_spares_wanted; /* more than these are not kept */
};

/* A place between segments: before leaf directory[leaf]'s segments[slot]. */
struct position {
    size_t leaf;
    unsigned slot;
};

static enum obd_status no_memory(const struct segment_map *map)
{
    return status_set(OBD_E_NO_MEMORY, "no memory for more than %zu segments", map->nr_segments);
}

static enum obd_status add_spares(struct segment_map *map, size_t nr)
{
    while (map->nr_spares < nr) {
        struct leaf *leaf = malloc(sizeof *leaf);
        if (leaf == NULL)
            return no_memory(map);
        leaf->next_spare = map->spares;
        map->spares = leaf;
        map->nr_spares++;
    }
    return OBD_OK;
}

static struct leaf *take_spare(struct segment_map *map)
{
    struct leaf *leaf = map->spares;
    assert(leaf != NULL); /* the caller did not reserve */
    map->spares = leaf->next_spare;
    map->nr_spares--;
    leaf->nr = 0;
    return leaf;
}

static void give_spare(struct segment_map *map, struct leaf *leaf)
{
    if (map->nr_spares >= map->nr_spares_wanted) {
        free(leaf);
        return;
    }
    leaf->next_spare = map->spares;
    map->spares = leaf;
    map->nr_spares++;
}

static enum obd_status widen_directory(struct segment_map *map, size_t nr)
{
    if (map->capacity >= nr)
        return OBD_OK;
    size_t capacity = max_u64(nr, map->capacity * 2);
    struct directory_entry *directory = realloc(map->directory, capacity * sizeof *directory);
    if (directory == NULL)
        return no_memory(map);
    map->directory = directory;
    map->capacity = capacity;
    return OBD_OK;
}

enum obd_status segment_map_reserve(struct segment_map *map, size_t nr)
{
    size_t splits = min_u64(nr, map->nr_leaves + nr / FILLING_INSERTS + 1);
    map->nr_spares_wanted = splits;
    enum obd_status status = add_spares(map, splits);
    if (status == OBD_OK)
        status = widen_directory(map, map->nr_leaves + splits);
    return status;
}

enum obd_status segment_map_new(struct segment_map **out)
{
    struct segment_map *map = calloc(1, sizeof *map);
    if (map == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory for an index");
    enum obd_status status = add_spares(map, 1);
    if (status == OBD_OK)
        status = widen_directory(map, 1);
    if (status != OBD_OK) {
        segment_map_free(map);
        return status;
    }
    map->directory[map->nr_leaves++] = (struct directory_entry){.first = 0, .leaf = take_spare(map)};
    *out = map;
    return OBD_OK;
}

void segment_map_free(struct segment_map *map)
{
    if (map == NULL)
        return;
    map->nr_spares_wanted = 0;
    for (size_t i = 0; i < map->nr_leaves; i++)
        free(map->directory[i].leaf);
    while (map->spares != NULL)
        free(take_spare(map));
    free(map->directory);
    free(map);
}

size_t segment_map_count(const struct segment_map *map)
{
    return map->nr_segments;
}

/* The last leaf that starts at or before sector, or the first one. */
static size_t find_leaf(const struct segment_map *map, uint64_t sector)
{
    const struct directory_entry *at = map->directory;
    size_t nr = map->nr_leaves;
    while (nr > 1) {
        size_t half = nr / 2;
        at = at[half].first <= sector ? at + half : at;
        nr -= half;
    }
    return (size_t)(at - map->directory);
}

/* Before the first segment that ends past sector, or at the end of the leaf
 * before the one that has it. */
static struct position find(const struct segment_map *map, uint64_t sector)
{
    size_t i = find_leaf(map, sector);
    struct segment_array view = {.segments = map->directory[i].leaf->segments, .nr = map->directory[i].leaf->nr};
    return (struct position){.leaf = i, .slot = (unsigned)segment_array_find(&view, sector)};
}

size_t segment_map_lookup(const struct segment_map *map, uint64_t begin, uint64_t end, struct segment *out, size_t max)
{
    struct position at = find(map, begin);
    size_t nr = 0;
    for (; at.leaf < map->nr_leaves; at.leaf++, at.slot = 0) {
        const struct leaf *leaf = map->directory[at.leaf].leaf;
        for (; at.slot < leaf->nr; at.slot++) {
            if (nr == max || leaf->segments[at.slot].offset >= end)
                return nr;
            out[nr++] = segment_clip(leaf->segments[at.slot], begin, end);
        }
    }
    return nr;
}

/* ---- changing one leaf ---------------------------------------------------- */

static void update_first(struct segment_map *map, size_t i)
{
    const struct leaf *leaf = map->directory[i].leaf;
    map->directory[i].first = leaf->nr > 0 ? leaf->segments[0].offset : 0;
}

/* Puts nr segments before at; the leaf has room. */
static void put(struct segment_map *map, struct position at, const struct segment *segments, unsigned nr)
{
    struct leaf *leaf = map->directory[at.leaf].leaf;
    assert(leaf->nr + nr <= LEAF_CAPACITY);
    struct segment *to = leaf->segments + at.slot;
    memmove(to + nr, to, (leaf->nr - at.slot) * sizeof *to);
    memcpy(to, segments, nr * sizeof *to);
    leaf->nr += nr;
    map->nr_segments += nr;
    update_first(map, at.leaf);
}

/* Takes nr segments from at on, all in one leaf; may leave it empty. */
static void take_away(struct segment_map *map, struct position at, unsigned nr)
{
    struct leaf *leaf = map->directory[at.leaf].leaf;
    struct segment *to = leaf->segments + at.slot;
    memmove(to, to + nr, (leaf->nr - at.slot - nr) * sizeof *to);
    leaf->nr -= nr;
    map->nr_segments -= nr;
    update_first(map, at.leaf);
}

/* ---- changing the directory ------------------------------------------------ */

static void remove_leaves(struct segment_map *map, size_t first, size_t nr)
{
    for (size_t i = first; i < first + nr; i++)
        give_spare(map, map->directory[i].leaf);
    struct directory_entry *to = map->directory + first;
    memmove(to, to + nr, (map->nr_leaves - first - nr) * sizeof *to);
    map->nr_leaves -= nr;
}

/* Moves the second half of leaf i to a new leaf after it. */
static void split_leaf(struct segment_map *map, size_t i)
{
    struct leaf *left = map->directory[i].leaf, *right = take_spare(map);
    right->nr = left->nr / 2;
    left->nr -= right->nr;
    memcpy(right->segments, left->segments + left->nr, right->nr * sizeof *right->segments);

    assert(map->nr_leaves < map->capacity);
    struct directory_entry *at = map->directory + i + 1;
    memmove(at + 1, at, (map->nr_leaves - i - 1) * sizeof *at);
    *at = (struct directory_entry){.first = right->segments[0].offset, .leaf = right};
    map->nr_leaves++;
}

/* Joins leaf i and the next when both fit into half a leaf, so that a map that
 * was full once does not keep a leaf for every few segments. */
static void join_leaf(struct segment_map *map, size_t i)
{
    if (i + 1 >= map->nr_leaves)
        return;
    struct leaf *left = map->directory[i].leaf, *right = map->directory[i + 1].leaf;
    if (left->nr + right->nr > LEAF_CAPACITY / 2)
        return;
    memcpy(left->segments + left->nr, right->segments, right->nr * sizeof *right->segments);
    left->nr += right->nr;
    update_first(map, i);
    remove_leaves(map, i + 1, 1);
}

/* ---- inserting -------------------------------------------------------------- */

/* Takes away the segments of one leaf from at on that end at or before end, and
 * the front of one that reaches past it.  True when the next leaf may have more. */
static bool cut_leaf(struct segment_map *map, struct position at, uint64_t end)
{
    struct leaf *leaf = map->directory[at.leaf].leaf;
    unsigned slot = at.slot;
    while (slot < leaf->nr && segment_end(leaf->segments[slot]) <= end)
        slot++;
    bool goes_on = slot == leaf->nr;
    if (!goes_on && leaf->segments[slot].offset < end)
        leaf->segments[slot] = segment_trim_front(leaf->segments[slot], end - leaf->segments[slot].offset);
    take_away(map, at, slot - at.slot);
    return goes_on;
}

/* Clears [start of the segment at "at", end), whose leaf may become empty. */
static void cut(struct segment_map *map, struct position at, uint64_t end)
{
    if (!cut_leaf(map, at, end))
        return;
    size_t covered = at.leaf + 1; /* leaves from there on go as a whole */
    while (covered < map->nr_leaves) {
        const struct leaf *leaf = map->directory[covered].leaf;
        if (segment_end(leaf->segments[leaf->nr - 1]) > end)
            break;
        map->nr_segments -= leaf->nr;
        covered++;
    }
    remove_leaves(map, at.leaf + 1, covered - at.leaf - 1);
    if (at.leaf + 1 < map->nr_leaves && map->directory[at.leaf + 1].first < end)
        cut_leaf(map, (struct position){.leaf = at.leaf + 1}, end);
}

/* The place for s, in a leaf with room for two more. */
static struct position find_room(struct segment_map *map, uint64_t sector)
{
    size_t i = find_leaf(map, sector);
    if (map->directory[i].leaf->nr + 2 > LEAF_CAPACITY)
        split_leaf(map, i);
    return find(map, sector);
}

void segment_map_insert(struct segment_map *map, struct segment s)
{
    assert(s.length > 0);
    uint64_t end = segment_end(s);
    struct position at = find_room(map, s.offset);
    struct leaf *leaf = map->directory[at.leaf].leaf;
    if (at.slot < leaf->nr && leaf->segments[at.slot].offset < s.offset) {
        struct segment *old = &leaf->segments[at.slot++];
        struct segment both[2] = {s, *old};
        old->length = s.offset - old->offset;
        if (segment_end(both[1]) > end) { /* s lies inside old, which is cut in two */
            both[1] = segment_trim_front(both[1], end - both[1].offset);
            put(map, at, both, 2);
            return;
        }
    }
    cut(map, at, end);
    put(map, at, &s, 1);
    join_leaf(map, at.leaf);
}

enum obd_status segment_map_freeze(const struct segment_map *map, struct segment_array *out)
{
    *out = (struct segment_array){0};
    if (map->nr_segments == 0)
        return OBD_OK;
    out->segments = malloc(map->nr_segments * sizeof *out->segments);
    if (out->segments == NULL)
        return no_memory(map);
    for (size_t i = 0; i < map->nr_leaves; i++) {
        const struct leaf *leaf = map->directory[i].leaf;
        memcpy(out->segments + out->nr, leaf->segments, leaf->nr * sizeof *out->segments);
        out->nr += leaf->nr;
    }
    return OBD_OK;
}

bool segment_map_check(const struct segment_map *map)
{
    size_t nr = 0;
    uint64_t last_end = 0;
    for (size_t i = 0; i < map->nr_leaves; i++) {
        const struct leaf *leaf = map->directory[i].leaf;
        if (leaf->nr == 0 && map->nr_leaves > 1)
            return false; /* (3) */
        if (leaf->nr > 0 && map->directory[i].first != leaf->segments[0].offset)
            return false; /* (2) */
        for (unsigned k = 0; k < leaf->nr; k++) {
            if (leaf->segments[k].length == 0 || leaf->segments[k].offset < last_end)
                return false; /* (1) */
            last_end = segment_end(leaf->segments[k]);
        }
        nr += leaf->nr;
    }
    return nr == map->nr_segments; /* (4) */
}
