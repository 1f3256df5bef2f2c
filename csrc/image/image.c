/* image: see image.h.  Here: open, close, and what is passed on to the upper.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/image_state.h"

/* ---- open and close ---- */

static enum obd_status check_arguments(size_t nr_lowers, const struct upper *upper, uint64_t virtual_size,
                                       const char *name)
{
    if (nr_lowers > OBD_MAX_LAYERS)
        return status_set(OBD_E_LIMIT, "image %s: %zu layers are more than %d", name, nr_lowers, OBD_MAX_LAYERS);
    if (nr_lowers == 0 && upper == NULL)
        return status_set(OBD_E_INVALID, "image %s: it has no layer at all", name);
    if (virtual_size == 0 || !is_aligned(virtual_size, SECTOR_SIZE) ||
        virtual_size >> SECTOR_SHIFT > SEGMENT_MAX_OFFSET)
        return status_set(OBD_E_INVALID, "image %s: a size of %llu bytes cannot be had", name,
                          (unsigned long long)virtual_size);
    return OBD_OK;
}

static void free_lowers(struct image *image)
{
    for (size_t i = 0; i < image->nr_lowers; i++)
        layer_unref(image->lowers[i]);
    free(image->lowers);
}

static void free_image(struct image *image)
{
    segment_array_free(&image->merged);
    free_lowers(image);
    free(image->name);
    free(image);
}

/* Given bottom first, kept top first. */
static bool keep_lowers(struct image *image, struct layer *const *lowers, size_t nr)
{
    image->lowers = calloc(nr + 1, sizeof *image->lowers);
    if (image->lowers == NULL)
        return false;
    for (size_t i = 0; i < nr; i++)
        image->lowers[i] = layer_ref(lowers[nr - 1 - i]);
    image->nr_lowers = nr;
    return true;
}

static enum obd_status merge_lowers(struct image *image)
{
    const struct segment_array *arrays[OBD_MAX_LAYERS];
    for (size_t i = 0; i < image->nr_lowers; i++)
        arrays[i] = &image->lowers[i]->index;
    enum obd_status status = segment_array_merge(&image->merged, arrays, image->nr_lowers);
    return status == OBD_OK ? OBD_OK : status_prefix(status, "image %s", image->name);
}

static enum obd_status open_stack(struct layer *const *lowers, size_t nr_lowers, const struct upper *upper,
                                  uint64_t virtual_size, const char *name, struct image **out)
{
    enum obd_status status = check_arguments(nr_lowers, upper, virtual_size, name);
    if (status != OBD_OK)
        return status;
    struct image *image = calloc(1, sizeof *image);
    if (image == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to open image %s", name);
    atomic_init(&image->nr_references, 1);
    atomic_init(&image->virtual_size, virtual_size);
    image->name = strdup(name);
    if (image->name == NULL || !keep_lowers(image, lowers, nr_lowers))
        status = status_set(OBD_E_NO_MEMORY, "no memory to open image %s", name);
    if (status == OBD_OK && nr_lowers > 0)
        status = merge_lowers(image);
    if (status != OBD_OK) {
        free_image(image);
        return status;
    }
    *out = image;
    return OBD_OK;
}

enum obd_status image_open(struct layer *const *lowers, size_t nr_lowers, struct upper *upper, uint64_t virtual_size,
                           const char *name, struct image **out)
{
    enum obd_status status = open_stack(lowers, nr_lowers, upper, virtual_size, name, out);
    if (status == OBD_OK) {
        (*out)->upper = upper;
        return OBD_OK;
    }
    if (upper != NULL) { /* it was taken; the first sentence is the one to keep */
        char why[STATUS_TEXT_SIZE];
        memcpy(why, status_text(), sizeof why);
        upper_close(upper);
        status_set(status, "%s", why);
    }
    return status;
}

struct image *image_ref(struct image *image)
{
    atomic_fetch_add_explicit(&image->nr_references, 1, memory_order_relaxed);
    return image;
}

enum obd_status image_close(struct image *image)
{
    if (image == NULL || atomic_fetch_sub_explicit(&image->nr_references, 1, memory_order_acq_rel) != 1)
        return OBD_OK;
    enum obd_status status = image->upper == NULL ? OBD_OK : upper_close(image->upper);
    free_image(image);
    return status;
}

void image_unref(struct image *image)
{
    image_close(image);
}

uint64_t image_size(const struct image *image)
{
    return image->virtual_size;
}

const char *image_name(const struct image *image)
{
    return image->name;
}

bool image_is_read_only(const struct image *image)
{
    return image->upper == NULL || upper_is_read_only(image->upper);
}

struct upper *image_upper(const struct image *image)
{
    return image->upper;
}

uint64_t image_nr_segments(struct image *image)
{
    return image->merged.nr + (image->upper == NULL ? 0 : upper_nr_segments(image->upper));
}

/* ---- writing ---- */

static enum obd_status refuse_write(const struct image *image)
{
    return status_set(OBD_E_READ_ONLY, "image %s has no writable layer", image->name);
}

enum obd_status image_grow(struct image *image, uint64_t size)
{
    if (image->upper == NULL)
        return refuse_write(image);
    enum obd_status status = upper_grow(image->upper, size);
    if (status == OBD_OK)
        atomic_store(&image->virtual_size, upper_virtual_size(image->upper));
    return status;
}

enum obd_status image_write(struct image *image, struct iov_cursor *cursor, uint64_t length, uint64_t offset)
{
    assert(range_is_inside(offset, length, image->virtual_size));
    return image->upper == NULL ? refuse_write(image) : upper_write(image->upper, cursor, length, offset);
}

enum obd_status image_try_write(struct image *image, struct iov_cursor *cursor, uint64_t length, uint64_t offset)
{
    assert(range_is_inside(offset, length, image->virtual_size));
    return image->upper == NULL ? refuse_write(image) : upper_try_write(image->upper, cursor, length, offset);
}

enum obd_status image_discard(struct image *image, uint64_t length, uint64_t offset)
{
    assert(range_is_inside(offset, length, image->virtual_size));
    return image->upper == NULL ? refuse_write(image) : upper_discard(image->upper, length, offset);
}

enum obd_status image_flush(struct image *image)
{
    return image->upper == NULL ? OBD_OK : upper_flush(image->upper);
}

/* ---- sealing ---- */

enum obd_status image_seal(struct image *image, struct obd_sealed_index *index)
{
    return image->upper == NULL ? refuse_write(image) : upper_seal(image->upper, index);
}

enum obd_status image_finish_seal(struct image *image, const void *trailer)
{
    return image->upper == NULL ? refuse_write(image) : upper_finish_seal(image->upper, trailer);
}

enum obd_status image_unseal(struct image *image)
{
    return image->upper == NULL ? refuse_write(image) : upper_unseal(image->upper);
}
