/* upper_sparse: see upper_sparse.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/upper_sparse.h"

#include <sys/stat.h>

#include "base/checked.h"

/* A write over more segments than this is not looked at closely: a new entry for it is
 * right too, and makes one segment of many. */
#define MAX_SEGMENTS 64

enum obd_status upper_sparse_stretch(struct upper *upper, uint64_t size)
{
    uint64_t length;
    enum obd_status status = file_size(upper->data, &length);
    if (status == OBD_OK && length < upper_sparse_place(size))
        status = file_truncate(upper->data, upper_sparse_place(size));
    return status;
}

bool upper_sparse_is_data(struct upper *upper, uint64_t offset, uint64_t length)
{
    struct segment found[MAX_SEGMENTS];
    uint64_t at = offset >> SECTOR_SHIFT, end = (offset + length) >> SECTOR_SHIFT;
    size_t nr = segment_map_lookup(upper->map, at, end, found, MAX_SEGMENTS);
    for (size_t i = 0; i < nr; i++) {
        if (found[i].offset != at || found[i].zeroed)
            return false;
        at = segment_end(found[i]);
    }
    return at == end;
}

enum obd_status upper_sparse_punch(struct upper *upper, uint64_t offset, uint64_t length)
{
    enum obd_status status = file_punch(upper->data, upper_sparse_place(offset), length);
    return status == OBD_E_UNSUPPORTED ? OBD_OK : status;
}

/* Neighbours that continue each other, as one. */
struct run {
    uint64_t begin, end;
    bool zeroed;
};

/* Writes run as segments to out; returns their number, which is not more than it was made of. */
static size_t cut_run(struct run run, uint8_t tag, struct segment *out)
{
    size_t nr = 0;
    while (run.begin < run.end) {
        uint64_t length = min_u64(run.end - run.begin, SEGMENT_MAX_LENGTH);
        out[nr++] = (struct segment){.offset = run.begin,
                                     .length = length,
                                     .moffset = upper_sparse_place(run.begin << SECTOR_SHIFT) >> SECTOR_SHIFT,
                                     .zeroed = run.zeroed,
                                     .tag = tag};
        run.begin += length;
    }
    return nr;
}

void upper_sparse_normalize(struct segment_array *segments)
{
    size_t nr = 0;
    struct run run = {0};
    for (size_t i = 0; i < segments->nr; i++) {
        struct segment s = segments->segments[i];
        if (run.end == s.offset && run.zeroed == s.zeroed && run.begin < run.end) {
            run.end = segment_end(s);
            continue;
        }
        nr += cut_run(run, s.tag, segments->segments + nr);
        run = (struct run){.begin = s.offset, .end = segment_end(s), .zeroed = s.zeroed};
    }
    if (segments->nr > 0)
        nr += cut_run(run, segments->segments[segments->nr - 1].tag, segments->segments + nr);
    segments->nr = nr;
}

uint64_t upper_sparse_bytes(struct upper *upper)
{
    struct stat st;
    return fstat(file_fd(upper->data), &st) == 0 ? (uint64_t)st.st_blocks * SECTOR_SIZE : 0;
}
