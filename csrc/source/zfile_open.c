/* zfile_open: what a ZFile says about itself, checked before it is believed.
 *
 * Python has parsed the header or trailer; here its numbers are checked against
 * each other and against the size of the file, before anything is allocated by
 * them, and the jump table piece by piece.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "codec/crc32c.h"
#include "source/zfile.h"

#define MAX_BLOCKS UINT64_C(1000000000) /* spec/zfile.md section 6 */

/* Stored lengths read and checked at once: 1 MiB. */
#define PIECE_BLOCKS (UINT64_C(1) << 18)

uint32_t zfile_max_stored(const struct codec *codec, uint32_t block_size)
{
    return (uint32_t)max_u64(codec->bound(block_size), block_size + ZFILE_STORED_SLACK) + ZFILE_CHECKSUM_SIZE;
}

static enum obd_status check_codec(const struct source *below, const struct obd_zfile_params *params)
{
    if (codec_find((enum obd_codec)params->codec) == NULL)
        return status_set(OBD_E_UNSUPPORTED, "%s: ZFile algorithm %u is not one we know (1 lz4, 2 zstd)", below->name,
                          params->codec);
    if (!is_power_of_two(params->block_size) || params->block_size < ZFILE_MIN_BLOCK_SIZE ||
        params->block_size > ZFILE_MAX_BLOCK_SIZE)
        return status_set(OBD_E_CORRUPT, "%s: ZFile block size %u is not a power of two from %u to %u", below->name,
                          params->block_size, ZFILE_MIN_BLOCK_SIZE, ZFILE_MAX_BLOCK_SIZE);
    return OBD_OK;
}

static uint64_t blocks_of(uint64_t original_size, uint32_t block_size)
{
    return original_size / block_size + (original_size % block_size != 0);
}

static enum obd_status check_counts(const struct source *below, const struct obd_zfile_params *params)
{
    uint64_t nr = params->nr_blocks;
    if (nr > MAX_BLOCKS)
        return status_set(OBD_E_CORRUPT, "%s: ZFile of %llu blocks, more than %llu", below->name,
                          (unsigned long long)nr, (unsigned long long)MAX_BLOCKS);
    if (nr != blocks_of(params->original_size, params->block_size))
        return status_set(OBD_E_CORRUPT, "%s: ZFile of %llu blocks of %u bytes cannot hold %llu bytes", below->name,
                          (unsigned long long)nr, params->block_size, (unsigned long long)params->original_size);
    if (!range_is_inside(params->index_offset, nr * sizeof(uint32_t), below->size))
        return status_set(OBD_E_CORRUPT, "%s: jump table of %llu blocks at %llu is outside of the file's %llu bytes",
                          below->name, (unsigned long long)nr, (unsigned long long)params->index_offset,
                          (unsigned long long)below->size);
    /* One stored byte per block at the least. */
    if (!range_is_inside(ZFILE_HEADER_SIZE, nr, params->index_offset))
        return status_set(OBD_E_CORRUPT, "%s: %llu blocks have no room before the jump table at %llu", below->name,
                          (unsigned long long)nr, (unsigned long long)params->index_offset);
    return OBD_OK;
}

/* Reads and builds the next piece of the table; *crc goes along. */
static enum obd_status load_piece(struct zfile *zfile, const struct obd_zfile_params *params,
                                  const struct jump_table_rules *rules, uint32_t *crc, uint64_t deadline_ns)
{
    struct jump_table *table = &zfile->table;
    uint64_t nr = min_u64(PIECE_BLOCKS, table->nr_blocks - table->nr_built);
    uint32_t *lengths = table->offsets + table->nr_built;
    enum obd_status status = source_read_wait(zfile->below, lengths, nr * sizeof *lengths,
                                              params->index_offset + table->nr_built * sizeof *lengths, deadline_ns);
    if (status != OBD_OK)
        return status;
    *crc = crc32c_raw(lengths, nr * sizeof *lengths, *crc);
    status = jump_table_build(table, nr, rules);
    return status == OBD_OK ? OBD_OK : status_prefix(status, "%s", zfile->below->name);
}

static enum obd_status load_table(struct zfile *zfile, const struct obd_zfile_params *params, uint64_t deadline_ns)
{
    struct jump_table_rules rules = {
        .first_offset = ZFILE_HEADER_SIZE,
        .end = params->index_offset,
        .min_stored = zfile->checksum_size + 1,
        .max_stored = zfile_max_stored(zfile->codec, zfile->block_size),
    };
    uint32_t crc = 0;
    enum obd_status status = jump_table_new(&zfile->table, params->nr_blocks, &rules);
    while (status == OBD_OK && zfile->table.nr_built < params->nr_blocks)
        status = load_piece(zfile, params, &rules, &crc, deadline_ns);
    if (status == OBD_OK && params->has_index_crc && crc != params->index_crc)
        status = status_set(OBD_E_CORRUPT, "%s: jump table: checksum is %08x, not %08x", zfile->below->name, crc,
                            params->index_crc);
    return status;
}

static struct zfile *new_zfile(struct source *below, const struct obd_zfile_params *params)
{
    struct zfile *zfile = calloc(1, sizeof *zfile);
    if (zfile == NULL)
        return NULL;
    zfile->codec = codec_find((enum obd_codec)params->codec);
    zfile->block_size = params->block_size;
    zfile->block_shift = (uint32_t)__builtin_ctz(params->block_size);
    zfile->checksum_size = params->has_block_crc ? ZFILE_CHECKSUM_SIZE : 0;
    suspects_init(&zfile->suspects);
    zfile->below = source_ref(below);
    return zfile;
}

enum obd_status source_open_zfile(struct source *below, const struct obd_zfile_params *params, uint64_t deadline_ns,
                                  struct source **out)
{
    enum obd_status status = check_codec(below, params);
    if (status == OBD_OK)
        status = check_counts(below, params);
    if (status != OBD_OK)
        return status;
    struct zfile *zfile = new_zfile(below, params);
    if (zfile == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to open %s", below->name);
    status = source_init(&zfile->source, &zfile_ops, params->original_size, below->name);
    if (status == OBD_OK)
        status = load_table(zfile, params, deadline_ns);
    if (status != OBD_OK) {
        source_unref(&zfile->source);
        return status;
    }
    *out = &zfile->source;
    return OBD_OK;
}
