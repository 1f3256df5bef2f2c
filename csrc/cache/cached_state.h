/* cached_state: what the files of the cached source share.
 *
 *   cached_source.c   opening, reading, statistics
 *   cached_request.c  the life of a miss: request, arrival, cancel, release
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
};

/* The source_ops of the same names. */
void cached_request(struct source *source, struct miss *miss);
void cached_begin(struct source *source);
bool cached_cancel(struct source *source, struct miss *miss);
void cached_release(struct source *source, uint64_t chunk);
enum obd_status cached_discard(struct source *source, uint64_t offset, uint64_t length);

/* Fetches what is absent of chunks [first, last], for nobody. */
enum obd_status cached_fetch_ahead(struct cached *cached, uint64_t first, uint64_t last);

/* What is planned by now; false: nothing.  It begins with the next fetch_begin. */
bool cached_read_ahead(struct cached *cached);

#endif
