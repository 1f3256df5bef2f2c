/* source: references, and the one way to read.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "source/source.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

enum obd_status source_init(struct source *source, const struct source_ops *ops, uint64_t size, const char *name)
{
    source->ops = ops;
    source->size = size;
    atomic_init(&source->nr_references, 1);
    source->name = strdup(name);
    return source->name != NULL ? OBD_OK : status_set(OBD_E_NO_MEMORY, "no memory to open %s", name);
}

struct source *source_ref(struct source *source)
{
    atomic_fetch_add_explicit(&source->nr_references, 1, memory_order_relaxed);
    return source;
}

void source_unref(struct source *source)
{
    if (source == NULL || atomic_fetch_sub_explicit(&source->nr_references, 1, memory_order_acq_rel) > 1)
        return;
    char *name = source->name; /* destroy may still want to say it */
    source->ops->destroy(source);
    free(name);
}

enum obd_status source_read(struct source *source, const struct read_context *context, struct iov_cursor *cursor,
                            size_t length, uint64_t offset)
{
    if (!range_is_inside(offset, length, source->size))
        return status_set(OBD_E_CORRUPT, "%s is shorter than wanted: %zu bytes at %llu of %llu", source->name, length,
                          (unsigned long long)offset, (unsigned long long)source->size);
    if (length == 0)
        return OBD_OK;
    assert(context->demand != NULL);
    assert(iov_cursor_left(cursor) >= length);
    enum obd_status status = source->ops->read(source, context, cursor, length, offset);
    assert(status != OBD_E_AGAIN || context->nowait);
    return status;
}

enum obd_status source_discard(struct source *source, uint64_t offset, uint64_t length)
{
    return source->ops->discard != NULL ? source->ops->discard(source, offset, length) : OBD_E_CORRUPT;
}
