/* sector_model: a virtual disk as a plain array, to compare an index with.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SECTOR_MODEL_H
#define SECTOR_MODEL_H

#include "check.h"

#include "index/segment.h"

#define MODEL_SECTORS 4000

/* For each sector: which layer's, from where; layer -1: nobody's. */
struct sector_model {
    struct model_sector {
        int layer;
        uint64_t moffset; /* 0 when zeroed */
        bool zeroed;
    } sectors[MODEL_SECTORS];
};

static inline void model_clear(struct sector_model *model)
{
    for (size_t i = 0; i < MODEL_SECTORS; i++)
        model->sectors[i] = (struct model_sector){.layer = -1};
}

static inline void model_write(struct sector_model *model, struct segment s, int layer)
{
    for (uint64_t i = 0; i < s.length; i++)
        model->sectors[s.offset + i] =
            (struct model_sector){.layer = layer, .zeroed = s.zeroed, .moffset = s.zeroed ? 0 : s.moffset + i};
}

static inline bool model_sectors_equal(struct model_sector a, struct model_sector b)
{
    return a.layer == b.layer && a.moffset == b.moffset && a.zeroed == b.zeroed;
}

/* Sectors of [begin, end) read from segments, tags as layers, are the model's. */
static inline void model_compare(const struct sector_model *model, const struct segment *segments, size_t nr,
                                 uint64_t begin, uint64_t end)
{
    static struct sector_model got;
    model_clear(&got);
    for (size_t i = 0; i < nr; i++) {
        CHECK(segments[i].offset >= begin && segment_end(segments[i]) <= end);
        model_write(&got, segments[i], segments[i].tag);
    }
    for (uint64_t i = begin; i < end; i++)
        CHECK(model_sectors_equal(model->sectors[i], got.sectors[i]));
}

static inline struct segment random_segment(uint64_t max_length)
{
    uint64_t length = 1 + (uint64_t)random() % max_length;
    return (struct segment){.offset = (uint64_t)random() % (MODEL_SECTORS - length),
                            .length = length,
                            .moffset = (uint64_t)random() % 100000,
                            .zeroed = random() % 5 == 0};
}

#endif
