/* cached_source: a blob in a registry, through the cache: the source kind "cached".
 *
 * Read: blob_read when all is there; else every absent chunk of the range becomes
 * a miss of the command's demand.  request() enters the miss into the blob's miss
 * table: the first to want a chunk causes a fetch, others only gain a waiter, so N
 * readers of one chunk are one GET.  An arrival is stored and pinned once for each
 * waiter; a chunk the cache cannot keep stays in a transient buffer, pinned the
 * same way and freed with the last pin, so that no command starves.
 *
 * Read-ahead: a run of reads that follow each other doubles the window (one chunk
 * to 4 MiB), any other read halves it; it is fetched with FETCH_READ_AHEAD, never
 * pinned, and promoted when a reader wants it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_CACHED_SOURCE_H
#define OBD_CACHE_CACHED_SOURCE_H

#include "cache/cache.h"
#include "cache/fetcher.h"

/* Takes its own reference to origin; cache and fetcher must outlive the source. */
enum obd_status source_open_cached(struct cache *cache, struct fetcher *fetcher, struct origin *origin,
                                   const uint8_t digest[32], uint64_t size, const char *name, struct source **out);

/* Starts fetching what is absent of the range, without anybody waiting. */
void cached_source_prefetch(struct source *source, uint64_t offset, uint64_t length);

struct cached_source_stats {
    uint64_t fetched_bytes; /* from the registry */
    uint64_t cached_bytes;  /* served from present chunks */
    uint64_t nr_requests;
    uint64_t nr_errors[20]; /* by enum obd_status */
};
void cached_source_stats(struct source *source, struct cached_source_stats *stats);

#endif
