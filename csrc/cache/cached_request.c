/* cached_request: the life of a miss, and of the chunk that it waits for.
 *
 * A chunk's arrival, on the fetcher's thread:
 *   1. the cache stores it and pins it for us, or cannot keep it: then its entry
 *      becomes held, with a pin that is ours
 *   2. every waiter of the chunk, of whatever origin, gets a pin and its answer, one
 *      at a time, because a waiter may be cancelled while another is answered
 *   3. our own pin goes
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/clock.h"
#include "cache/cached_state.h"

#define ENTRY_OF_JOB(job_) LIST_ENTRY(job_, struct miss_entry, job)
#define MISS_OF(link_)     LIST_ENTRY(link_, struct miss, source_link)

/* For what nobody waits for. */
#define AHEAD_TIMEOUT_MS 60000u

/* A fetch gives up a little earlier than its reader: then the answer is a reason, and
 * not just that time is over. */
#define MAX_MARGIN_MS 1000u

static uint64_t fetch_deadline(uint64_t reader_deadline_ns)
{
    uint64_t now_ns = clock_now_ns();
    if (reader_deadline_ns == NEVER_NS || reader_deadline_ns <= now_ns)
        return reader_deadline_ns;
    return reader_deadline_ns - min_u64(MAX_MARGIN_MS * NS_PER_MS, (reader_deadline_ns - now_ns) / 16);
}

/* ---- entries; under the table's lock --------------------------------------------- */

static void on_done(struct fetch_job *job, enum obd_status status, void *bytes);

static enum obd_status want(struct cached *cached, uint64_t chunk, enum fetch_class class, uint64_t deadline_ns,
                            struct miss_entry **out)
{
    struct miss_entry *entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return status_set(OBD_E_NO_MEMORY, "%s: no memory to fetch a chunk", cached->source.name);
    *entry = (struct miss_entry){.state = MISS_WANTED, .chunk = chunk, .source = &cached->source};
    list_init(&entry->link);
    list_init(&entry->waiters);
    entry->job = (struct fetch_job){.origin = cached->origin,
                                    .offset = chunk * blob_chunk_size(cached->blob),
                                    .length = blob_chunk_bytes(cached->blob, chunk),
                                    .class = class,
                                    .deadline_ns = deadline_ns,
                                    .done = on_done};
    enum obd_status status = fetch_submit(&entry->job);
    if (status != OBD_OK) {
        free(entry);
        return status;
    }
    source_ref(&cached->source);
    miss_table_add(cached->table, entry);
    *out = entry;
    return OBD_OK;
}

/* A wanted entry goes, and with it its reference to a source.  The caller has another
 * of the same blob, so that the table stays. */
static void drop(struct miss_entry *entry)
{
    struct source *source = entry->source;
    miss_entry_free(entry);
    source_unref(source);
}

/* When it is too late to cancel, done finds no waiter. */
void cached_abandon(struct miss_entry *entry)
{
    if (fetch_cancel(&entry->job))
        drop(entry);
}

/* ---- arrivals ------------------------------------------------------------------------ */

/* The entry keeps the bytes that the cache does not; the pin is ours. */
static void hold(struct miss_table *table, struct miss_entry *entry, void *bytes)
{
    entry->state = MISS_HELD;
    entry->bytes = bytes;
    entry->nr_pins = 1;
    miss_table_add(table, entry);
}

/* Takes over who waits for the chunk from other origins, which need not send it any
 * more.  Who comes later does not: it may be back because the bytes are damaged. */
static void gather_waiters(struct miss_table *table, struct miss_entry *arrived)
{
    struct miss_entry *other;
    struct list *link;
    while ((other = miss_table_find_waited(table, arrived->chunk)) != NULL) {
        while ((link = list_pop(&other->waiters)) != NULL)
            list_append(&arrived->waiters, link);
        cached_abandon(other);
    }
}

/* The chunk is here: in the blob, pinned, or with the entry.  Another reader may have
 * found it damaged meanwhile; then who waits has a pin of nothing, and misses again. */
static void pin_for_waiter(struct cached *cached, struct miss_entry *entry)
{
    if (entry->state == MISS_WANTED && blob_pin(cached->blob, entry->chunk))
        return;
    if (entry->state == MISS_WANTED) {
        hold(cached->table, entry, NULL);
        entry->state = MISS_SPOILED;
    }
    entry->nr_pins++;
}

