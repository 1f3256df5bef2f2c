/* segment: one entry of an LSMT index, on disk and in memory the same 16 bytes.
 *
 * A segment says where length sectors of the virtual disk, from offset on, lie
 * in a layer file (spec/lsmt.md section 3; a sector is 512 bytes):
 *
 *   word 0   bits  0..49  offset   first sector on the virtual disk
 *            bits 50..63  length   sectors, 0..16383
 *   word 1   bits  0..54  moffset  first sector in the layer file
 *            bit  55      zeroed   reads as zeros, hides lower layers, no data
 *            bits 56..63  tag      which layer (in memory: 0 is the top one)
 *
 * The words are little-endian on disk; segments_from_disk() turns them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_INDEX_SEGMENT_H
#define OBD_INDEX_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct segment {
    uint64_t offset : 50;
    uint64_t length : 14;
    uint64_t moffset : 55;
    uint64_t zeroed : 1;
    uint64_t tag : 8;
};

_Static_assert(sizeof(struct segment) == 16, "a segment is 16 bytes on disk");

#define SEGMENT_MAX_LENGTH  16383u
#define SEGMENT_MAX_OFFSET  ((UINT64_C(1) << 50) - 1)
#define SEGMENT_MAX_MOFFSET ((UINT64_C(1) << 55) - 1)

/* The offset that marks an entry as padding (spec/lsmt.md section 1). */
#define SEGMENT_INVALID_OFFSET SEGMENT_MAX_OFFSET

static inline uint64_t segment_end(struct segment s)
{
    return (uint64_t)s.offset + s.length;
}

/* One past the last sector used in the layer file. */
static inline uint64_t segment_mapped_end(struct segment s)
{
    return (uint64_t)s.moffset + (s.zeroed ? 0 : s.length);
}

/* s without its first sectors; sectors < s.length. */
static inline struct segment segment_trim_front(struct segment s, uint64_t sectors)
{
    s.offset += sectors;
    s.length -= sectors;
    if (!s.zeroed)
        s.moffset += sectors;
    return s;
}

/* The part of s inside [begin, end); they must overlap. */
static inline struct segment segment_clip(struct segment s, uint64_t begin, uint64_t end)
{
    if (s.offset < begin)
        s = segment_trim_front(s, begin - s.offset);
    if (segment_end(s) > end)
        s.length = end - s.offset;
    return s;
}

#endif
