/* jump_table: where each block of a ZFile lies in the file.
 *
 * The file keeps one stored length per block (spec/zfile.md section 1); the table
 * keeps their running sums, as a 64-bit base for each group of blocks and a
 * 32-bit offset from it for each block: 4.1 bytes per block, found in one step.
 *
 * It is built piece by piece, each checked before the next is read: a table that
 * lies is refused at its first lie, and a sparse file that claims a billion blocks
 * costs the memory of one piece.  Immutable from then on.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_SOURCE_JUMP_TABLE_H
#define OBD_SOURCE_JUMP_TABLE_H

#include "base/status.h"

/* Small enough that the sum of a group's lengths, each below 2^17, fits 32 bits. */
#define JUMP_TABLE_GROUP_SHIFT 6

struct jump_table {
    uint64_t *bases;   /* owned; one per started group */
    uint32_t *offsets; /* owned; of block i from its group's base, and one more for the end */
    uint64_t nr_blocks;
    uint64_t nr_built;
    uint64_t end; /* of the last block built */
};

/* What the stored lengths must satisfy. */
struct jump_table_rules {
    uint64_t first_offset; /* of block 0 in the file */
    uint64_t end;          /* no block reaches past it */
    uint32_t min_stored;   /* of one block, its checksum included */
    uint32_t max_stored;
};

/* Room for nr_blocks lengths, for the caller to fill as they lie in the file. */
enum obd_status jump_table_new(struct jump_table *table, uint64_t nr_blocks, const struct jump_table_rules *rules);

/* Turns the next nr little-endian lengths in offsets into sums, and checks them. */
enum obd_status jump_table_build(struct jump_table *table, uint64_t nr, const struct jump_table_rules *rules);

void jump_table_free(struct jump_table *table);

/* Where block begins; block == nr_blocks: where the last one ends.  All are built. */
static inline uint64_t jump_table_offset(const struct jump_table *table, uint64_t block)
{
    return table->bases[block >> JUMP_TABLE_GROUP_SHIFT] + table->offsets[block];
}

#endif
