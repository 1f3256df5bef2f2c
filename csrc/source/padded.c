/* padded: another source with zeros behind its end, up to a larger size.
 *
 * A raw disk image need not be a whole number of sectors; a disk is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "base/checked.h"
#include "source/source.h"

struct padded {
    struct source source; /* first */
    struct source *below; /* referenced */
};

static enum obd_status padded_read(struct source *source, const struct read_context *context, struct iov_cursor *cursor,
                                   size_t length, uint64_t offset)
{
    struct padded *padded = (struct padded *)source;
    uint64_t stored = padded->below->size;
    size_t nr_stored = offset < stored ? (size_t)min_u64(length, stored - offset) : 0;
    enum obd_status status = OBD_OK;
    if (nr_stored > 0)
        status = source_read(padded->below, context, cursor, nr_stored, offset);
    if (status == OBD_OK)
        iov_cursor_zero(cursor, length - nr_stored);
    return status;
}

static void padded_destroy(struct source *source)
{
    struct padded *padded = (struct padded *)source;
    source_unref(padded->below);
    free(padded);
}

static const struct source_ops padded_ops = {.kind = "padded", .read = padded_read, .destroy = padded_destroy};

enum obd_status source_open_padded(struct source *below, uint64_t size, struct source **out)
{
    if (size < below->size)
        return status_set(OBD_E_INVALID, "%s has %llu bytes, it cannot be padded to %llu", below->name,
                          (unsigned long long)below->size, (unsigned long long)size);
    struct padded *padded = malloc(sizeof *padded);
    if (padded == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to pad %s", below->name);
    enum obd_status status = source_init(&padded->source, &padded_ops, size, below->name);
    if (status != OBD_OK) {
        free(padded);
        return status;
    }
    padded->below = source_ref(below);
    *out = &padded->source;
    return OBD_OK;
}
