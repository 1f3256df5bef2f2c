/* zfile: the decompressed view of a ZFile (spec/zfile.md).
 *
 * zfile_open.c reads and checks the jump table, zfile.c reads blocks.  For
 * source/ only; others see source_open_zfile().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_SOURCE_ZFILE_H
#define OBD_SOURCE_ZFILE_H

#include "codec/codec.h"
#include "source/jump_table.h"
#include "source/source.h"
#include "source/suspects.h"

#define ZFILE_HEADER_SIZE    512u
#define ZFILE_CHECKSUM_SIZE  4u
#define ZFILE_MIN_BLOCK_SIZE 512u
#define ZFILE_MAX_BLOCK_SIZE 65536u

/* What a writer's output buffer has beyond the block size; the reference's. */
#define ZFILE_STORED_SLACK 512u

struct zfile {
    struct source source; /* first */
    struct source *below; /* referenced */
    const struct codec *codec;
    uint32_t block_size;
    uint32_t block_shift;
    uint32_t checksum_size; /* 0 or ZFILE_CHECKSUM_SIZE */
    struct jump_table table;
    struct suspects suspects;
};

extern const struct source_ops zfile_ops;

/* Largest stored length of one block, its checksum included. */
uint32_t zfile_max_stored(const struct codec *codec, uint32_t block_size);

#endif
