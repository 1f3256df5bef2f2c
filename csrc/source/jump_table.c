/* jump_table: from stored lengths to running sums, in place.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "source/jump_table.h"

#include <endian.h>
#include <stdlib.h>

enum obd_status jump_table_new(struct jump_table *table, uint64_t nr_blocks)
{
    uint64_t nr_bases = (nr_blocks >> JUMP_TABLE_GROUP_SHIFT) + 1;
    table->nr_blocks = nr_blocks;
    table->bases = malloc(nr_bases * sizeof *table->bases);
    table->offsets = malloc((nr_blocks + 1) * sizeof *table->offsets);
    if (table->bases != NULL && table->offsets != NULL)
        return OBD_OK;
    jump_table_free(table);
    return status_set(OBD_E_NO_MEMORY, "no memory for a jump table of %llu blocks", (unsigned long long)nr_blocks);
}

static enum obd_status check_length(uint32_t stored, uint64_t block, uint64_t offset,
                                    const struct jump_table_rules *rules)
{
    if (stored < rules->min_stored || stored > rules->max_stored)
        return status_set(OBD_E_CORRUPT, "jump table: block %llu is %u bytes long, not %u to %u",
                          (unsigned long long)block, stored, rules->min_stored, rules->max_stored);
    if (stored > rules->end - offset)
        return status_set(OBD_E_CORRUPT, "jump table: block %llu ends at %llu, past the end of the blocks at %llu",
                          (unsigned long long)block, (unsigned long long)(offset + stored),
                          (unsigned long long)rules->end);
    return OBD_OK;
}

enum obd_status jump_table_build(struct jump_table *table, const struct jump_table_rules *rules)
{
    const uint64_t in_group = (1u << JUMP_TABLE_GROUP_SHIFT) - 1;
    uint64_t offset = rules->first_offset, base = offset;
    if (offset > rules->end)
        return status_set(OBD_E_CORRUPT, "jump table: the blocks would end at %llu, before their begin at %llu",
                          (unsigned long long)rules->end, (unsigned long long)offset);
    for (uint64_t block = 0; block < table->nr_blocks; block++) {
        uint32_t stored = le32toh(table->offsets[block]);
        enum obd_status status = check_length(stored, block, offset, rules);
        if (status != OBD_OK)
            return status;
        if ((block & in_group) == 0)
            table->bases[block >> JUMP_TABLE_GROUP_SHIFT] = base = offset;
        table->offsets[block] = (uint32_t)(offset - base);
        offset += stored; /* at most rules->end */
    }
    if ((table->nr_blocks & in_group) == 0)
        table->bases[table->nr_blocks >> JUMP_TABLE_GROUP_SHIFT] = base = offset;
    table->offsets[table->nr_blocks] = (uint32_t)(offset - base);
    return OBD_OK;
}

void jump_table_free(struct jump_table *table)
{
    free(table->bases);
    free(table->offsets);
    *table = (struct jump_table){0};
}
