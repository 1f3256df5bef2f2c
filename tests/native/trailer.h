/* trailer: what Python writes at the end of a data file that is sealed (spec/lsmt.md section 2).
 *
 * The headers of test files are zero, and so is the UUID that both must share.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TRAILER_H
#define TRAILER_H

#include <endian.h>
#include <string.h>

#include "obd.h"

static inline void trailer_fill(unsigned char trailer[4096], const struct obd_sealed_index *index)
{
    static const unsigned char magic[24] = {0x4c, 0x53, 0x4d, 0x54, 0x00, 0x01, 0x02, 0x00, 0x65, 0x7e, 0x63, 0xd2,
                                            0x94, 0x44, 0x08, 0x4c, 0xa2, 0xd2, 0xc8, 0xec, 0x4f, 0xcf, 0xae, 0x8a};
    uint32_t flags = htole32(6);
    uint64_t offset = htole64(index->index_offset), nr = htole64(index->nr_entries);
    memset(trailer, 0, 4096);
    memcpy(trailer, magic, sizeof magic);
    memcpy(trailer + 28, &flags, sizeof flags);
    memcpy(trailer + 32, &offset, sizeof offset);
    memcpy(trailer + 40, &nr, sizeof nr);
}

#endif
