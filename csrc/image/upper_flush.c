/* upper_flush: group commit, the flusher thread, and the failed state (upper.h).
 *
 * A flush pair is: sync data, append the entries, sync index, trim the journal.
 * Callers that come while one runs wait for it to end and then share the next
 * one, unless the running one turns out to have covered them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hook.h"
#include "base/log.h"
#include "base/thread.h"
#include "image/upper_state.h"

/* How long the flusher leaves a disk alone that has refused a flush. */
#define RETRY_NS NS_PER_SECOND

/* ---- the failed state ---- */

/* The map as the index file's flushed part says. */
static void show_flushed_state(struct upper *upper)
{
    struct segment_map *flushed;
    uint64_t end;
    struct upper_index_bounds bounds = {.length = upper->index_length};
    if (upper_index_load(upper, &bounds, &flushed, &end) != OBD_OK) {
        /* Nothing better is known than what was acknowledged; writes are refused all the same. */
        log_write(OBD_LOG_ERROR, "upper %s: its flushed state cannot be read back: %s", upper->name, status_text());
        return;
    }
    pthread_mutex_lock(&upper->map_lock);
    struct segment_map *before = upper->map;
    upper->map = flushed;
    pthread_mutex_unlock(&upper->map_lock);
    segment_map_free(before);
}

/* A sync has failed, and this thread's sentence says how: the kernel may have
 * dropped the pages, and a second sync would say that all is well. */
static enum obd_status fail(struct upper *upper, enum obd_status status)
{
    char why[STATUS_TEXT_SIZE];
    snprintf(why, sizeof why, "%s", status_text());
    pthread_mutex_lock(&upper->map_lock);
    upper->is_failed = true;
    /* Two long paths do not fit; what is cut is the end of the reason. */
    snprintf(upper->why_read_only, sizeof upper->why_read_only,
             "upper %.200s is read-only and shows what was flushed last: %.250s", upper->name, why);
    /* The mark comes first: from then on no start believes more than index_length. */
    if (journal_set_state(upper->journal, JOURNAL_FAILED) != OBD_OK)
        log_write(OBD_LOG_ERROR, "upper %s: its journal cannot be marked as failed: %s", upper->name, status_text());
    pthread_mutex_unlock(&upper->map_lock);
    log_write(OBD_LOG_ERROR, "upper %s is read-only from now on: %s", upper->name, why);
    HOOK("upper.flush.failed");
    if (file_truncate(upper->index, upper->index_length) != OBD_OK)
        log_write(OBD_LOG_ERROR, "upper %s: %s", upper->name, status_text());
    show_flushed_state(upper);
    return status_set(status, "upper %s: %s", upper->name, why);
}

/* ---- one flush pair ---- */

/* After a short append: the index file ends where it did, or the upper fails.
 * The room that was reserved behind the end is gone with the cut. */
static enum obd_status cut_back(struct upper *upper, enum obd_status status)
{
    char why[STATUS_TEXT_SIZE];
    snprintf(why, sizeof why, "%s", status_text());
    enum obd_status cut = file_truncate(upper->index, upper->index_length);
    if (cut != OBD_OK)
        return fail(upper, cut);
    pthread_mutex_lock(&upper->reserve_lock);
    upper->index_room = upper->index_length;
    pthread_mutex_unlock(&upper->reserve_lock);
    return status_set(status, "upper %s: %s", upper->name, why);
}

/* What a pair covers. */
struct flush_span {
    uint64_t first, last; /* sequences */
    uint64_t nr_entries;
    uint64_t data_bytes;
};

static struct flush_span span_to_flush(struct upper *upper)
{
    pthread_mutex_lock(&upper->map_lock);
    struct flush_span span = {.first = journal_flushed_sequence(upper->journal) + 1,
                              .last = journal_last_sequence(upper->journal)};
    pthread_mutex_unlock(&upper->map_lock);
    return span;
}

