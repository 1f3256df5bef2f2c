/* cached_switch: a local file takes over from the registry, while reads go on.
 *
 * Background download ends with a file that has the blob's digest.  From then on every
 * read goes there, at the price of one load:
 *
 *   blob --switch_to--> local --a read fails, or a check above--> blob, for good
 *
 * A read that runs ends where it began.  One that is parked on a missing chunk is not
 * left to a registry that may be gone: its misses are answered at once with a pin of
 * nothing (a spoiled entry, as for a chunk that was dropped under its waiters), it runs
 * again, and finds the file.  A miss that is requested only after the switch, by a read
 * from before, is answered so too: request() and the switch meet in the table's lock.
 *
 * The file is kept open to the end of the source, also when it was given up: so a read
 * needs no reference of its own.  What the cache has of the blob is left to eviction.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "base/log.h"
#include "cache/cached_state.h"

#define MISS_OF(link_) LIST_ENTRY(link_, struct miss, source_link)

/* ---- reading --------------------------------------------------------------------- */

bool cached_give_up_local(struct cached *cached, const char *why)
{
    struct source *local = atomic_load(&cached->local);
    if (local == NULL || !atomic_compare_exchange_strong(&cached->local, &local, NULL))
        return false;
    log_write(OBD_LOG_WARNING, "%s: read from the registry again, because of its local file %s: %s",
              cached->source.name, local->name, why);
    return true;
}

enum obd_status cached_read_local(struct cached *cached, const struct read_context *context, struct iov_cursor *cursor,
                                  size_t length, uint64_t offset)
{
    struct iov_cursor begin = *cursor;
    struct source *local = atomic_load_explicit(&cached->local, memory_order_acquire);
    enum obd_status status = OBD_OK;
    if (local != NULL) {
        status = source_read(local, context, cursor, length, offset);
        provenance_note(&context->demand->provenance, OBD_FROM_DOWNLOAD);
        if (status == OBD_OK || status == OBD_E_AGAIN || status == OBD_E_MISS)
            return status;
        cached_give_up_local(cached, status_text());
    }
    *cursor = begin;
    return cached_read_blob(cached, context, cursor, length, offset);
}

/* ---- switching; under the table's lock --------------------------------------------- */

bool cached_pin_nothing(struct cached *cached, uint64_t chunk)
{
    struct miss_entry *spoiled = miss_table_find(cached->table, chunk, MISS_SPOILED, NULL);
    if (spoiled == NULL) {
        spoiled = calloc(1, sizeof *spoiled);
        if (spoiled == NULL)
            return false;
        *spoiled = (struct miss_entry){.state = MISS_SPOILED, .chunk = chunk};
        list_init(&spoiled->link);
        list_init(&spoiled->waiters);
        miss_table_add(cached->table, spoiled);
    }
    spoiled->nr_pins++;
    return true;
}

static struct miss *find_waiter_in(const struct miss_entry *entry, const struct source *source)
{
    for (const struct list *link = entry->waiters.next; link != &entry->waiters; link = link->next)
        if (MISS_OF(link)->source == source)
            return MISS_OF(link);
    return NULL;
}

/* Some miss of ours that waits, and where; NULL: none does. */
static struct miss *find_waiter(struct cached *cached, struct miss_entry **entry)
{
    for (size_t i = 0; i < MISS_TABLE_BUCKETS; i++) {
        struct list *bucket = &cached->table->buckets[i];
        for (struct list *link = bucket->next; link != bucket; link = link->next) {
            *entry = LIST_ENTRY(link, struct miss_entry, link);
            struct miss *miss = find_waiter_in(*entry, &cached->source);
            if (miss != NULL)
                return miss;
        }
    }
    return NULL;
}

/* Drops the lock for each answer, so it looks anew every time.  Without memory the rest
 * waits for what it has asked for. */
static void answer_waiters(struct cached *cached)
{
    struct miss_entry *entry;
    struct miss *miss;
    while ((miss = find_waiter(cached, &entry)) != NULL && cached_pin_nothing(cached, miss->chunk)) {
        list_remove(&miss->source_link);
        if (list_is_empty(&entry->waiters))
            cached_abandon(entry);
        pthread_mutex_unlock(&cached->table->lock);
        demand_arrived(miss, OBD_OK);
        pthread_mutex_lock(&cached->table->lock);
    }
}

static enum obd_status take(struct cached *cached, struct source *local)
{
    if (cached->taken != NULL)
        return status_set(OBD_E_INVALID, "%s: %s has taken over already", cached->source.name, cached->taken->name);
    cached->taken = source_ref(local);
    atomic_store_explicit(&cached->local, local, memory_order_release);
    answer_waiters(cached);
    return OBD_OK;
}

enum obd_status cached_source_switch_to(struct source *source, struct source *local)
{
    enum obd_status status = cached_check_kind(source);
    if (status != OBD_OK)
        return status;
    if (local->size != source->size)
        return status_set(OBD_E_INVALID, "%s: it has %llu bytes, %s cannot take over with %llu", source->name,
                          (unsigned long long)source->size, local->name, (unsigned long long)local->size);
    struct cached *cached = (struct cached *)source;
    pthread_mutex_lock(&cached->table->lock);
    status = take(cached, local);
    pthread_mutex_unlock(&cached->table->lock);
    return status;
}
