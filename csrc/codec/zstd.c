/* zstd: one whole frame per block, level 3 (spec/zfile.md section 5).
 *
 * The contexts are made when they are first needed: a thread that only reads
 * never pays for compression.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "codec/codec_list.h"

#define LEVEL 3

static size_t bound(size_t length)
{
    size_t size = ZSTD_compressBound(length);
    return ZSTD_isError(size) ? 0 : size;
}

static size_t compress(struct codec_context *context, const void *from, size_t length, void *to, size_t capacity)
{
    if (context->zstd_compress == NULL)
        context->zstd_compress = ZSTD_createCCtx();
    if (context->zstd_compress == NULL)
        return 0;
    size_t stored = ZSTD_compressCCtx(context->zstd_compress, to, capacity, from, length, LEVEL);
    return ZSTD_isError(stored) ? 0 : stored;
}

static bool decompress(struct codec_context *context, const void *from, size_t stored, void *to, size_t length)
{
    if (context->zstd_decompress == NULL)
        context->zstd_decompress = ZSTD_createDCtx();
    if (context->zstd_decompress == NULL)
        return false;
    return ZSTD_decompressDCtx(context->zstd_decompress, to, length, from, stored) == length;
}

const struct codec codec_zstd = {
    .id = OBD_CODEC_ZSTD, .name = "zstd", .bound = bound, .compress = compress, .decompress = decompress};
