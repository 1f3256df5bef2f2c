/* cached_state: what the files of the cached source share.
 *
 *   cached_source.c   opening, reading, statistics
 *   cached_request.c  the life of a miss: request, arrival, cancel, release
 *   cached_switch.c   a local file takes over
 *
 * Locks: miss_table.lock, then those of the fetcher and of the blob.  None is held
 * while demand_arrived is called: what is ready then may read from us, or let go of
 * our last reference, on whatever thread that is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_CACHED_STATE_H
#define OBD_CACHE_CACHED_STATE_H

#include "cache/cached_source.h"
#include "cache/read_ahead.h"

struct cached {
    struct source source; /* first */
    struct blob *blob;
    struct miss_table *table; /* the blob's */
    struct origin *origin;    /* counted */
    struct read_ahead ahead;
    atomic_uint_fast64_t cached_bytes;

    struct source *taken;           /* the local file that took over, if ever one did; counted, and kept to
                                       the end, so that reads need no reference; guarded by table->lock */
    _Atomic(struct source *) local; /* taken, while reads go there; set under table->lock */
};

/* The source_ops of the same names. */
void cached_request(struct source *source, struct miss *miss);
void cached_begin(struct source *source);
bool cached_cancel(struct source *source, struct miss *miss);
void cached_release(struct source *source, uint64_t chunk);
enum obd_status cached_discard(struct source *source, uint64_t offset, uint64_t length);

/* Fetches what is absent of chunks [first, last], for nobody. */
enum obd_status cached_fetch_ahead(struct cached *cached, uint64_t first, uint64_t last);

/* Under the table's lock: a wanted entry that nobody waits for any more goes. */
void cached_abandon(struct miss_entry *entry);

/* What is planned by now; false: nothing.  It begins with the next fetch_begin. */
bool cached_read_ahead(struct cached *cached);

/* ---- cached_switch.c ------------------------------------------------------------- */

static inline bool cached_is_local(struct cached *cached)
{
    return atomic_load_explicit(&cached->local, memory_order_relaxed) != NULL;
}

/* Reads from the local file, or as ever when it has just been given up.  A file that
 * fails is given up. */
enum obd_status cached_read_local(struct cached *cached, const struct read_context *context, struct iov_cursor *cursor,
                                  size_t length, uint64_t offset);
/* Under the table's lock: a pin of nothing, for a miss whose command shall just run
 * again; false without memory. */
bool cached_pin_nothing(struct cached *cached, uint64_t chunk);
/* Reads go to the registry again; false: they do already. */
bool cached_give_up_local(struct cached *cached, const char *why);

/* ---- cached_source.c ------------------------------------------------------------- */

/* Reads through the cache, whatever there is besides. */
enum obd_status cached_read_blob(struct cached *cached, const struct read_context *context, struct iov_cursor *cursor,
                                 size_t length, uint64_t offset);
enum obd_status cached_check_kind(const struct source *source); /* OBD_E_INVALID for another */

#endif