static void answer_all(struct cached *cached, struct miss_entry *entry)
{
    struct list *link;
    while ((link = list_pop(&entry->waiters)) != NULL) {
        pin_for_waiter(cached, entry);
        pthread_mutex_unlock(&cached->table->lock);
        demand_arrived(MISS_OF(link), OBD_OK);
        pthread_mutex_lock(&cached->table->lock);
    }
}

/* What comes in the background is kept elsewhere: nothing that somebody read goes for it. */
static bool is_worth_its_room(const struct cached *cached, const struct miss_entry *entry)
{
    return entry->job.class != FETCH_BACKGROUND || blob_has_spare_room(cached->blob, entry->chunk);
}

static void arrive(struct cached *cached, struct miss_entry *entry, void *bytes)
{
    struct source *source = entry->source;
    bool is_kept = false;
    if (is_worth_its_room(cached, entry) && blob_store(cached->blob, entry->chunk, bytes, &is_kept) != OBD_OK)
        is_kept = false; /* the cache says so itself; to readers it is the same */
    if (is_kept)
        free(bytes);
    pthread_mutex_lock(&cached->table->lock);
    list_remove(&entry->link);
    entry->source = NULL;
    gather_waiters(cached->table, entry);
    if (!is_kept)
        hold(cached->table, entry, bytes);
    answer_all(cached, entry);
    if (is_kept)
        blob_unpin(cached->blob, entry->chunk);
    if (entry->state == MISS_WANTED)
        miss_entry_free(entry);
    else
        miss_entry_unpin(entry);
    pthread_mutex_unlock(&cached->table->lock);
    source_unref(source);
}

/* Those who waited for this origin's answer have it; other origins are still asked. */
static void fail(struct cached *cached, struct miss_entry *entry, enum obd_status status)
{
    struct source *source = entry->source;
    struct list *link;
    char text[STATUS_TEXT_SIZE];
    snprintf(text, sizeof text, "%s", status_text());
    pthread_mutex_lock(&cached->table->lock);
    list_remove(&entry->link);
    while ((link = list_pop(&entry->waiters)) != NULL) {
        pthread_mutex_unlock(&cached->table->lock);
        status_set(status, "%s", text); /* whoever was answered before may have left another */
        demand_arrived(MISS_OF(link), status);
        pthread_mutex_lock(&cached->table->lock);
    }
    miss_entry_free(entry);
    pthread_mutex_unlock(&cached->table->lock);
    source_unref(source);
}

static void on_done(struct fetch_job *job, enum obd_status status, void *bytes)
{
    struct miss_entry *entry = ENTRY_OF_JOB(job);
    struct cached *cached = (struct cached *)entry->source;
    if (status == OBD_OK)
        arrive(cached, entry, bytes);
    else
        fail(cached, entry, status);
}

/* ---- requests --------------------------------------------------------------------------- */

/* Under the lock.  True: the chunk is here, and has a pin more. */
static bool pin_what_is_here(struct cached *cached, uint64_t chunk)
{
    struct miss_entry *held = miss_table_find(cached->table, chunk, MISS_HELD, NULL);
    if (held == NULL && cached_is_local(cached)) /* since the read that missed */
        return cached_pin_nothing(cached, chunk);
    if (held == NULL)
        return blob_pin(cached->blob, chunk);
    held->nr_pins++;
    return true;
}

/* Under the lock: a fetch from our origin, one that is under way or a new one.  One
 * that has just ended is not waited for: its failure, perhaps because the time of
 * another reader is over, is not this reader's. */
static enum obd_status wait_for_fetch(struct cached *cached, struct miss *miss)
{
    enum fetch_class class = miss->demand->is_background ? FETCH_BACKGROUND : FETCH_DEMAND;
    uint64_t deadline_ns = fetch_deadline(miss->demand->deadline_ns);
    struct miss_entry *entry = miss_table_find(cached->table, miss->chunk, MISS_WANTED, cached->origin);
    if (entry != NULL && !fetch_promote(&entry->job, class, deadline_ns)) {
        list_remove(&entry->link);
        entry = NULL;
    }
    enum obd_status status = OBD_OK;
    if (entry == NULL)
        status = want(cached, miss->chunk, class, deadline_ns, &entry);
    if (status == OBD_OK)
        list_append(&entry->waiters, &miss->source_link);
    return status;
}