/* Needs no lock: these records stay as they are until this very flush trims them. */
static enum obd_status append_span(struct upper *upper, struct flush_span *span, uint64_t *end)
{
    struct index_appender appender;
    index_appender_begin(&appender, upper);
    for (uint64_t sequence = span->first; sequence <= span->last; sequence++) {
        const struct journal_record *record = journal_at(upper->journal, sequence);
        enum obd_status status = index_appender_add(&appender, record);
        if (status != OBD_OK)
            return status;
        span->nr_entries += record_nr_segments(record->kind, record->length);
        span->data_bytes += record->kind == JOURNAL_DATA ? record->length : 0;
    }
    enum obd_status status = index_appender_finish(&appender);
    *end = appender.end;
    return status;
}

/* They are durable: their slots and promises are free again. */
static enum obd_status trim(struct upper *upper, const struct flush_span *span, uint64_t index_end)
{
    pthread_mutex_lock(&upper->map_lock);
    enum obd_status status = journal_trim(upper->journal, span->last, index_end);
    if (status == OBD_OK) {
        upper->index_length = index_end;
        upper->entries_owed -= span->nr_entries;
        upper->unflushed_bytes -= span->data_bytes;
        upper->dirty_since_ns = journal_last_sequence(upper->journal) > span->last ? clock_now_ns() : 0;
    }
    pthread_mutex_unlock(&upper->map_lock);
    return status;
}

static enum obd_status run_pair(struct upper *upper)
{
    struct flush_span span = span_to_flush(upper);
    if (span.last < span.first)
        return OBD_OK;
    enum obd_status status = file_sync_data(upper->data);
    if (status != OBD_OK)
        return fail(upper, status);
    HOOK("upper.flush.data_synced");
    uint64_t index_end;
    status = append_span(upper, &span, &index_end);
    if (status != OBD_OK)
        return cut_back(upper, status);
    HOOK("upper.flush.index_appended");
    status = file_sync_data(upper->index);
    if (status != OBD_OK)
        return fail(upper, status);
    HOOK("upper.flush.index_synced");
    status = trim(upper, &span, index_end);
    HOOK("upper.flush.trimmed");
    return status;
}

/* ---- waiters ---- */

/* Under map_lock: would a writer that tries again get another answer? */
static bool is_worth_trying(const struct upper *upper)
{
    return journal_nr_free(upper->journal) > upper->slots_reserved || upper->is_failed || upper->room_status != OBD_OK;
}

/* The first in the queue, if it is worth waking. */
static struct upper_waiter *take_waiter(struct upper *upper)
{
    pthread_mutex_lock(&upper->map_lock);
    struct list *link = is_worth_trying(upper) ? list_pop(&upper->waiters) : NULL;
    pthread_mutex_unlock(&upper->map_lock);
    return link == NULL ? NULL : LIST_ENTRY(link, struct upper_waiter, link);
}

static size_t count_waiters(struct upper *upper)
{
    size_t nr = 0;
    pthread_mutex_lock(&upper->map_lock);
    for (struct list *link = upper->waiters.next; link != &upper->waiters; link = link->next)
        nr++;
    pthread_mutex_unlock(&upper->map_lock);
    return nr;
}

/* Wakes those that wait now; one that queues itself again has its turn later. */
static void wake_waiters(struct upper *upper)
{
    for (size_t nr = count_waiters(upper); nr > 0; nr--) {
        struct upper_waiter *waiter = take_waiter(upper);
        if (waiter == NULL)
            return;
        waiter->wake(waiter);
    }
}

/* ---- group commit ---- */

/* Under flush_lock, which is given up while the pair runs. */
static void run_and_keep_result(struct upper *upper)
{
    upper->is_flushing = true;
    upper->flush_begun++;
    pthread_mutex_unlock(&upper->flush_lock);

    enum obd_status status = run_pair(upper);
    const char *text = status == OBD_OK ? "" : status_text();

    pthread_mutex_lock(&upper->map_lock);
    upper->room_status = status;
    snprintf(upper->room_text, sizeof upper->room_text, "%s", text);
    pthread_mutex_unlock(&upper->map_lock);
    pthread_mutex_lock(&upper->flush_lock);
    upper->is_flushing = false;
    upper->nr_flushes++;
    upper->flush_ended = upper->flush_begun;
    upper->flush_status = status;
    snprintf(upper->flush_text, sizeof upper->flush_text, "%s", text);
    pthread_cond_broadcast(&upper->flush_done);
}

