/* cached_source: opening and reading.
 *
 * What is all in the blob is read from there in one piece: the warm path, which
 * takes no lock but a try of read_ahead's.  Else the range is gone through chunk by
 * chunk, since some may be held in memory and some be absent; every absent one is
 * noted, also behind the first.  When a local file has taken over, nothing of this is
 * done any more (cached_switch.c).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cache/cached_source.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "cache/cached_state.h"

/* Of a cache so small that read-ahead would drive out what is read now. */
#define AHEAD_SHARE 16

/* ---- reading ------------------------------------------------------------------- */

/* A part of a read that lies in one chunk. */
struct piece {
    uint64_t chunk;
    uint64_t offset; /* in the blob */
    size_t length;
};

static struct piece piece_at(const struct cached *cached, uint64_t offset, uint64_t end)
{
    uint64_t chunk_size = blob_chunk_size(cached->blob), chunk = offset / chunk_size;
    return (struct piece){chunk, offset, min_u64(end, (chunk + 1) * chunk_size) - offset};
}

/* The chunk, if it is held, with a pin that keeps it so. */
static struct miss_entry *pin_held(struct cached *cached, uint64_t chunk)
{
    pthread_mutex_lock(&cached->table->lock);
    struct miss_entry *held = miss_table_find(cached->table, chunk, MISS_HELD, NULL);
    if (held != NULL)
        held->nr_pins++;
    pthread_mutex_unlock(&cached->table->lock);
    return held;
}

static void unpin_held(struct cached *cached, struct miss_entry *held)
{
    pthread_mutex_lock(&cached->table->lock);
    miss_entry_unpin(held);
    pthread_mutex_unlock(&cached->table->lock);
}

static enum obd_status read_piece(struct cached *cached, const struct read_context *context, struct iov_cursor *cursor,
                                  const struct piece *piece)
{
    struct miss_entry *held = pin_held(cached, piece->chunk);
    if (held == NULL)
        return blob_read(cached->blob, cursor, piece->length, piece->offset, context->nowait);
    iov_cursor_write(cursor, (const char *)held->bytes + piece->offset % blob_chunk_size(cached->blob), piece->length);
    unpin_held(cached, held);
    return OBD_OK;
}

/* As read_piece, when nobody can use the bytes any more because some are missing. */
static enum obd_status look_at_piece(struct cached *cached, const struct piece *piece)
{
    struct miss_entry *held = pin_held(cached, piece->chunk);
    if (held != NULL)
        unpin_held(cached, held);
    bool is_here = held != NULL || blob_first_absent(cached->blob, piece->chunk, piece->chunk) < 0;
    return is_here ? OBD_OK : OBD_E_MISS;
}

static enum obd_status read_pieces(struct cached *cached, const struct read_context *context, struct iov_cursor *cursor,
                                   size_t length, uint64_t offset)
{
    bool has_missed = false;
    for (uint64_t end = offset + length; offset < end;) {
        struct piece piece = piece_at(cached, offset, end);
        enum obd_status status =
            has_missed ? look_at_piece(cached, &piece) : read_piece(cached, context, cursor, &piece);
        if (status == OBD_E_MISS) {
            has_missed = true;
            status =
                demand_add(context->demand, &cached->source, piece.chunk, blob_chunk_bytes(cached->blob, piece.chunk));
        }
        if (status != OBD_OK && status != OBD_E_MISS)
            return status;
        offset += piece.length;
    }
    return has_missed ? OBD_E_MISS : OBD_OK;
}

static enum obd_status read_through(struct cached *cached, const struct read_context *context,
                                    struct iov_cursor *cursor, size_t length, uint64_t offset)
{
    enum obd_status status = blob_read(cached->blob, cursor, length, offset, context->nowait);
    return status == OBD_E_MISS ? read_pieces(cached, context, cursor, length, offset) : status;
}

/* What a command waited for was fetched, even when another command had asked first. */
static enum obd_provenance provenance_of(const struct cached *cached, const struct demand *demand, size_t length,
                                         uint64_t offset)
{
    uint32_t chunk_size = blob_chunk_size(cached->blob);
    uint64_t first = offset / chunk_size, last = (offset + length - 1) / chunk_size;
    return demand_has_brought(demand, &cached->source, first, last) ? OBD_FROM_REGISTRY : OBD_FROM_CACHE;
}

static void count_hit(struct cached *cached, size_t length, uint64_t offset)
{
    uint32_t chunk_size = blob_chunk_size(cached->blob);
    atomic_fetch_add_explicit(&cached->cached_bytes, length, memory_order_relaxed);
    blob_count_hits(cached->blob, (offset + length - 1) / chunk_size - offset / chunk_size + 1);
}

