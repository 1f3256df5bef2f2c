/* upper_write: write and discard (upper.h).
 *
 * A write first gets everything it will need, so that after its data is in the
 * log nothing but the journal's own pwrite can refuse it:
 *
 *   a journal slot          slots_reserved,  map_lock
 *   memory for its segments inserts_owed,    map_lock
 *   room in the index file  entries_owed,    map_lock, and index_room, reserve_lock
 *   room in the data file   log_room,        reserve_lock
 *
 * Whatever happens later, a promise is given back or becomes a record.
 *
 * upper_try_write is for a front's own thread, which serves other devices too.  It does
 * the same, but gives up before the first promise when a lock is taken or disk space has
 * to be asked for.  What is left are two writes to the page cache, into space that is
 * there, and these wait for the disk only when it is behind: so it gives up as well
 * while a sync is under way, and for a while after a write that took long.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/hook.h"
#include "image/upper_device.h"
#include "image/upper_sparse.h"

/* Disk space is reserved in these steps, and in smaller ones on a full disk. */
#define LOG_STEP   (UINT64_C(16) << 20)
#define INDEX_STEP (UINT64_C(64) << 10)

/* The timed flush comes early when this much is unflushed, so that the pages that
 * only we can clean stay bounded. */
#define UNFLUSHED_LIMIT (UINT64_C(256) << 20)

/* A write to the page cache that takes longer has probably waited for the disk, not just
 * for a processor.  Workers have the next ones for so many times as long: the front's
 * thread loses a tenth of its time at most. */
#define SLOW_NS         (50 * NS_PER_MS)
#define DISTRUST_FACTOR 10

#define PAGE_BYTES 4096u

/* What one command was promised. */
struct reservation {
    uint64_t nr_segments;
    uint64_t log_bytes; /* 0 in a sparse file, where a write that finds no space fails by itself */
    uint64_t place;     /* in the data file */
};

/* ---- reserving ---- */

/* Under map_lock. */
static enum obd_status refuse_full_journal(struct upper *upper)
{
    upper_want_flush(upper);
    if (upper->room_status == OBD_OK)
        return OBD_E_AGAIN;
    /* Parking would not help: the flush that should make room has failed. */
    return status_set(upper->room_status, "the journal is full and cannot be flushed: %s", upper->room_text);
}

/* Under map_lock. */
static enum obd_status promise(struct upper *upper, const struct reservation *r)
{
    if (upper->is_failed || upper->seal_state != UPPER_OPEN)
        return upper_refuse(upper);
    if (journal_nr_free(upper->journal) <= upper->slots_reserved)
        return refuse_full_journal(upper);
    uint64_t nr_entries = (upper->index_length - UPPER_HEADER_SIZE) / UPPER_ENTRY_SIZE + upper->entries_owed;
    if (nr_entries + r->nr_segments > OBD_MAX_UPPER_SEGMENTS)
        return status_set(OBD_E_LIMIT, "upper %s: its index has %llu entries and room for no more than %d: commit it",
                          upper->name, (unsigned long long)nr_entries, OBD_MAX_UPPER_SEGMENTS);
    enum obd_status status = segment_map_reserve(upper->map, upper->inserts_owed + r->nr_segments);
    if (status != OBD_OK)
        return status;
    upper->slots_reserved++;
    upper->inserts_owed += r->nr_segments;
    upper->entries_owed += r->nr_segments;
    return OBD_OK;
}

/* Under map_lock. */
static void take_promise_back(struct upper *upper, const struct reservation *r)
{
    upper->slots_reserved--;
    upper->inserts_owed -= r->nr_segments;
    upper->entries_owed -= r->nr_segments;
}

/* Makes [*room, end) of the file ours: a whole step if the disk has it, else just
 * what is needed. */
static enum obd_status reserve_to(struct file *file, uint64_t *room, uint64_t end, uint64_t step)
{
    if (end <= *room)
        return OBD_OK;
    uint64_t wanted = round_up(end, step);
    enum obd_status status = file_reserve(file, *room, wanted - *room);
    if (status == OBD_E_NO_SPACE) {
        wanted = end;
        status = file_reserve(file, *room, wanted - *room);
    }
    if (status == OBD_OK)
        *room = wanted;
    return status;
}