/* Is everything up to sequence durable (true, OBD_OK), or will it never be (true)? */
static bool is_settled(struct upper *upper, uint64_t sequence, enum obd_status *status)
{
    pthread_mutex_lock(&upper->map_lock);
    bool is_flushed = journal_flushed_sequence(upper->journal) >= sequence;
    bool is_failed = upper->is_failed;
    if (is_failed)
        *status = upper_refuse(upper);
    else
        *status = OBD_OK;
    pthread_mutex_unlock(&upper->map_lock);
    return is_failed || is_flushed;
}

/* Under flush_lock.  A pair that begins after now covers sequence; one that runs
 * already may. */
static enum obd_status flush_up_to(struct upper *upper, uint64_t sequence)
{
    uint64_t needed = upper->flush_begun + 1;
    enum obd_status status;
    while (upper->flush_ended < needed) {
        if (is_settled(upper, sequence, &status))
            return status;
        if (upper->is_flushing)
            condition_wait(&upper->flush_done, &upper->flush_lock, NEVER_NS); /* its runner wakes us */
        else
            run_and_keep_result(upper);
    }
    if (upper->flush_status != OBD_OK)
        return status_set(upper->flush_status, "%s", upper->flush_text);
    return OBD_OK;
}

enum obd_status upper_flush(struct upper *upper)
{
    if (upper->is_read_only)
        return OBD_OK;
    pthread_mutex_lock(&upper->map_lock);
    uint64_t sequence = journal_last_sequence(upper->journal);
    pthread_mutex_unlock(&upper->map_lock);
    pthread_mutex_lock(&upper->flush_lock);
    upper->nr_flush_calls++;
    enum obd_status status = flush_up_to(upper, sequence);
    pthread_mutex_unlock(&upper->flush_lock);
    wake_waiters(upper);
    return status;
}

/* ---- the flusher ---- */

void upper_want_flush(struct upper *upper)
{
    if (upper->is_flush_wanted)
        return;
    upper->is_flush_wanted = true;
    pthread_cond_signal(&upper->flusher_wake);
}

/* Under map_lock: when the next flush is due, NEVER_NS while nothing is unflushed. */
static uint64_t due_ns(const struct upper *upper)
{
    if (upper->is_flush_wanted)
        return 0;
    if (upper->dirty_since_ns == 0 || upper->flush_interval_ns == 0)
        return NEVER_NS;
    return upper->dirty_since_ns + upper->flush_interval_ns;
}

/* Under map_lock: a flush has failed; tries again later, not at once. */
static void pause_after_failure(struct upper *upper)
{
    uint64_t until = clock_now_ns() + RETRY_NS;
    while (!upper->is_closing && clock_now_ns() < until)
        condition_wait(&upper->flusher_wake, &upper->map_lock, until);
}

/* Under map_lock, which is given up while it flushes. */
static void flush_in_background(struct upper *upper)
{
    upper->is_flush_wanted = false;
    pthread_mutex_unlock(&upper->map_lock);
    enum obd_status status = upper_flush(upper);
    if (status != OBD_OK)
        log_write(OBD_LOG_WARNING, "timed flush: %s", status_text());
    pthread_mutex_lock(&upper->map_lock);
    if (status != OBD_OK)
        pause_after_failure(upper);
}

static void *run_flusher(void *argument)
{
    struct upper *upper = argument;
    pthread_mutex_lock(&upper->map_lock);
    while (!upper->is_closing && !upper->is_failed) {
        uint64_t due = due_ns(upper);
        if (due <= clock_now_ns())
            flush_in_background(upper);
        else
            condition_wait(&upper->flusher_wake, &upper->map_lock, due); /* woken at close */
    }
    pthread_mutex_unlock(&upper->map_lock);
    return NULL;
}

enum obd_status upper_start_flusher(struct upper *upper)
{
    enum obd_status status = thread_start("obd-flush", run_flusher, upper, &upper->flusher);
    upper->has_flusher = status == OBD_OK;
    return status;
}

void upper_stop_flusher(struct upper *upper)
{
    if (!upper->has_flusher)
        return;
    pthread_mutex_lock(&upper->map_lock);
    upper->is_closing = true;
    pthread_cond_signal(&upper->flusher_wake);
    pthread_mutex_unlock(&upper->map_lock);
    pthread_join(upper->flusher, NULL);
    upper->has_flusher = false;
}
