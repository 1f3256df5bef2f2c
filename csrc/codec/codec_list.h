/* codec_list: the codecs there are, and what their context holds.  For codec/ only.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CODEC_CODEC_LIST_H
#define OBD_CODEC_CODEC_LIST_H

#include <zstd.h>

#include "codec/codec.h"

struct codec_context {
    ZSTD_CCtx *zstd_compress;   /* NULL until a thread compresses */
    ZSTD_DCtx *zstd_decompress; /* NULL until it meets a zstd block */
};

extern const struct codec codec_lz4;
extern const struct codec codec_zstd;

#endif
