/* miss_table: the chunks of one blob that somebody waits for, or holds.
 *
 *   wanted --kept by the cache--> gone; its waiters have pins in the blob
 *     |----not kept---> held, one pin for each waiter --last pin given back--> gone
 *     |----held, and found damaged---> spoiled --last pin given back--> gone
 *     +----failed, cancelled---> gone
 *
 * A wanted chunk is one that an origin was asked for; there may be one for each of
 * several origins.  A held chunk came, and the cache has no room for it: its bytes
 * stay in memory, for those who waited and whoever comes meanwhile.  A spoiled one
 * is read by nobody any more, but its pins are still to be counted.
 *
 * The table is the blob's, because all sources of a blob share it; cached_request.c
 * works on it.  lock guards everything here, and is taken before the fetcher's and
 * the blob's.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_MISS_TABLE_H
#define OBD_CACHE_MISS_TABLE_H

#include <pthread.h>

#include "base/list.h"
#include "base/status.h"
#include "cache/fetcher.h"

struct source;

#define MISS_TABLE_BUCKETS 256

struct miss_table {
    pthread_mutex_t lock;
    struct list buckets[MISS_TABLE_BUCKETS]; /* of entries, by link */
};

enum miss_state { MISS_WANTED, MISS_HELD, MISS_SPOILED };

struct miss_entry {
    enum miss_state state;
    uint64_t chunk;
    struct list link; /* in its bucket */

    /* wanted */
    struct fetch_job job;
    struct source *source; /* counted: it keeps the blob open */
    struct list waiters;   /* misses, by source_link */

    /* held, spoiled */
    void *bytes;
    unsigned nr_pins; /* of misses, and of those who copy the bytes just now */
};

enum obd_status miss_table_open(struct miss_table **out);
void miss_table_close(struct miss_table *table); /* nothing is in it any more */

/* All that follows: with the lock held. */

void miss_table_add(struct miss_table *table, struct miss_entry *entry);

/* The first entry of chunk in that state, or NULL; origin NULL: of any. */
struct miss_entry *miss_table_find(struct miss_table *table, uint64_t chunk, enum miss_state state,
                                   const struct origin *origin);

/* The first wanted entry of chunk that somebody waits for, or NULL. */
struct miss_entry *miss_table_find_waited(struct miss_table *table, uint64_t chunk);

/* Gives back a pin of a held or spoiled chunk, and frees it with the last one. */
void miss_entry_unpin(struct miss_entry *entry);

/* Out of the table, and its memory freed; the source is still the caller's to drop. */
void miss_entry_free(struct miss_entry *entry);

#endif
