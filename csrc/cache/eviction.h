/* eviction: which chunk goes next, of all blobs together.
 *
 *   stored --> probation --victim, and read again meanwhile--> protected
 *                 ^   '------victim, and was not---------> goes
 *                 '------victim, and not read since------- protected
 *
 * Both are queues; a victim is looked for at the head.  A chunk that a scan reads
 * once therefore goes before one that was read again, however long ago, and a
 * protected one that nobody reads any more leaves by way of probation.  Protected
 * chunks are at most 3 of 4, so that what is new has time to be read again.
 *
 * "Read again" means: bytes that had been read were read once more.  A chunk read
 * from end to end in small pieces was read once.  So readers mark the slices whose
 * first byte they read, and meet a mark only when they come back.
 *
 * A pinned chunk is in neither queue, and comes back as the newest of its own.
 *
 * A rough answer is enough: marks are set without a lock, one may be lost.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_EVICTION_H
#define OBD_CACHE_EVICTION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct blob;

#define NR_SLICES 32 /* marks of a chunk */

#define CHUNK_READ_AGAIN (UINT64_C(1) << NR_SLICES)

/* A chunk, present or not, in the array of its blob. */
struct chunk_use {
    atomic_uint_fast64_t marks; /* a bit a slice, and CHUNK_READ_AGAIN; no lock */
    /* all else: the cache's lock */
    struct resident *resident; /* present */
    uint32_t nr_pins;          /* stay when it becomes absent */
    bool is_busy;              /* being written or punched; then it is absent */
};

/* A chunk that is present. */
struct resident {
    struct list link; /* not pinned: in a queue */
    struct blob *blob;
    struct chunk_use *use;
    bool is_protected;
};

struct eviction {
    struct list probation, protected;
    uint64_t nr_probation, nr_protected;
};

void eviction_init(struct eviction *eviction);
/* Into its queue, as the newest, and out of it. */
void eviction_enter(struct eviction *eviction, struct resident *resident);
void eviction_leave(struct eviction *eviction, struct resident *resident);

/* The next to go, still in its queue; NULL: there is none. */
struct resident *eviction_victim(struct eviction *eviction);

/* Bytes [begin, end) of a chunk were read.  No lock; nothing is written when a read
 * says nothing new, so that readers of a warm chunk do not share a cache line. */
void chunk_use_note(struct chunk_use *use, uint32_t chunk_size, uint32_t begin, uint32_t end);

#endif
