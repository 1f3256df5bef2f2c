/* memory_layer: layers in memory, whose source counts its reads, and can miss or block.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMORY_LAYER_H
#define MEMORY_LAYER_H

#include "check.h"

#include "image/image.h"

#define SECTORS 2048u
#define SIZE    (SECTORS * 512u)

struct memory {
    struct source source; /* first */
    int nr_reads;
    size_t longest;
    int nr_pieces;    /* of the iov in the longest */
    bool is_missing;  /* every read misses its first sector's chunk */
    bool would_block; /* and with nowait, AGAIN */
    uint8_t bytes[SIZE + 8192];
};

static inline enum obd_status memory_read(struct source *source, const struct read_context *context,
                                          struct iov_cursor *cursor, size_t length, uint64_t offset)
{
    struct memory *memory = (struct memory *)source;
    memory->nr_reads++;
    if (memory->would_block && context->nowait)
        return OBD_E_AGAIN;
    if (memory->is_missing)
        return demand_add(context->demand, source, offset / 512, 512);
    if (length > memory->longest) {
        memory->longest = length;
        memory->nr_pieces = cursor->nr_iov;
    }
    iov_cursor_write(cursor, memory->bytes + offset, length);
    return OBD_OK;
}

static inline void memory_request(struct source *source, struct miss *miss)
{
    ((struct memory *)source)->is_missing = false;
    demand_arrived(miss, OBD_OK);
}

static inline bool memory_cancel(struct source *source, struct miss *miss)
{
    (void)source, (void)miss;
    return false;
}

static inline void memory_release(struct source *source, uint64_t chunk)
{
    (void)source, (void)chunk;
}

static inline void memory_destroy(struct source *source)
{
    free(source);
}

static const struct source_ops memory_ops = {.kind = "memory",
                                             .read = memory_read,
                                             .request = memory_request,
                                             .cancel = memory_cancel,
                                             .release = memory_release,
                                             .destroy = memory_destroy};

/* A layer whose byte at place p of its file is a function of p and number. */
static inline uint8_t byte_at(uint64_t place, int number)
{
    return (uint8_t)(place / 512 * 7 + place + (uint64_t)number * 13 + 1);
}

/* nr segments, sorted; where each lies in the file is given by moffset. */
static inline struct layer *make_layer(const struct segment *segments, size_t nr, int number)
{
    struct memory *memory = calloc(1, sizeof *memory);
    struct layer *layer = calloc(1, sizeof *layer);
    CHECK_OK(source_init(&memory->source, &memory_ops, sizeof memory->bytes, "memory"));
    for (size_t i = 0; i < sizeof memory->bytes; i++)
        memory->bytes[i] = byte_at(i, number);
    layer->source = &memory->source;
    layer->index.nr = nr;
    layer->index.segments = nr == 0 ? NULL : malloc(nr * sizeof *segments);
    if (nr > 0)
        memcpy(layer->index.segments, segments, nr * sizeof *segments);
    layer->virtual_size = SIZE;
    atomic_init(&layer->nr_references, 1);
    return layer;
}

static inline struct memory *memory_of(struct layer *layer)
{
    return (struct memory *)layer->source;
}

static inline enum obd_status read_nowait(struct image *image, void *buffer, size_t length, uint64_t offset,
                                          struct demand *demand, bool nowait)
{
    struct read_context context = {.nowait = nowait, .demand = demand};
    struct iovec iov = {.iov_base = buffer, .iov_len = length};
    struct iov_cursor cursor = iov_cursor_at(&iov, 1);
    enum obd_status status = image_read(image, &context, &cursor, length, offset);
    CHECK(status != OBD_OK || iov_cursor_left(&cursor) == 0);
    return status;
}

#endif
