/* segment_merge: many layers' indexes become one.
 *
 * Laying one array over another is associative, so the layers are halved like in
 * a merge sort: every segment is copied once per level of the halving, and 255
 * layers have eight levels.  (Filling the gaps of each layer in turn, as the
 * format's description puts it, gives the same array but looks at the lower
 * layers once for every gap.)
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "index/segment_array.h"

/* Most entries of a merged index (spec/lsmt.md section 1). */
#define MAX_MERGED 128000000u

static enum obd_status no_memory(size_t nr)
{
    return status_set(OBD_E_NO_MEMORY, "no memory for a merged index of %zu segments", nr);
}

/* Room for what one array over another can make at most: each segment of the
 * upper one can cut one of the lower in two. */
static enum obd_status reserve(struct segment_array *array, const struct segment_array *top,
                               const struct segment_array *bottom)
{
    size_t nr = 2 * top->nr + bottom->nr;
    *array = (struct segment_array){0};
    if (nr == 0)
        return OBD_OK;
    array->segments = malloc(nr * sizeof *array->segments);
    return array->segments != NULL ? OBD_OK : no_memory(nr);
}

/* Gives back what was reserved too much. */
static void trim(struct segment_array *array)
{
    if (array->nr == 0) {
        segment_array_free(array);
        return;
    }
    struct segment *smaller = realloc(array->segments, array->nr * sizeof *smaller);
    if (smaller != NULL)
        array->segments = smaller;
}

/* Appends what bottom has in [begin, end) to merged.  *at is the first segment of
 * bottom that may reach past begin, and is moved on to the same for end. */
static void fill_gap(struct segment_array *merged, const struct segment_array *bottom, size_t *at, uint64_t begin,
                     uint64_t end)
{
    while (*at < bottom->nr) {
        struct segment s = bottom->segments[*at];
        if (segment_end(s) > begin) {
            if (s.offset >= end)
                return;
            merged->segments[merged->nr++] = segment_clip(s, begin, end);
            if (segment_end(s) > end)
                return; /* the rest of it may show in the next gap */
        }
        ++*at;
    }
}

static enum obd_status lay_over(struct segment_array *merged, const struct segment_array *top,
                                const struct segment_array *bottom)
{
    enum obd_status status = reserve(merged, top, bottom);
    if (status != OBD_OK)
        return status;
    size_t at = 0;
    uint64_t begin = 0;
    for (size_t i = 0; i < top->nr; i++) {
        struct segment s = top->segments[i];
        if (begin < s.offset)
            fill_gap(merged, bottom, &at, begin, s.offset);
        merged->segments[merged->nr++] = s;
        begin = segment_end(s);
    }
    fill_gap(merged, bottom, &at, begin, UINT64_MAX);
    if (merged->nr > MAX_MERGED) {
        status = status_set(OBD_E_LIMIT, "the merged index has %zu segments, more than %u", merged->nr, MAX_MERGED);
        segment_array_free(merged);
        return status;
    }
    trim(merged);
    return OBD_OK;
}

static enum obd_status copy_tagged(struct segment_array *copy, const struct segment_array *layer, size_t tag)
{
    static const struct segment_array empty;
    enum obd_status status = reserve(copy, &empty, layer);
    if (status != OBD_OK || layer->nr == 0)
        return status;
    memcpy(copy->segments, layer->segments, layer->nr * sizeof *copy->segments);
    copy->nr = layer->nr;
    for (size_t i = 0; i < copy->nr; i++)
        copy->segments[i].tag = tag;
    return OBD_OK;
}

/* Merges layers[first .. first + nr). */
static enum obd_status merge_range(struct segment_array *merged, const struct segment_array *const *layers,
                                   size_t first, size_t nr)
{
    if (nr == 1)
        return copy_tagged(merged, layers[first], first);
    struct segment_array top = {0}, bottom = {0};
    enum obd_status status = merge_range(&top, layers, first, nr / 2);
    if (status == OBD_OK)
        status = merge_range(&bottom, layers, first + nr / 2, nr - nr / 2);
    if (status == OBD_OK)
        status = lay_over(merged, &top, &bottom);
    segment_array_free(&top);
    segment_array_free(&bottom);
    return status;
}

enum obd_status segment_array_merge(struct segment_array *merged, const struct segment_array *const *layers, size_t nr)
{
    assert(nr <= OBD_MAX_LAYERS);
    *merged = (struct segment_array){0};
    if (nr == 0)
        return OBD_OK;
    enum obd_status status = merge_range(merged, layers, 0, nr);
    assert(status != OBD_OK || segment_array_check(merged));
    return status;
}
