/* upper_sealed: see upper_sealed.h.
 *
 * A block that looks like a trailer is not enough: the disk may hold layer files
 * itself, and the last write to the log may have been such a file's trailer.  A
 * true one carries the UUID of this file's header, and its index ends where the
 * trailer begins.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/upper_sealed.h"

#include <endian.h>
#include <string.h>

#include "base/checked.h"

#define BLOCK_SIZE 4096u

/* Offsets in a header or trailer block, spec/lsmt.md section 2. */
enum { AT_MAGIC = 0, AT_FLAGS = 28, AT_INDEX_OFFSET = 32, AT_INDEX_SIZE = 40, AT_UUID = 56, USED = 93 };
enum { FLAG_HEADER = 1, FLAG_DATA = 2, FLAG_SEALED = 4 };

static const uint8_t magic[24] = {0x4c, 0x53, 0x4d, 0x54, 0x00, 0x01, 0x02, 0x00, 0x65, 0x7e, 0x63, 0xd2,
                                  0x94, 0x44, 0x08, 0x4c, 0xa2, 0xd2, 0xc8, 0xec, 0x4f, 0xcf, 0xae, 0x8a};

static uint32_t flags_of(const uint8_t *block)
{
    uint32_t flags;
    memcpy(&flags, block + AT_FLAGS, sizeof flags);
    return le32toh(flags);
}

static uint64_t u64_at(const uint8_t *block, size_t offset)
{
    uint64_t value;
    memcpy(&value, block + offset, sizeof value);
    return le64toh(value);
}

/* Does the index that the trailer names end, rounded up to a sector, at trailer_at? */
static bool index_ends_at(const uint8_t *trailer, uint64_t trailer_at)
{
    uint64_t offset = u64_at(trailer, AT_INDEX_OFFSET), length;
    if (!checked_multiply(u64_at(trailer, AT_INDEX_SIZE), 16, &length) || !range_is_inside(offset, length, trailer_at))
        return false;
    return trailer_at - (offset + length) < SECTOR_SIZE;
}

static bool is_trailer_of(const uint8_t *trailer, const uint8_t *header, uint64_t trailer_at)
{
    const uint32_t wanted = FLAG_HEADER | FLAG_DATA | FLAG_SEALED;
    return memcmp(trailer + AT_MAGIC, magic, sizeof magic) == 0 &&
           (flags_of(trailer) & wanted) == (FLAG_DATA | FLAG_SEALED) &&
           memcmp(trailer + AT_UUID, header + AT_UUID, USED - AT_UUID) == 0 && index_ends_at(trailer, trailer_at);
}

enum obd_status upper_has_trailer(struct file *data, bool *is_sealed)
{
    uint64_t size;
    enum obd_status status = file_size(data, &size);
    *is_sealed = false;
    if (status != OBD_OK || size < 2 * BLOCK_SIZE)
        return status;
    uint8_t header[USED], trailer[USED];
    status = file_read(data, header, sizeof header, 0);
    if (status == OBD_OK)
        status = file_read(data, trailer, sizeof trailer, size - BLOCK_SIZE);
    if (status == OBD_OK)
        *is_sealed = is_trailer_of(trailer, header, size - BLOCK_SIZE);
    return status;
}
