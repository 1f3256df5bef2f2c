/* cached_source: a blob in a registry, through the cache: the source kind "cached".
 *
 * Read: blob_read when all is there; else every absent chunk of the range becomes
 * a miss of the command's demand.  request() enters the miss into the blob's miss
 * table: the first to want a chunk causes a fetch, others only gain a waiter, so N
 * readers of one chunk are one GET.  An arrival is stored and pinned once for each
 * waiter; a chunk the cache cannot keep stays in a transient buffer, pinned the
 * same way and freed with the last pin, so that no command starves.
 *
 * Two repositories that hold one blob are two origins.  Each is asked for what its
 * own readers want, because a dead one must not delay the readers of the other
 * (architecture, rule 2.8); whoever brings a chunk first answers them all.
 *
 * Read-ahead (read_ahead.h) is fetched with FETCH_READ_AHEAD, never pinned, and
 * promoted when a reader wants it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_CACHED_SOURCE_H
#define OBD_CACHE_CACHED_SOURCE_H

#include "cache/cache.h"
#include "cache/fetcher.h"

/* The blob with that digest, of origin's size and name.  Takes its own reference to
 * origin; the cache must outlive the source, and its fetcher be closed before the
 * cache is. */
enum obd_status source_open_cached(struct cache *cache, struct origin *origin, const uint8_t digest[32],
                                   struct source **out);

/* Starts fetching what is absent of the range, without anybody waiting. */
enum obd_status cached_source_prefetch(struct source *source, uint64_t offset, uint64_t length);

/* From now on everything is read from local, a file with the same bytes, also what waits
 * for the registry just now (cached_switch.c).  Takes its own reference.  Once. */
enum obd_status cached_source_switch_to(struct source *source, struct source *local);

enum obd_status cached_source_stats(struct source *source, struct obd_cached_source_stats *stats);

#endif
