/* cache_state: what the files of the cache share.
 *
 *   cache.c         opening, closing, statistics
 *   cache_folder.c  who owns the folder, and which blobs are in it
 *   cache_room.c    the byte limit and the free-space floor; eviction
 *   blob.c          opening, closing, pins
 *   blob_files.c    a blob's two files: opened when needed, removed when empty
 *   blob_read.c     reading without a lock; the check at first use
 *   blob_store.c    keeping what came, dropping what goes
 *
 * All blobs of the folder are in memory from the start, with their maps, whether
 * somebody has opened them or not: their chunks are in one order of eviction.
 *
 * One lock, the cache's, guards everything here but what is marked; the files are
 * few and its sections short.  It is let go of while chunks are read, written and
 * punched.  A chunk that is absent but whose place in the data file is being written
 * or punched is *busy*, and nobody else touches that place:
 *
 *   absent --blob_store--> busy, has room --written, set--> present
 *   present --cleared--> busy, has room --punched, room given back--> absent
 *
 * A map, and the data file while it is open, are written to only by their owner; but
 * opening, removing and emptying of files is done under the lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_CACHE_STATE_H
#define OBD_CACHE_CACHE_STATE_H

#include <limits.h>
#include <pthread.h>

#include "cache/cache.h"
#include "cache/eviction.h"

/* What a chunk takes on the disk is counted in whole pages of it. */
#define ROOM_UNIT 4096u

struct cache {
    char *folder; /* constant, as all of this group */
    uint64_t limit_bytes;
    uint64_t free_floor_bytes;
    uint32_t chunk_size;
    bool is_read_only;
    struct file *owner_lock; /* NULL: a read-only folder without one */

    pthread_mutex_t lock;
    struct list blobs; /* by in_cache */
    struct eviction eviction;
    uint64_t used_bytes;     /* chunks that are present or busy, and maps */
    enum obd_status trouble; /* why the last chunk was not kept; OBD_OK: it was */
    uint64_t nr_evicted;
    uint64_t nr_damaged;
    uint64_t nr_not_kept;
    uint64_t nr_hits; /* of blobs that are gone, as is the next */
    uint64_t nr_misses;
};

struct blob {
    struct cache *cache;
    struct list in_cache;
    unsigned nr_users;        /* who has it open */
    unsigned nr_file_users;   /* who uses its files; one of them for all of nr_users */
    bool has_files;           /* they exist, and the map's room is taken */
    bool keeps_files;         /* open, and nr_users has its files in use: it can store */
    struct miss_table *table; /* while somebody has it open */
    struct chunk_use *uses;   /* as many as there are chunks */
    struct chunk_map *map;    /* constant */
    struct file *data;        /* while it has file users, if that could be opened */
    _Atomic uint64_t nr_hits; /* guarded by nothing, as is the next */
    _Atomic uint64_t nr_misses;
    char path[]; /* of the data file; the map's is the same with ".map" */
};

/* ---- cache_folder.c ------------------------------------------------------------ */

/* Becomes the folder's owner, and sets is_read_only and owner_lock. */
enum obd_status cache_folder_claim(struct cache *cache);
/* Brings every blob of the folder into memory, the longest unused first, and removes
 * what is none. */
enum obd_status cache_folder_load(struct cache *cache);

/* ---- cache_room.c: with the lock held, but let go of meanwhile -------------------- */

/* Takes bytes from the limit, by evicting if need be; OBD_E_LIMIT: all that is left is
 * pinned, or as much is not there. */
enum obd_status cache_take_room(struct cache *cache, uint64_t bytes);
void cache_give_room(struct cache *cache, uint64_t bytes);
/* Whether so much could be kept and nothing had to go for it. */
bool cache_has_spare_room(struct cache *cache, uint64_t bytes);
/* OBD_E_NO_SPACE when the file system has not bytes more than the floor, although
 * chunks were evicted for that. */
enum obd_status cache_check_floor(struct cache *cache, uint64_t bytes);
bool cache_evict_one(struct cache *cache);
/* Evicts until the limit holds. */
void cache_shrink(struct cache *cache);
/* A chunk was kept, or not and why; says so in the log when that has changed. */
void cache_note_kept(struct cache *cache, enum obd_status status);

/* ---- blob.c ----------------------------------------------------------------------- */

/* Takes map, also when this fails. */
enum obd_status blob_make(struct cache *cache, const char *path, struct chunk_map *map, struct blob **out);
void blob_free(struct blob *blob);
/* With the lock held; the chunk is present. */
void blob_pin_chunk(struct blob *blob, uint64_t chunk);

/* ---- blob_files.c: with the lock held ------------------------------------------------ */

/* Opens the files for one more user; OBD_OK: both are open. */
enum obd_status blob_files_use(struct blob *blob);
/* The last one closes them; the blob may be gone then. */
void blob_files_leave(struct blob *blob);
/* Makes both, empty; OBD_E_LIMIT: there is no room even for the map. */
enum obd_status blob_files_make(struct blob *blob);
/* Nothing is present any more, and the files are gone. */
void blob_files_forget(struct blob *blob);
/* The same for a blob that nobody has open, and it is gone itself. */
void blob_files_remove(struct blob *blob);
void blob_free_if_empty(struct blob *blob); /* and unused */

/* ---- blob_store.c: with the lock held ------------------------------------------------- */

uint64_t blob_chunk_room(const struct blob *blob, uint64_t chunk);
/* Takes a present chunk into the order of eviction; its room is taken already. */
enum obd_status blob_enter_chunk(struct blob *blob, uint64_t chunk);
void blob_leave_chunk(struct blob *blob, uint64_t chunk);
/* A present chunk becomes absent and its room is given back.  Lets go of the lock; the
 * blob may be gone then, if nobody has it open. */
void blob_drop_chunk(struct blob *blob, uint64_t chunk);

#endif
