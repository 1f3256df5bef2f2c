/* image_extents: what a range of an image is made of, and all of it frozen.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>
#include <string.h>

#include "base/checked.h"
#include "image/image_state.h"

/* ---- extents ---- */

struct extent_list {
    struct obd_extent *extents;
    size_t nr, max;
};

/* False when there is no room for it. */
static bool extent_list_add(struct extent_list *list, struct obd_extent next)
{
    struct obd_extent *last = list->nr == 0 ? NULL : &list->extents[list->nr - 1];
    if (last != NULL && last->kind == next.kind && last->layer == next.layer) {
        last->length += next.length;
        return true;
    }
    if (list->nr == list->max)
        return false;
    list->extents[list->nr++] = next;
    return true;
}

static bool add_hole(struct extent_list *list, uint64_t begin, uint64_t end)
{
    return begin == end || extent_list_add(list, (struct obd_extent){.offset = begin << SECTOR_SHIFT,
                                                                     .length = (end - begin) << SECTOR_SHIFT,
                                                                     .kind = OBD_EXTENT_HOLE,
                                                                     .layer = -1});
}

static bool add_segment(struct extent_list *list, struct segment s, size_t layer)
{
    return extent_list_add(list, (struct obd_extent){.offset = (uint64_t)s.offset << SECTOR_SHIFT,
                                                     .length = (uint64_t)s.length << SECTOR_SHIFT,
                                                     .kind = s.zeroed ? OBD_EXTENT_ZERO : OBD_EXTENT_DATA,
                                                     .layer = (int32_t)layer});
}

/* Sectors [begin, end) of the lowers; false when the list is full. */
static bool list_lowers(struct image *image, struct extent_list *list, uint64_t begin, uint64_t end)
{
    const struct segment_array *merged = &image->merged;
    bool has_room = true;
    for (size_t i = segment_array_find(merged, begin); begin < end && has_room; i++) {
        if (i == merged->nr || merged->segments[i].offset >= end)
            return add_hole(list, begin, end);
        struct segment s = segment_clip(merged->segments[i], begin, end);
        has_room = add_hole(list, begin, s.offset) && add_segment(list, s, image->nr_lowers - 1 - s.tag);
        begin = segment_end(s);
    }
    return has_room;
}

static void list_stack(struct image *image, struct extent_list *list, uint64_t begin, uint64_t end)
{
    struct segment found[IMAGE_LOOKUP_BATCH];
    bool has_room = true;
    size_t nr = IMAGE_LOOKUP_BATCH;
    while (has_room && nr == IMAGE_LOOKUP_BATCH) {
        nr = upper_lookup(image->upper, begin, end, found, IMAGE_LOOKUP_BATCH);
        for (size_t i = 0; i < nr && has_room; i++) {
            has_room =
                list_lowers(image, list, begin, found[i].offset) && add_segment(list, found[i], image->nr_lowers);
            begin = segment_end(found[i]);
        }
    }
    if (has_room)
        list_lowers(image, list, begin, end);
}

enum obd_status image_extents(struct image *image, uint64_t offset, uint64_t length, struct obd_extent *out, size_t max,
                              size_t *nr)
{
    assert(is_aligned(offset | length, SECTOR_SIZE) && range_is_inside(offset, length, image->virtual_size));
    struct extent_list list = {.extents = out, .max = max};
    uint64_t begin = offset >> SECTOR_SHIFT, end = (offset + length) >> SECTOR_SHIFT;
    if (image->upper == NULL)
        list_lowers(image, &list, begin, end);
    else
        list_stack(image, &list, begin, end);
    *nr = list.nr;
    return OBD_OK;
}

/* ---- frozen ---- */

/* What is past the end of the disk (an upper that was shrunk) is left out. */
static void cut_at_end(struct segment_array *array, uint64_t end)
{
    while (array->nr > 0 && array->segments[array->nr - 1].offset >= end)
        array->nr--;
    if (array->nr > 0) {
        struct segment *last = &array->segments[array->nr - 1];
        *last = segment_clip(*last, last->offset, end);
    }
}

enum obd_status image_freeze_upper(struct image *image, struct segment_array *out)
{
    if (image->upper == NULL)
        return status_set(OBD_E_INVALID, "image %s has no upper", image->name);
    enum obd_status status = upper_freeze(image->upper, out);
    if (status != OBD_OK)
        return status;
    for (size_t i = 0; i < out->nr; i++)
        out->segments[i].tag = 0;
    cut_at_end(out, image->virtual_size >> SECTOR_SHIFT);
    return OBD_OK;
}

/* As merge_lowers at open, with the upper on top. */
static enum obd_status freeze_stack(struct image *image, const struct segment_array *upper, struct segment_array *out)
{
    const struct segment_array *arrays[OBD_MAX_LAYERS + 1];
    size_t nr = 0;
    if (upper != NULL)
        arrays[nr++] = upper;
    for (size_t i = 0; i < image->nr_lowers; i++)
        arrays[nr++] = &image->lowers[i]->index;
    if (nr > OBD_MAX_LAYERS)
        return status_set(OBD_E_LIMIT, "image %s: %zu layers with the upper are more than %d", image->name, nr,
                          OBD_MAX_LAYERS);
    return segment_array_merge(out, arrays, nr);
}

enum obd_status image_freeze(struct image *image, struct segment_array *out)
{
    struct segment_array upper = {0};
    enum obd_status status = OBD_OK;
    if (image->upper != NULL)
        status = upper_freeze(image->upper, &upper);
    if (status == OBD_OK)
        status = freeze_stack(image, image->upper == NULL ? NULL : &upper, out);
    segment_array_free(&upper);
    if (status == OBD_OK)
        cut_at_end(out, image->virtual_size >> SECTOR_SHIFT);
    return status;
}

enum obd_status image_read_mapped(struct image *image, struct segment s, void *buffer, uint64_t deadline_ns)
{
    size_t length = (size_t)s.length << SECTOR_SHIFT;
    uint64_t place = (uint64_t)s.moffset << SECTOR_SHIFT;
    if (s.zeroed) {
        memset(buffer, 0, length);
        return OBD_OK;
    }
    size_t above = image->upper == NULL ? 0 : 1;
    if (s.tag < above) {
        struct iovec iov = {.iov_base = buffer, .iov_len = length};
        struct iov_cursor cursor = iov_cursor_at(&iov, 1);
        return upper_read_log(image->upper, &cursor, length, place, false);
    }
    size_t lower = s.tag - above;
    assert(lower < image->nr_lowers);
    enum obd_status status = source_read_wait(image->lowers[lower]->source, buffer, length, place, deadline_ns);
    return status == OBD_OK ? OBD_OK
                            : status_prefix(status, "layer %zu of image %s", image->nr_lowers - lower, image->name);
}
