/* nbd_extents: BLOCK_STATUS, context base:allocation, from the image's index.
 *
 *   hole   no layer has it            NBD_STATE_HOLE | NBD_STATE_ZERO
 *   zero   a layer says "zeros"       NBD_STATE_ZERO
 *   data                              0
 *
 * Answers from memory, so it runs on the connection's thread.  Neighbours with
 * the same flags are one extent (the image tells layers apart, a client cannot).
 * What does not fit into one reply is left for the client to ask again.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/checked.h"
#include "front/nbd_connection.h"

static uint32_t flags_of(const struct obd_extent *extent)
{
    switch (extent->kind) {
    case OBD_EXTENT_HOLE:
        return NBD_EXTENT_HOLE | NBD_EXTENT_ZERO;
    case OBD_EXTENT_ZERO:
        return NBD_EXTENT_ZERO;
    default:
        return 0;
    }
}

/* The bytes of extent inside [begin, end): sectors on the edges were widened. */
static uint64_t clipped_length(const struct obd_extent *extent, uint64_t begin, uint64_t end)
{
    uint64_t from = max_u64(extent->offset, begin);
    uint64_t to = min_u64(extent->offset + extent->length, end);
    return to > from ? to - from : 0;
}

/* Writes merged descriptors of extents and returns their bytes. */
static size_t put_extents(struct nbd_request *request, const struct obd_extent *extents, size_t nr)
{
    const struct nbd_header *header = &request->header;
    uint64_t end = header->offset + header->length;
    unsigned char *at = request->buffer;
    for (size_t i = 0; i < nr;) {
        uint32_t flags = flags_of(&extents[i]);
        uint64_t length = 0;
        for (; i < nr && flags_of(&extents[i]) == flags; i++)
            length += clipped_length(&extents[i], header->offset, end);
        at = wire_put32(at, (uint32_t)length);
        at = wire_put32(at, flags);
        if (header->flags & NBD_FLAG_REQ_ONE)
            break;
    }
    return (size_t)(at - request->buffer);
}

enum obd_status nbd_extents_describe(struct nbd_request *request)
{
    struct nbd *nbd = request->nbd;
    uint64_t begin = round_down(request->header.offset, SECTOR_SIZE);
    uint64_t end = round_up(request->header.offset + request->header.length, SECTOR_SIZE);
    struct obd_extent extents[NBD_MAX_EXTENTS];
    size_t nr = 0;
    struct image *image = device_take_image(nbd->device);
    enum obd_status status = image_extents(image, begin, end - begin, extents, NBD_MAX_EXTENTS, &nr);
    image_unref(image);
    if (status != OBD_OK)
        return status_prefix(status, "nbd %s: BLOCK_STATUS", device_name(nbd->device));
    if (nr == 0)
        return status_set(OBD_E_IO, "nbd %s: BLOCK_STATUS found no extent", device_name(nbd->device));
    request->iov.iov_len = put_extents(request, extents, nr);
    return OBD_OK;
}
