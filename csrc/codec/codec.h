/* codec: lz4 and zstd behind one struct.
 *
 * A ZFile stores each block as one raw LZ4 block or one zstd frame
 * (spec/zfile.md section 5).  A codec is a constant; the context holds what a
 * thread needs to work with it and is used by one thread at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CODEC_CODEC_H
#define OBD_CODEC_CODEC_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

struct codec_context;

struct codec {
    enum obd_codec id;
    const char *name;
    /* Largest compressed size of length bytes. */
    size_t (*bound)(size_t length);
    /* The compressed size; 0 when it failed or did not fit. */
    size_t (*compress)(struct codec_context *context, const void *from, size_t length, void *to, size_t capacity);
    /* True when from holds exactly length bytes, which are now in to; a stream
     * that makes fewer, more, or nothing is damaged. */
    bool (*decompress)(struct codec_context *context, const void *from, size_t stored, void *to, size_t length);
};

/* NULL for an id this build does not know. */
const struct codec *codec_find(enum obd_codec id);

enum obd_status codec_context_new(struct codec_context **out);
void codec_context_free(struct codec_context *context);

/* This thread's own context, made on first use and freed when the thread ends;
 * NULL when there is no memory. */
struct codec_context *codec_context_of_thread(void);

#endif
