/* chunk_map: which chunks of a blob are present in the local cache, and their CRCs.
 *
 * A blob is cut into chunks of one size (the last may be short).  The map lives in
 * a file beside the blob's data and in memory the same:
 *
 *   offset  size  header, one 4096-byte block, little-endian
 *        0     8  magic "OBDCHNK\1"
 *        8     4  version, 1
 *       12     4  chunk size, bytes
 *       16     8  blob size, bytes
 *       24    32  SHA-256 of the blob (its digest)
 *       56     4  state: 1 in use, 2 closed cleanly
 *       60     4  crc32c_raw of bytes 0..59, seed 0
 *
 *   then one record of 8 bytes a chunk
 *        0     4  flags: bit 0 present
 *        4     4  crc32c_raw of the chunk's bytes, seed = low 32 bits of its number
 *
 * Nothing is synced.  After an unclean stop a present chunk is trusted only when
 * its CRC passes, once, at its first use (architecture, section 8).
 *
 * Invariants
 *   (1) a present bit is set only after the chunk's bytes are in the data file
 *   (2) it is cleared before the bytes are punched out
 *
 * Thread-safe for chunk_map_is_present; all else under the blob's lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_CHUNK_MAP_H
#define OBD_CACHE_CHUNK_MAP_H

#include "base/file.h"

struct chunk_map;

/* Opens or makes the map at path; one that does not fit the blob (size, chunk
 * size, digest, version, damaged header) is made anew, empty, and *was_kept says so. */
enum obd_status chunk_map_open(const char *path, const uint8_t digest[32], uint64_t blob_size, uint32_t chunk_size,
                               bool *was_kept, struct chunk_map **out);
void chunk_map_close(struct chunk_map *map); /* marks it cleanly closed */

uint64_t chunk_map_nr_chunks(const struct chunk_map *map);
uint64_t chunk_map_nr_present(const struct chunk_map *map);

/* The fast path of every cached read: no lock. */
bool chunk_map_is_present(const struct chunk_map *map, uint64_t chunk);

/* Present, and known to be as it was written: false after an unclean stop until
 * chunk_map_vouch. */
bool chunk_map_is_trusted(const struct chunk_map *map, uint64_t chunk);
uint32_t chunk_map_crc(const struct chunk_map *map, uint64_t chunk);
void chunk_map_vouch(struct chunk_map *map, uint64_t chunk);

enum obd_status chunk_map_set(struct chunk_map *map, uint64_t chunk, uint32_t crc);
void chunk_map_clear(struct chunk_map *map, uint64_t chunk);

#endif
