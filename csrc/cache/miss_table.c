/* miss_table: see miss_table.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cache/miss_table.h"

#include <assert.h>
#include <stdlib.h>

enum obd_status miss_table_open(struct miss_table **out)
{
    struct miss_table *table = malloc(sizeof *table);
    if (table == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory for what is fetched of a blob");
    pthread_mutex_init(&table->lock, NULL);
    for (size_t i = 0; i < MISS_TABLE_BUCKETS; i++)
        list_init(&table->buckets[i]);
    *out = table;
    return OBD_OK;
}

void miss_table_close(struct miss_table *table)
{
    for (size_t i = 0; i < MISS_TABLE_BUCKETS; i++)
        assert(list_is_empty(&table->buckets[i]));
    pthread_mutex_destroy(&table->lock);
    free(table);
}

/* Neighbours, which are fetched together, lie in buckets of their own. */
static struct list *bucket_of(struct miss_table *table, uint64_t chunk)
{
    return &table->buckets[chunk % MISS_TABLE_BUCKETS];
}

void miss_table_add(struct miss_table *table, struct miss_entry *entry)
{
    list_append(bucket_of(table, entry->chunk), &entry->link);
}

struct miss_entry *miss_table_find(struct miss_table *table, uint64_t chunk, enum miss_state state,
                                   const struct origin *origin)
{
    struct list *bucket = bucket_of(table, chunk);
    for (struct list *link = bucket->next; link != bucket; link = link->next) {
        struct miss_entry *entry = LIST_ENTRY(link, struct miss_entry, link);
        if (entry->chunk == chunk && entry->state == state && (origin == NULL || entry->job.origin == origin))
            return entry;
    }
    return NULL;
}

struct miss_entry *miss_table_find_waited(struct miss_table *table, uint64_t chunk)
{
    struct list *bucket = bucket_of(table, chunk);
    for (struct list *link = bucket->next; link != bucket; link = link->next) {
        struct miss_entry *entry = LIST_ENTRY(link, struct miss_entry, link);
        if (entry->chunk == chunk && !list_is_empty(&entry->waiters))
            return entry;
    }
    return NULL;
}

void miss_entry_unpin(struct miss_entry *entry)
{
    assert(entry->state != MISS_WANTED && entry->nr_pins > 0);
    if (--entry->nr_pins == 0)
        miss_entry_free(entry);
}

void miss_entry_free(struct miss_entry *entry)
{
    assert(list_is_empty(&entry->waiters) && entry->nr_pins == 0);
    list_remove(&entry->link);
    free(entry->bytes);
    free(entry);
}
