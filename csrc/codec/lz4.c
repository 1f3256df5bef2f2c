/* lz4: raw LZ4 blocks, as LZ4_compress_default makes them (spec/zfile.md section 5).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "codec/codec_list.h"

#include <limits.h>
#include <lz4.h>

static size_t bound(size_t length)
{
    return length > LZ4_MAX_INPUT_SIZE ? 0 : (size_t)LZ4_compressBound((int)length);
}

static size_t compress(struct codec_context *context, const void *from, size_t length, void *to, size_t capacity)
{
    (void)context;
    if (length > LZ4_MAX_INPUT_SIZE || capacity > INT_MAX)
        return 0;
    int stored = LZ4_compress_default(from, to, (int)length, (int)capacity);
    return stored > 0 ? (size_t)stored : 0;
}

static bool decompress(struct codec_context *context, const void *from, size_t stored, void *to, size_t length)
{
    (void)context;
    if (stored > INT_MAX || length > INT_MAX)
        return false;
    return LZ4_decompress_safe(from, to, (int)stored, (int)length) == (int)length;
}

const struct codec codec_lz4 = {
    .id = OBD_CODEC_LZ4, .name = "lz4", .bound = bound, .compress = compress, .decompress = decompress};
