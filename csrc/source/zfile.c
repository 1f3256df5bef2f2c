/* zfile: reading blocks.
 *
 * A read walks the wanted blocks in spans: as many as fit the scratch are read
 * from below at once, then each is checked and decompressed, straight into the
 * caller's buffer when all of it is wanted and lies there in one piece.
 *
 * A miss does not end the walk: the spans that follow are read as well, only so
 * that the source below notes all that is absent (source.h).
 *
 * A block that fails its checksum or does not decompress is discarded below and
 * read again (suspects.h says how often), where discarding can help.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "source/zfile.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/log.h"
#include "codec/crc32c.h"
#include "source/zfile_scratch.h"

/* Bytes decompressed at once when a file is verified. */
#define VERIFY_SIZE (256u << 10)

/* One read on its way through the blocks. */
struct walk {
    struct zfile *zfile;
    const struct read_context *context;
    struct zfile_scratch *scratch;
    struct iov_cursor *cursor;
    uint64_t offset; /* of what is wanted next */
    uint64_t end;
};

static uint64_t block_end(const struct zfile *zfile, uint64_t block)
{
    return min_u64((block + 1) << zfile->block_shift, zfile->source.size);
}

/* ---- one block --------------------------------------------------------------- */

static enum obd_status bad_block(const struct zfile *zfile, uint64_t block, const char *what)
{
    return status_set(OBD_E_CORRUPT, "%s: block %llu of %llu, at byte %llu of the ZFile, %s", zfile->source.name,
                      (unsigned long long)block, (unsigned long long)zfile->table.nr_blocks,
                      (unsigned long long)jump_table_offset(&zfile->table, block), what);
}

static bool checksum_fits(const struct zfile *zfile, const uint8_t *stored, size_t length)
{
    uint32_t expected;
    if (zfile->checksum_size == 0)
        return true;
    memcpy(&expected, stored + length, sizeof expected);
    return crc32c_raw(stored, length, CRC32C_BLOCK_SEED) == le32toh(expected);
}

/* Checks and decompresses a block whose stored bytes are given into to. */
static enum obd_status decode(const struct zfile *zfile, uint64_t block, const uint8_t *stored, void *to)
{
    size_t stored_size = jump_table_offset(&zfile->table, block + 1) - jump_table_offset(&zfile->table, block);
    size_t length = block_end(zfile, block) - (block << zfile->block_shift);
    struct codec_context *codec_context = codec_context_of_thread();
    if (codec_context == NULL)
        return status_set(OBD_E_NO_MEMORY, "%s: no memory to decompress", zfile->source.name);
    stored_size -= zfile->checksum_size;
    if (!checksum_fits(zfile, stored, stored_size))
        return bad_block(zfile, block, "does not have its checksum");
    if (!zfile->codec->decompress(codec_context, stored, stored_size, to, length))
        return bad_block(zfile, block, "does not decompress");
    return OBD_OK;
}

/* Reads the stored bytes of blocks [first, last) into the span. */
static enum obd_status read_span(const struct walk *walk, uint64_t first, uint64_t last)
{
    const struct jump_table *table = &walk->zfile->table;
    uint64_t begin = jump_table_offset(table, first);
    size_t length = jump_table_offset(table, last) - begin;
    struct iovec iov = {.iov_base = walk->scratch->span, .iov_len = length};
    struct iov_cursor cursor = iov_cursor_at(&iov, 1);
    return source_read(walk->zfile->below, walk->context, &cursor, length, begin);
}

/* Has the source below forget a block that failed, so that it is fetched again. */
static bool discard_block(struct zfile *zfile, uint64_t block)
{
    uint64_t begin = jump_table_offset(&zfile->table, block);
    uint64_t length = jump_table_offset(&zfile->table, block + 1) - begin;
    if (!suspects_accuse(&zfile->suspects, block, clock_now_ns()))
        return false;
    if (source_discard(zfile->below, begin, length) != OBD_OK) {
        suspects_clear(&zfile->suspects, block);
        return false;
    }
    log_write(OBD_LOG_WARNING, "%s; it is read again", status_text());
    return true;
}

/* A block failed: reads it again, as often as that is allowed.  It goes to the
 * front of the span; blocks not delivered yet lie at least its length behind. */
static enum obd_status decode_again(const struct walk *walk, uint64_t block, void *to)
{
    enum obd_status status = OBD_E_CORRUPT;
    while (status == OBD_E_CORRUPT && discard_block(walk->zfile, block)) {
        status = read_span(walk, block, block + 1);
        if (status == OBD_OK)
            status = decode(walk->zfile, block, walk->scratch->span, to);
    }
    return status;
}

/* ---- walking ------------------------------------------------------------------ */

