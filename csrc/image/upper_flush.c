/* upper_flush: flush pairs, and how many callers share one (upper.h).
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
#include "base/thread.h"
#include "image/upper_state.h"

/* ---- one flush pair ---- */

/* After a short append: the index file ends where it did, or the upper fails.
 * The room that was reserved behind the end is gone with the cut. */
static enum obd_status cut_back(struct upper *upper, enum obd_status status)
{
    char why[STATUS_TEXT_SIZE];
    snprintf(why, sizeof why, "%s", status_text());
    enum obd_status cut = file_truncate(upper->index, upper->index_length);
    if (cut != OBD_OK)
        return upper_fail(upper, cut);
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
    uint64_t nr_size_changes; /* headers are synced with what lies behind them */
    bool has_work;
};

static struct flush_span span_to_flush(struct upper *upper)
{
    pthread_mutex_lock(&upper->map_lock);
    struct flush_span span = {.first = journal_flushed_sequence(upper->journal) + 1,
                              .last = journal_last_sequence(upper->journal),
                              .nr_size_changes = upper->nr_size_changes};
    span.has_work = span.last >= span.first || span.nr_size_changes > upper->nr_sizes_synced;
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
        span->data_bytes += record->kind == JOURNAL_DISCARD ? 0 : record->length;
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
        upper->nr_sizes_synced = span->nr_size_changes;
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
    if (!span.has_work)
        return OBD_OK;
    enum obd_status status = file_sync_data(upper->data);
    if (status != OBD_OK)
        return upper_fail(upper, status);
    HOOK("upper.flush.data_synced");
    uint64_t index_end;
    status = append_span(upper, &span, &index_end);
    if (status != OBD_OK)
        return cut_back(upper, status);
    HOOK("upper.flush.index_appended");
    if (!upper->is_sparse || span.nr_entries > 0) /* not when all was rewritten in place */
        status = file_sync_data(upper->index);
    if (status != OBD_OK)
        return upper_fail(upper, status);
    HOOK("upper.flush.index_synced");
    status = trim(upper, &span, index_end);
    HOOK("upper.flush.trimmed");
    return status;
}

/* ---- group commit ---- */

/* Under flush_lock, which is given up while the pair runs. */
static void run_and_keep_result(struct upper *upper)
{
    upper->is_flushing = true;
    upper->flush_begun++;
    pthread_mutex_unlock(&upper->flush_lock);

    atomic_store(&upper->is_syncing, true);
    enum obd_status status = run_pair(upper);
    atomic_store(&upper->is_syncing, false);
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

/* True when there is nothing to wait for: everything up to sequence is durable
 * (OBD_OK), or it will never be. */
static bool is_settled(struct upper *upper, uint64_t sequence, enum obd_status *status)
{
    pthread_mutex_lock(&upper->map_lock);
    bool is_flushed =
        journal_flushed_sequence(upper->journal) >= sequence && upper->nr_sizes_synced == upper->nr_size_changes;
    bool is_failed = upper->is_failed;
    *status = is_failed ? upper_refuse(upper) : OBD_OK;
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
    /* A later pair than ours may have ended by now, and badly. */
    if (is_settled(upper, sequence, &status) && status == OBD_OK)
        return OBD_OK;
    return status_set(upper->flush_status, "%s", upper->flush_text);
}

enum obd_status upper_flush(struct upper *upper)
{
    if (upper->is_read_only)
        return OBD_OK;
    pthread_mutex_lock(&upper->map_lock);
    uint64_t sequence = journal_last_sequence(upper->journal);
    bool is_sealed = upper->seal_state == UPPER_SEALED; /* durable whole, by its trailer */
    pthread_mutex_unlock(&upper->map_lock);
    if (is_sealed)
        return OBD_OK;
    pthread_mutex_lock(&upper->flush_lock);
    upper->nr_flush_calls++;
    enum obd_status status = flush_up_to(upper, sequence);
    pthread_mutex_unlock(&upper->flush_lock);
    upper_wake_waiters(upper);
    return status;
}