/* Under reserve_lock. */
static enum obd_status reserve_disk(struct upper *upper, struct reservation *r, uint64_t index_end)
{
    uint64_t log_end = upper->log_end + r->log_bytes;
    enum obd_status status = reserve_to(upper->index, &upper->index_room, index_end, INDEX_STEP);
    if (status == OBD_OK && upper->is_on_device)
        status = log_end <= upper->log_room ? OBD_OK : upper_device_refuse_full(upper, log_end);
    else if (status == OBD_OK)
        status = reserve_to(upper->data, &upper->log_room, log_end, LOG_STEP);
    if (status != OBD_OK)
        return status_prefix(status, "upper %s", upper->name);
    if (!upper->is_sparse)
        r->place = upper->log_end;
    upper->log_end += r->log_bytes;
    return OBD_OK;
}

static void release(struct upper *upper, const struct reservation *r)
{
    pthread_mutex_lock(&upper->map_lock);
    take_promise_back(upper, r);
    if (!list_is_empty(&upper->waiters))
        upper_want_flush(upper); /* the flusher wakes them: this slot is free without a flush */
    pthread_mutex_unlock(&upper->map_lock);
}

/* Under reserve_lock: is the space there already? */
static bool has_disk(const struct upper *upper, const struct reservation *r, uint64_t index_end)
{
    return index_end <= upper->index_room && upper->log_end + r->log_bytes <= upper->log_room;
}

/* Under reserve_lock and map_lock, of which the second is given up. */
static enum obd_status reserve_locked(struct upper *upper, struct reservation *r, bool nowait)
{
    enum obd_status status = promise(upper, r);
    uint64_t index_end = upper->index_length + upper->entries_owed * UPPER_ENTRY_SIZE;
    /* Look-ups go on while the disk is asked. */
    pthread_mutex_unlock(&upper->map_lock);
    if (status != OBD_OK)
        return status;
    status = nowait && !has_disk(upper, r, index_end) ? OBD_E_AGAIN : reserve_disk(upper, r, index_end);
    if (status != OBD_OK)
        release(upper, r);
    return status;
}

static enum obd_status reserve(struct upper *upper, struct reservation *r)
{
    pthread_mutex_lock(&upper->reserve_lock);
    pthread_mutex_lock(&upper->map_lock);
    enum obd_status status = reserve_locked(upper, r, false);
    pthread_mutex_unlock(&upper->reserve_lock);
    return status;
}

static enum obd_status try_reserve(struct upper *upper, struct reservation *r)
{
    if (pthread_mutex_trylock(&upper->reserve_lock) != 0)
        return OBD_E_AGAIN;
    enum obd_status status = OBD_E_AGAIN;
    if (pthread_mutex_trylock(&upper->map_lock) == 0)
        status = reserve_locked(upper, r, true);
    pthread_mutex_unlock(&upper->reserve_lock);
    return status;
}

/* ---- recording ---- */

/* Under map_lock. */
static void note_unflushed(struct upper *upper, uint64_t bytes)
{
    upper->unflushed_bytes += bytes;
    if (upper->dirty_since_ns == 0) {
        upper->dirty_since_ns = clock_now_ns();
        pthread_cond_signal(&upper->flusher_wake); /* it slept without a deadline */
    }
    if (journal_nr_free(upper->journal) * 4 <= upper->nr_slots ||
        (upper->flush_interval_ns != 0 && upper->unflushed_bytes >= UNFLUSHED_LIMIT))
        upper_want_flush(upper);
}

/* Under map_lock: the record to the journal, then its segments to the map. */
static enum obd_status record_in_order(struct upper *upper, const struct reservation *r, struct journal_record *record)
{
    if (upper->is_failed)
        return upper_refuse(upper);
    if (record->kind == JOURNAL_DISCARD)
        record->place = upper->is_sparse ? upper_sparse_place(record->offset) : upper->log_written;
    else if (upper->is_sparse && upper_sparse_is_data(upper, record->offset, record->length))
        record->kind = JOURNAL_REWRITE;
    enum obd_status status = journal_append(upper->journal, record);
    if (status != OBD_OK)
        return status;
    HOOK("upper.record_written");
    struct record_walk walk = record_walk_begin(record, upper->tag);
    struct segment s;
    while (record_walk_next(&walk, &s))
        segment_map_insert(upper->map, s);
    HOOK("upper.map_inserted");
    upper->log_written = max_u64(upper->log_written, r->place + r->log_bytes);
    note_unflushed(upper, record->kind == JOURNAL_DISCARD ? 0 : record->length);
    return OBD_OK;
}

