/* cache: blobs of registries, kept chunk by chunk in a local folder.
 *
 *   DIR/lock                 flock: one owner; its text names the process
 *   DIR/version              "1"; newer is refused
 *   DIR/blobs/<hex>          sparse data file: byte i of the blob at offset i
 *   DIR/blobs/<hex>.map      chunk_map
 *
 * Shared by digest across images and repositories.  The byte limit is hard: room
 * for a chunk is taken from the budget before it is written, and what cannot have
 * room (limit, free-space floor, ENOSPC, read-only folder) is handed to its waiters
 * from memory and not kept.  Eviction is by chunk: recency with resistance to scans
 * (a chunk read once goes before one read again), never a pinned one.
 *
 * Thread-safe.  Lock order: miss_table.lock, then cache->lock; the latter guards all
 * blobs, and is held by no reader of what is present.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_CACHE_H
#define OBD_CACHE_CACHE_H

#include "cache/chunk_map.h"
#include "cache/miss_table.h"
#include "source/source.h"

struct cache;
struct blob;

/* OBD_E_BUSY names the owner; a read-only folder opens, keeps nothing new, and logs it. */
enum obd_status cache_open(const struct obd_cache_params *params, struct cache **out);
void cache_close(struct cache *cache); /* all blobs closed */

/* The blob, shared by all who open it. */
enum obd_status blob_open(struct cache *cache, const uint8_t digest[32], uint64_t size, struct blob **out);
void blob_close(struct blob *blob);
uint64_t blob_size(const struct blob *blob);
uint32_t blob_chunk_size(const struct blob *blob);
uint32_t blob_chunk_bytes(const struct blob *blob, uint64_t chunk); /* the last may be short */

/* What is being fetched of the blob, for all its sources together: made with
 * miss_table_open when the blob is first opened, closed with it. */
struct miss_table *blob_miss_table(struct blob *blob);

/* Reads what is present without a lock: the bytes are copied, then it is checked
 * that no chunk of the range was evicted meanwhile.  OBD_E_MISS, with the cursor
 * where it was, when one is absent or was; nowait as file_read_iov_nowait. */
enum obd_status blob_read(struct blob *blob, struct iov_cursor *cursor, size_t length, uint64_t offset, bool nowait);

/* Whether it is present by the map alone: no lock, no disk, no check. */
bool blob_is_present(const struct blob *blob, uint64_t chunk);
uint64_t blob_present_bytes(struct blob *blob);

/* First absent chunk in [first, last], or -1. Absent includes "present but its CRC
 * does not pass", which is found out here, once. */
int64_t blob_first_absent(struct blob *blob, uint64_t first, uint64_t last);

/* Keeps a chunk from eviction; false when it is absent.  Counted. */
bool blob_pin(struct blob *blob, uint64_t chunk);
void blob_unpin(struct blob *blob, uint64_t chunk);

/* Bytes that came: stored, set present and pinned (*is_kept), or not stored, when
 * there is no room: then the caller keeps them for its waiters.  A chunk that is
 * present already is only pinned. */
enum obd_status blob_store(struct blob *blob, uint64_t chunk, const void *bytes, bool *is_kept);

/* Whether blob_store would keep chunk and evict nothing for it, as far as one can know. */
bool blob_has_spare_room(struct blob *blob, uint64_t chunk);

/* Damaged or unwanted: absent from now on, fetched again when asked for.  Pins it has
 * are still counted, and given back by those who have them. */
void blob_discard(struct blob *blob, uint64_t chunk);

/* For the statistics: chunks that a command read without waiting, and one that it has to
 * wait for.  They take no lock. */
void blob_count_hits(struct blob *blob, uint64_t nr_chunks);
void blob_count_miss(struct blob *blob);

void cache_stats(struct cache *cache, struct obd_cache_stats *stats);

#endif
