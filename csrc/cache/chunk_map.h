/* chunk_map: which chunks of a blob are present in the local cache, and their CRCs.
 *
 * A blob is cut into chunks of one size (the last may be short).  The map lives in
 * a file beside the blob's data and in memory the same:
 *
 *   offset  size  header, one 4096-byte block, little-endian, zeros behind
 *        0     8  magic "OBDCHNK\1"
 *        8     4  version, 1
 *       12     4  chunk size, bytes
 *       16     8  blob size, bytes
 *       24    32  SHA-256 of the blob (its digest)
 *       56     4  crc32c_raw of bytes 0..55, seed 0
 *
 *   then one record of 40 bytes a chunk
 *        0     4  flags: bit 0 present; bit 1 the SHA-256 is given
 *        4     4  crc32c_raw of the chunk's bytes, seed = low 32 bits of its number
 *        8    32  SHA-256 of the chunk's bytes, for reads that are verified against a
 *                 list of digests; nothing gives it yet, and so it is zeros
 *
 * Nothing is synced, so no header can promise that the chunks it describes are on
 * the disk: a map and its data may be of different moments after a power cut, even
 * after a clean close.  Therefore a chunk that this process has not written itself
 * is trusted only when its CRC passes, once, at its first use.
 *
 * Invariants
 *   (1) a present bit is set only after the chunk's bytes are in the data file
 *   (2) it is cleared before the bytes are punched out
 *   (3) every clearing moves the chunk's generation on, so who has copied its bytes
 *       without a lock finds out that they may have been punched or replaced
 *
 * Thread-safe for chunk_map_is_present and chunk_map_stamp; all else under the
 * cache's lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_CHUNK_MAP_H
#define OBD_CACHE_CHUNK_MAP_H

#include "base/file.h"

#define CHUNK_MIN_SIZE (64u << 10)
#define CHUNK_MAX_SIZE (1u << 20)

#define CHUNK_MAP_HEADER_SIZE 4096
#define CHUNK_MAP_RECORD_SIZE 40

struct chunk_map;

struct chunk_map_shape {
    uint8_t digest[32];
    uint64_t blob_size;
    uint32_t chunk_size; /* a power of two, CHUNK_MIN_SIZE .. CHUNK_MAX_SIZE */
};

/* A map without chunks, in memory; path is where its file will be. */
enum obd_status chunk_map_new(const char *path, const struct chunk_map_shape *shape, struct chunk_map **out);

/* The map in the file at path, in memory.  OBD_E_CORRUPT for what is no whole map;
 * OBD_E_UNSUPPORTED for another version. */
enum obd_status chunk_map_load(const char *path, struct chunk_map **out);

/* Makes the map's file, in place of any that is there, with nothing present. */
enum obd_status chunk_map_create_file(struct chunk_map *map);

/* Only while its file is open can a chunk be set; the map stays as it is. */
enum obd_status chunk_map_open_file(struct chunk_map *map);
void chunk_map_close_file(struct chunk_map *map);

void chunk_map_free(struct chunk_map *map); /* NULL is fine */

const char *chunk_map_path(const struct chunk_map *map);
const struct chunk_map_shape *chunk_map_shape(const struct chunk_map *map);
uint64_t chunk_map_nr_chunks(const struct chunk_map *map);
uint64_t chunk_map_nr_present(const struct chunk_map *map);
uint64_t chunk_map_file_size(const struct chunk_map *map);
uint32_t chunk_map_chunk_bytes(const struct chunk_map *map, uint64_t chunk); /* the last may be short */

/* The fast path of every cached read: no lock. */
bool chunk_map_is_present(const struct chunk_map *map, uint64_t chunk);

/* False when one of chunks [first, last] is absent or not trusted.  Else *stamp is a
 * number that stays the same as long as none of them was cleared.  No lock. */
bool chunk_map_stamp(const struct chunk_map *map, uint64_t first, uint64_t last, uint64_t *stamp);

/* Present, and its CRC has been seen to pass, or the chunk was written by us. */
bool chunk_map_is_trusted(const struct chunk_map *map, uint64_t chunk);
uint32_t chunk_map_generation(const struct chunk_map *map, uint64_t chunk);
uint32_t chunk_map_crc(const struct chunk_map *map, uint64_t chunk);
void chunk_map_vouch(struct chunk_map *map, uint64_t chunk);

/* Present and trusted; unchanged when it fails. */
enum obd_status chunk_map_set(struct chunk_map *map, uint64_t chunk, uint32_t crc);
/* That the file cannot be written does not matter: the CRC will not pass. */
void chunk_map_clear(struct chunk_map *map, uint64_t chunk);

#endif
