/* slice: a part of another source, such as the payload of a tar wrapper.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "base/checked.h"
#include "source/source.h"

struct slice {
    struct source source; /* first */
    struct source *below; /* referenced */
    uint64_t offset;      /* where the slice begins in it */
};

static enum obd_status slice_read(struct source *source, const struct read_context *context, struct iov_cursor *cursor,
                                  size_t length, uint64_t offset)
{
    struct slice *slice = (struct slice *)source;
    return source_read(slice->below, context, cursor, length, slice->offset + offset);
}

static enum obd_status slice_discard(struct source *source, uint64_t offset, uint64_t length)
{
    struct slice *slice = (struct slice *)source;
    return source_discard(slice->below, slice->offset + offset, length);
}

static void slice_destroy(struct source *source)
{
    struct slice *slice = (struct slice *)source;
    source_unref(slice->below);
    free(slice);
}

static const struct source_ops slice_ops = {
    .kind = "slice", .read = slice_read, .discard = slice_discard, .destroy = slice_destroy};

enum obd_status source_open_slice(struct source *below, uint64_t offset, uint64_t size, struct source **out)
{
    if (!range_is_inside(offset, size, below->size))
        return status_set(OBD_E_CORRUPT, "%s is shorter than the part wanted of it: %llu bytes at %llu of %llu",
                          below->name, (unsigned long long)size, (unsigned long long)offset,
                          (unsigned long long)below->size);
    struct slice *slice = malloc(sizeof *slice);
    if (slice == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to open a part of %s", below->name);
    enum obd_status status = source_init(&slice->source, &slice_ops, size, below->name);
    if (status != OBD_OK) {
        free(slice);
        return status;
    }
    slice->offset = offset;
    slice->below = source_ref(below);
    *out = &slice->source;
    return OBD_OK;
}
