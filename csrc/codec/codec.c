/* codec: the table of codecs, and the context each thread keeps.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "codec/codec.h"

#include <pthread.h>
#include <stdlib.h>

#include "codec/codec_list.h"

const struct codec *codec_find(enum obd_codec id)
{
    switch (id) {
    case OBD_CODEC_LZ4:
        return &codec_lz4;
    case OBD_CODEC_ZSTD:
        return &codec_zstd;
    default:
        return NULL;
    }
}

enum obd_status codec_context_new(struct codec_context **out)
{
    *out = calloc(1, sizeof **out);
    return *out != NULL ? OBD_OK : status_set(OBD_E_NO_MEMORY, "no memory for a codec context");
}

void codec_context_free(struct codec_context *context)
{
    if (context == NULL)
        return;
    ZSTD_freeCCtx(context->zstd_compress);
    ZSTD_freeDCtx(context->zstd_decompress);
    free(context);
}

/* The key only serves to free the context when its thread ends. */
static pthread_key_t key;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static bool has_key;
static _Thread_local struct codec_context *of_thread;

static void free_of_thread(void *context)
{
    of_thread = NULL;
    codec_context_free(context);
}

static void make_key(void)
{
    has_key = pthread_key_create(&key, free_of_thread) == 0;
}

static struct codec_context *make_of_thread(void)
{
    struct codec_context *context;
    pthread_once(&key_once, make_key);
    if (!has_key || codec_context_new(&context) != OBD_OK)
        return NULL;
    if (pthread_setspecific(key, context) != 0) {
        codec_context_free(context);
        return NULL;
    }
    return of_thread = context;
}

struct codec_context *codec_context_of_thread(void)
{
    return of_thread != NULL ? of_thread : make_of_thread();
}