/* The part of block that is wanted goes to the cursor, through to. */
static enum obd_status deliver(struct walk *walk, uint64_t block, const uint8_t *stored)
{
    const struct zfile *zfile = walk->zfile;
    uint64_t begin = block << zfile->block_shift, end = block_end(zfile, block);
    size_t wanted = min_u64(end, walk->end) - walk->offset, contiguous;
    void *to = iov_cursor_peek(walk->cursor, wanted, &contiguous);
    bool is_direct = walk->offset == begin && wanted == end - begin && contiguous == wanted;
    if (!is_direct)
        to = walk->scratch->block;

    enum obd_status status = decode(zfile, block, stored, to);
    if (status == OBD_E_CORRUPT)
        status = decode_again(walk, block, to);
    if (status != OBD_OK)
        return status;
    suspects_clear(&walk->zfile->suspects, block);
    if (is_direct)
        iov_cursor_advance(walk->cursor, wanted);
    else
        iov_cursor_write(walk->cursor, walk->scratch->block + (walk->offset - begin), wanted);
    walk->offset += wanted;
    return OBD_OK;
}

/* One past the last block, from first on, that is wanted and fits the span. */
static uint64_t last_of_span(const struct walk *walk, uint64_t first)
{
    const struct zfile *zfile = walk->zfile;
    uint64_t last = first + 1, wanted_last = ((walk->end - 1) >> zfile->block_shift) + 1;
    uint64_t begin = jump_table_offset(&zfile->table, first);
    while (last < wanted_last && jump_table_offset(&zfile->table, last + 1) - begin <= ZFILE_SPAN_SIZE)
        last++;
    return last;
}

static enum obd_status deliver_span(struct walk *walk, uint64_t first, uint64_t last)
{
    const struct jump_table *table = &walk->zfile->table;
    uint64_t begin = jump_table_offset(table, first);
    enum obd_status status = OBD_OK;
    for (uint64_t block = first; block < last && status == OBD_OK; block++)
        status = deliver(walk, block, walk->scratch->span + (jump_table_offset(table, block) - begin));
    return status;
}

static enum obd_status walk_blocks(struct walk *walk)
{
    bool has_missed = false;
    while (walk->offset < walk->end) {
        uint64_t first = walk->offset >> walk->zfile->block_shift, last = last_of_span(walk, first);
        enum obd_status status = read_span(walk, first, last);
        if (status == OBD_OK && !has_missed)
            status = deliver_span(walk, first, last);
        if (status != OBD_OK && status != OBD_E_MISS)
            return status;
        has_missed |= status == OBD_E_MISS;
        if (has_missed) /* the cursor means nothing any more */
            walk->offset = last << walk->zfile->block_shift;
    }
    return has_missed ? OBD_E_MISS : OBD_OK;
}

static enum obd_status zfile_read(struct source *source, const struct read_context *context, struct iov_cursor *cursor,
                                  size_t length, uint64_t offset)
{
    struct walk walk = {
        .zfile = (struct zfile *)source,
        .context = context,
        .scratch = zfile_scratch_take(),
        .cursor = cursor,
        .offset = offset,
        .end = offset + length,
    };
    if (walk.scratch == NULL)
        return status_set(OBD_E_NO_MEMORY, "%s: no memory to decompress", source->name);
    enum obd_status status = walk_blocks(&walk);
    zfile_scratch_give(walk.scratch);
    return status;
}

static void zfile_destroy(struct source *source)
{
    struct zfile *zfile = (struct zfile *)source;
    jump_table_free(&zfile->table);
    source_unref(zfile->below);
    suspects_destroy(&zfile->suspects);
    free(zfile);
}

const struct source_ops zfile_ops = {.kind = "zfile", .read = zfile_read, .destroy = zfile_destroy};

enum obd_status source_verify_zfile(struct source *source, uint64_t first, uint64_t nr, uint64_t deadline_ns)
{
    if (source->ops != &zfile_ops)
        return status_set(OBD_E_INVALID, "%s is read as a %s, which has no blocks", source->name, source->ops->kind);
    const struct zfile *zfile = (const struct zfile *)source;
    if (!range_is_inside(first, nr, zfile->table.nr_blocks))
        return status_set(OBD_E_INVALID, "%s: blocks %llu to %llu of %llu", source->name, (unsigned long long)first,
                          (unsigned long long)(first + nr), (unsigned long long)zfile->table.nr_blocks);
    const uint64_t step = VERIFY_SIZE >> zfile->block_shift;
    uint8_t *buffer = malloc(VERIFY_SIZE);
    if (buffer == NULL)
        return status_set(OBD_E_NO_MEMORY, "%s: no memory to decompress", source->name);
    enum obd_status status = OBD_OK;
    for (uint64_t block = first; block < first + nr && status == OBD_OK; block += step) {
        uint64_t last = min_u64(block + step, first + nr);
        uint64_t begin = block << zfile->block_shift;
        status = source_read_wait(source, buffer, block_end(zfile, last - 1) - begin, begin, deadline_ns);
    }
    free(buffer);
    return status;
}