void cached_request(struct source *source, struct miss *miss)
{
    struct cached *cached = (struct cached *)source;
    enum obd_status status = OBD_OK;
    if (!miss->demand->is_background)
        blob_count_miss(cached->blob);
    pthread_mutex_lock(&cached->table->lock);
    bool is_here = pin_what_is_here(cached, miss->chunk);
    if (!is_here)
        status = wait_for_fetch(cached, miss);
    pthread_mutex_unlock(&cached->table->lock);
    if (is_here || status != OBD_OK)
        demand_arrived(miss, status);
}

void cached_begin(struct source *source)
{
    struct cached *cached = (struct cached *)source;
    cached_read_ahead(cached); /* so that it can be one request with what was missed */
    fetch_begin(cached->origin);
}

bool cached_cancel(struct source *source, struct miss *miss)
{
    struct cached *cached = (struct cached *)source;
    pthread_mutex_lock(&cached->table->lock);
    bool is_waiting = list_is_linked(&miss->source_link);
    if (is_waiting) {
        list_remove(&miss->source_link);
        struct miss_entry *entry = miss_table_find(cached->table, miss->chunk, MISS_WANTED, cached->origin);
        if (entry != NULL && list_is_empty(&entry->waiters))
            cached_abandon(entry);
    }
    pthread_mutex_unlock(&cached->table->lock);
    return is_waiting;
}

/* All pins of a chunk are alike, so it does not matter which of them is given back,
 * as long as those that free memory go first. */
void cached_release(struct source *source, uint64_t chunk)
{
    struct cached *cached = (struct cached *)source;
    pthread_mutex_lock(&cached->table->lock);
    struct miss_entry *entry = miss_table_find(cached->table, chunk, MISS_SPOILED, NULL);
    if (entry == NULL)
        entry = miss_table_find(cached->table, chunk, MISS_HELD, NULL);
    if (entry != NULL)
        miss_entry_unpin(entry);
    pthread_mutex_unlock(&cached->table->lock);
    if (entry == NULL)
        blob_unpin(cached->blob, chunk);
}

enum obd_status cached_discard(struct source *source, uint64_t offset, uint64_t length)
{
    struct cached *cached = (struct cached *)source;
    if (cached_give_up_local(cached, "its bytes fail a check"))
        return OBD_OK;
    uint64_t chunk_size = blob_chunk_size(cached->blob);
    for (uint64_t chunk = offset / chunk_size; chunk * chunk_size < offset + length; chunk++) {
        pthread_mutex_lock(&cached->table->lock);
        struct miss_entry *held = miss_table_find(cached->table, chunk, MISS_HELD, NULL);
        if (held != NULL)
            held->state = MISS_SPOILED;
        pthread_mutex_unlock(&cached->table->lock);
        blob_discard(cached->blob, chunk);
    }
    return OBD_OK;
}

/* ---- ahead of what is asked for -------------------------------------------------------- */

static bool is_here_or_coming(struct cached *cached, uint64_t chunk)
{
    return blob_is_present(cached->blob, chunk) || miss_table_find(cached->table, chunk, MISS_HELD, NULL) != NULL ||
           miss_table_find(cached->table, chunk, MISS_WANTED, NULL) != NULL;
}

enum obd_status cached_fetch_ahead(struct cached *cached, uint64_t first, uint64_t last)
{
    enum obd_status status = OBD_OK;
    uint64_t deadline_ns = clock_deadline_ns(AHEAD_TIMEOUT_MS);
    struct miss_entry *entry;
    for (uint64_t chunk = first; chunk <= last && status == OBD_OK; chunk++) {
        pthread_mutex_lock(&cached->table->lock);
        if (!is_here_or_coming(cached, chunk))
            status = want(cached, chunk, FETCH_READ_AHEAD, deadline_ns, &entry);
        pthread_mutex_unlock(&cached->table->lock);
    }
    return status;
}

bool cached_read_ahead(struct cached *cached)
{
    uint64_t begin, end, chunk_size = blob_chunk_size(cached->blob);
    if (!read_ahead_take(&cached->ahead, &begin, &end))
        return false;
    cached_fetch_ahead(cached, begin / chunk_size, (end - 1) / chunk_size); /* a guess that fails is no failure */
    return true;
}