/* Makes good what r promised: acknowledged when this is OBD_OK. */
static enum obd_status record(struct upper *upper, const struct reservation *r, struct journal_record *record)
{
    pthread_mutex_lock(&upper->map_lock);
    enum obd_status status = record_in_order(upper, r, record);
    if (status == OBD_OK) { /* the entries stay owed until a flush has appended them */
        upper->slots_reserved--;
        upper->inserts_owed -= r->nr_segments;
        upper->entries_owed -= r->nr_segments - record_nr_segments(record->kind, record->length);
    }
    pthread_mutex_unlock(&upper->map_lock);
    if (status != OBD_OK)
        release(upper, r);
    return status;
}

/* ---- commands ---- */

static struct reservation data_reservation(const struct upper *upper, uint64_t length, uint64_t offset)
{
    uint64_t nr_segments = record_nr_segments(JOURNAL_DATA, length);
    if (upper->is_sparse)
        return (struct reservation){.nr_segments = nr_segments, .place = upper_sparse_place(offset)};
    return (struct reservation){.nr_segments = nr_segments, .log_bytes = length};
}

static enum obd_status write_reserved(struct upper *upper, const struct reservation *r, struct iov_cursor *cursor,
                                      uint64_t length, uint64_t offset)
{
    HOOK("upper.reserved");
    enum obd_status status = file_write_iov(upper->data, cursor, length, r->place);
    if (status != OBD_OK) {
        /* Its place in the log stays empty, and nothing will ever point there. */
        release(upper, r);
        return status_prefix(status, "upper %s", upper->name);
    }
    HOOK("upper.data_written");
    struct journal_record made = {.offset = offset, .length = length, .place = r->place, .kind = JOURNAL_DATA};
    return record(upper, r, &made);
}

enum obd_status upper_write(struct upper *upper, struct iov_cursor *cursor, uint64_t length, uint64_t offset)
{
    assert(is_aligned(offset | length, SECTOR_SIZE));
    if (upper->is_read_only)
        return upper_refuse(upper);
    if (length == 0)
        return OBD_OK;
    struct reservation r = data_reservation(upper, length, offset);
    enum obd_status status = reserve(upper, &r);
    return status == OBD_OK ? write_reserved(upper, &r, cursor, length, offset) : status;
}

/* Is it a matter of whole pages?  What is left of a page in a sparse file may have to be
 * read from the disk; in a log it is new. */
static bool needs_no_read(const struct upper *upper, uint64_t length, uint64_t offset)
{
    return !upper->is_sparse || is_aligned(offset | length, PAGE_BYTES);
}

static bool is_disk_at_ease(const struct upper *upper, uint64_t now_ns)
{
    return !atomic_load(&upper->is_syncing) && now_ns >= atomic_load(&upper->trusted_from_ns);
}

enum obd_status upper_try_write(struct upper *upper, struct iov_cursor *cursor, uint64_t length, uint64_t offset)
{
    assert(is_aligned(offset | length, SECTOR_SIZE) && length > 0);
    uint64_t begin_ns = clock_now_ns();
    struct reservation r = data_reservation(upper, length, offset);
    if (upper->is_read_only || !needs_no_read(upper, length, offset) || !is_disk_at_ease(upper, begin_ns))
        return OBD_E_AGAIN;
    enum obd_status status = try_reserve(upper, &r);
    if (status != OBD_OK)
        return status;
    status = write_reserved(upper, &r, cursor, length, offset);
    uint64_t end_ns = clock_now_ns();
    if (end_ns - begin_ns > SLOW_NS)
        atomic_store(&upper->trusted_from_ns, end_ns + DISTRUST_FACTOR * (end_ns - begin_ns));
    return status;
}

enum obd_status upper_discard(struct upper *upper, uint64_t length, uint64_t offset)
{
    assert(is_aligned(offset | length, SECTOR_SIZE));
    if (upper->is_read_only)
        return upper_refuse(upper);
    if (length == 0)
        return OBD_OK;
    struct reservation r = {.nr_segments = record_nr_segments(JOURNAL_DISCARD, length)};
    enum obd_status status = reserve(upper, &r);
    if (status != OBD_OK)
        return status;
    HOOK("upper.reserved");
    if (upper->is_sparse)
        status = upper_sparse_punch(upper, offset, length);
    if (status != OBD_OK) {
        release(upper, &r);
        return status_prefix(status, "upper %s", upper->name);
    }
    HOOK("sparse.punched");
    return record(upper, &r, &(struct journal_record){.offset = offset, .length = length, .kind = JOURNAL_DISCARD});
}