/* Somebody waits for it, so it counts, and says what will be read next. */
static enum obd_status read_for_command(struct cached *cached, const struct read_context *context,
                                        struct iov_cursor *cursor, size_t length, uint64_t offset)
{
    bool has_missed_nothing = list_is_empty(&context->demand->misses);
    read_ahead_note(&cached->ahead, offset, length);
    enum obd_status status = read_through(cached, context, cursor, length, offset);
    if (status != OBD_OK)
        return status;
    provenance_note(&context->demand->provenance, provenance_of(cached, context->demand, length, offset));
    if (has_missed_nothing)
        count_hit(cached, length, offset);
    if (cached_read_ahead(cached)) /* after a miss it begins together with what was missed */
        fetch_begin(cached->origin);
    return OBD_OK;
}

enum obd_status cached_read_blob(struct cached *cached, const struct read_context *context, struct iov_cursor *cursor,
                                 size_t length, uint64_t offset)
{
    if (context->demand->is_background)
        return read_through(cached, context, cursor, length, offset);
    return read_for_command(cached, context, cursor, length, offset);
}

static enum obd_status cached_read(struct source *source, const struct read_context *context, struct iov_cursor *cursor,
                                   size_t length, uint64_t offset)
{
    struct cached *cached = (struct cached *)source;
    if (cached_is_local(cached))
        return cached_read_local(cached, context, cursor, length, offset);
    return cached_read_blob(cached, context, cursor, length, offset);
}

/* ---- opening --------------------------------------------------------------------- */

/* No request is open, nothing is pinned and nothing is fetched: all of these hold a
 * reference. */
static void cached_destroy(struct source *source)
{
    struct cached *cached = (struct cached *)source;
    read_ahead_destroy(&cached->ahead);
    blob_close(cached->blob);
    origin_unref(cached->origin);
    source_unref(cached->taken);
    free(cached);
}

static const struct source_ops cached_ops = {.kind = "cached",
                                             .read = cached_read,
                                             .request = cached_request,
                                             .begin = cached_begin,
                                             .cancel = cached_cancel,
                                             .release = cached_release,
                                             .discard = cached_discard,
                                             .destroy = cached_destroy};

static uint64_t ahead_window(struct cache *cache)
{
    struct obd_cache_stats stats;
    cache_stats(cache, &stats);
    return min_u64(READ_AHEAD_MAX_WINDOW, stats.limit_bytes / AHEAD_SHARE);
}

enum obd_status source_open_cached(struct cache *cache, struct origin *origin, const uint8_t digest[32],
                                   struct source **out)
{
    struct cached *cached = calloc(1, sizeof *cached);
    if (cached == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to open %s", origin_name(origin));
    enum obd_status status = source_init(&cached->source, &cached_ops, origin_size(origin), origin_name(origin));
    if (status == OBD_OK)
        status = blob_open(cache, digest, origin_size(origin), &cached->blob);
    if (status != OBD_OK) {
        free(cached->source.name);
        free(cached);
        return status;
    }
    cached->table = blob_miss_table(cached->blob);
    cached->origin = origin_ref(origin);
    atomic_init(&cached->cached_bytes, 0);
    atomic_init(&cached->local, NULL);
    read_ahead_init(&cached->ahead, cached->source.size, blob_chunk_size(cached->blob), ahead_window(cache));
    *out = &cached->source;
    return OBD_OK;
}

/* ---- for tools ---------------------------------------------------------------------- */

enum obd_status cached_check_kind(const struct source *source)
{
    if (source->ops == &cached_ops)
        return OBD_OK;
    return status_set(OBD_E_INVALID, "%s is read as a %s, not through a cache", source->name, source->ops->kind);
}

enum obd_status cached_source_prefetch(struct source *source, uint64_t offset, uint64_t length)
{
    enum obd_status status = cached_check_kind(source);
    if (status != OBD_OK || length == 0)
        return status;
    if (!range_is_inside(offset, length, source->size))
        return status_set(OBD_E_RANGE, "%s: %llu bytes at %llu are outside of its %llu", source->name,
                          (unsigned long long)length, (unsigned long long)offset, (unsigned long long)source->size);
    struct cached *cached = (struct cached *)source;
    if (cached_is_local(cached))
        return OBD_OK;
    uint64_t chunk_size = blob_chunk_size(cached->blob);
    status = cached_fetch_ahead(cached, offset / chunk_size, (offset + length - 1) / chunk_size);
    fetch_begin(cached->origin);
    return status;
}

enum obd_status cached_source_stats(struct source *source, struct obd_cached_source_stats *stats)
{
    enum obd_status status = cached_check_kind(source);
    if (status != OBD_OK)
        return status;
    struct cached *cached = (struct cached *)source;
    struct origin_stats fetched;
    origin_stats(cached->origin, &fetched);
    *stats = (struct obd_cached_source_stats){
        .fetched_bytes = fetched.fetched_bytes,
        .nr_requests = fetched.nr_requests,
        .cached_bytes = atomic_load_explicit(&cached->cached_bytes, memory_order_relaxed),
        .present_bytes = blob_present_bytes(cached->blob),
        .chunk_size = blob_chunk_size(cached->blob),
        .is_local = cached_is_local(cached),
    };
    _Static_assert(sizeof stats->nr_errors == sizeof fetched.nr_errors, "one for each status");
    memcpy(stats->nr_errors, fetched.nr_errors, sizeof fetched.nr_errors);
    return OBD_OK;
}
