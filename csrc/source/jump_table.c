/* jump_table: from stored lengths to running sums, in place.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "source/jump_table.h"

#include <assert.h>
#include <endian.h>
#include <stdlib.h>

/* Notes where block nr_built begins, which is where the one before it ends. */
static void set_begin(struct jump_table *table)
{
    uint64_t group = table->nr_built >> JUMP_TABLE_GROUP_SHIFT;
    if (table->nr_built == group << JUMP_TABLE_GROUP_SHIFT)
        table->bases[group] = table->end;
    table->offsets[table->nr_built] = (uint32_t)(table->end - table->bases[group]);
}

enum obd_status jump_table_new(struct jump_table *table, uint64_t nr_blocks, const struct jump_table_rules *rules)
{
    uint64_t nr_bases = (nr_blocks >> JUMP_TABLE_GROUP_SHIFT) + 1;
    assert(rules->first_offset <= rules->end);
    *table = (struct jump_table){.nr_blocks = nr_blocks, .end = rules->first_offset};
    table->bases = malloc(nr_bases * sizeof *table->bases);
    table->offsets = malloc((nr_blocks + 1) * sizeof *table->offsets);
    if (table->bases == NULL || table->offsets == NULL) {
        jump_table_free(table);
        return status_set(OBD_E_NO_MEMORY, "no memory for a jump table of %llu blocks", (unsigned long long)nr_blocks);
    }
    if (nr_blocks == 0)
        set_begin(table);
    return OBD_OK;
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

enum obd_status jump_table_build(struct jump_table *table, uint64_t nr, const struct jump_table_rules *rules)
{
    assert(nr <= table->nr_blocks - table->nr_built);
    for (uint64_t i = 0; i < nr; i++) {
        uint32_t stored = le32toh(table->offsets[table->nr_built]); /* which set_begin overwrites */
        enum obd_status status = check_length(stored, table->nr_built, table->end, rules);
        if (status != OBD_OK)
            return status;
        set_begin(table);
        table->nr_built++;
        table->end += stored; /* at most rules->end */
    }
    if (table->nr_built == table->nr_blocks)
        set_begin(table);
    return OBD_OK;
}

void jump_table_free(struct jump_table *table)
{
    free(table->bases);
    free(table->offsets);
    *table = (struct jump_table){0};
}
