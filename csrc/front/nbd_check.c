/* nbd_check: may this be asked?
 *
 * Every field of a request comes from outside and is checked here, in release builds
 * too, before the request costs anything.  Each refusal is a sentence, which clients
 * with structured replies are sent.
 *
 * The advertised minimum block size is 512.  READ and BLOCK_STATUS of clients that
 * ignore it are allowed, and widened; writes are not, because half a sector would
 * need a read and a lock around both.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "base/checked.h"
#include "front/nbd_connection.h"

/* What may be asked, by type. */
static const struct nbd_kind KINDS[] = {
    [NBD_READ] = {"READ", NBD_FLAG_DF, false, true, true},
    [NBD_WRITE] = {"WRITE", 0, true, true, true},
    [NBD_FLUSH] = {"FLUSH", 0, false, false, false},
    [NBD_TRIM] = {"TRIM", 0, true, true, false},
    [NBD_WRITE_ZEROES] = {"WRITE_ZEROES", NBD_FLAG_NO_HOLE | NBD_FLAG_FAST_ZERO, true, true, false},
    [NBD_BLOCK_STATUS] = {"BLOCK_STATUS", NBD_FLAG_REQ_ONE, false, true, false},
};

const struct nbd_kind *nbd_kind_of(const struct nbd_header *header)
{
    bool is_known = header->type < sizeof KINDS / sizeof KINDS[0] && KINDS[header->type].name;
    return is_known ? &KINDS[header->type] : NULL;
}

static enum obd_status check_range(const struct nbd *nbd, const struct nbd_kind *kind, const struct nbd_header *header)
{
    uint64_t size = device_size(nbd->device);
    if (header->length == 0)
        return status_set(OBD_E_INVALID, "nbd %s: %s of 0 bytes at %" PRIu64, device_name(nbd->device), kind->name,
                          header->offset);
    if (kind->has_bytes && header->length > NBD_MAX_PAYLOAD)
        return status_set(OBD_E_INVALID, "nbd %s: %s of %" PRIu32 " bytes; the most is %u", device_name(nbd->device),
                          kind->name, header->length, NBD_MAX_PAYLOAD);
    if (!range_is_inside(header->offset, header->length, size))
        return status_set(OBD_E_RANGE, "nbd %s: %s of %" PRIu32 " bytes at %" PRIu64 " of a disk of %" PRIu64,
                          device_name(nbd->device), kind->name, header->length, header->offset, size);
    if (kind->is_write && !is_aligned(header->offset | header->length, SECTOR_SIZE))
        return status_set(OBD_E_INVALID,
                          "nbd %s: %s of %" PRIu32 " bytes at %" PRIu64 "; both must be multiples of %u (the minimum "
                          "block size)",
                          device_name(nbd->device), kind->name, header->length, header->offset, SECTOR_SIZE);
    return OBD_OK;
}

enum obd_status nbd_check(const struct nbd *nbd, const struct nbd_header *header)
{
    const char *name = device_name(nbd->device);
    const struct nbd_kind *kind = nbd_kind_of(header);
    if (!kind)
        return status_set(OBD_E_INVALID, "nbd %s: unknown command %u", name, header->type);
    if (header->flags & ~(kind->flags | NBD_FLAG_FUA))
        return status_set(OBD_E_INVALID, "nbd %s: %s with flags 0x%04x, of which 0x%04x are known", name, kind->name,
                          header->flags, kind->flags | NBD_FLAG_FUA);
    if (kind->is_write && nbd->flags & OBD_NBD_READ_ONLY)
        return status_set(OBD_E_READ_ONLY, "nbd %s: %s to a read-only export", name, kind->name);
    if (header->type == NBD_BLOCK_STATUS && !(nbd->flags & OBD_NBD_BLOCK_STATUS))
        return status_set(OBD_E_INVALID, "nbd %s: BLOCK_STATUS, but no metadata context was negotiated", name);
    return kind->has_range ? check_range(nbd, kind, header) : OBD_OK;
}
