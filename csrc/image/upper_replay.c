/* upper_replay: what the journal beside an upper means, and making it so.
 *
 *   the journal            of whom      boot    it means
 *   ---------------------  -----------  ------  ------------------------------------
 *   none, or clean         any          any     nothing unflushed
 *   open                   ours         this    replay
 *   open                   any          other   nothing: the power cut took what was
 *                                               not flushed
 *   open, provably empty   another's    this    nothing unflushed
 *   open                   another's    this    refuse: these writes belong elsewhere
 *   failed                 our UUID     any     read-only at index_length
 *   failed                 another's    any     refuse
 *   sealed                 our UUID     any     refuse writing
 *   sealed                 another's    any     nothing unflushed
 *   damaged                ?            ?       refuse
 *
 * "Ours" is the UUID, and device and inode of the data file: a copied upper has
 * another inode, and the records' places may not be in the copy.  Where it says
 * refuse or failed, OBD_UPPER_DROP_UNFLUSHED makes it nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "base/checked.h"
#include "base/hook.h"
#include "base/log.h"
#include "image/upper_sectors.h"
#include "image/upper_sparse.h"

enum verdict { VERDICT_NOTHING, VERDICT_REPLAY, VERDICT_FAILED, VERDICT_SEALED, VERDICT_FOREIGN };

static enum verdict judge(const struct journal_contents *journal)
{
    if (!journal->exists || journal->state == JOURNAL_CLEAN)
        return VERDICT_NOTHING;
    if (journal->state == JOURNAL_FAILED)
        return journal->is_same_uuid ? VERDICT_FAILED : VERDICT_FOREIGN;
    if (journal->state == JOURNAL_SEALED)
        return journal->is_same_uuid ? VERDICT_SEALED : VERDICT_NOTHING;
    if (!journal->is_same_boot)
        return VERDICT_NOTHING;
    if (journal->is_same_uuid && journal->is_same_file)
        return VERDICT_REPLAY;
    return journal->is_provably_empty ? VERDICT_NOTHING : VERDICT_FOREIGN;
}

static enum obd_status refuse_foreign(const struct upper *upper, const struct journal_contents *journal)
{
    return status_set(OBD_E_JOURNAL,
                      "%s holds %zu unflushed writes of another upper (%s), opened by \"%s\": is %s a copy? "
                      "--drop-unflushed goes on without them",
                      upper->journal_path, journal->nr_records,
                      journal->is_same_uuid ? "same UUID, another file" : "another UUID", journal->holder, upper->name);
}

/* The journal was here when the index file was longer. */
static enum obd_status refuse_short_index(const struct upper *upper, const struct journal_contents *journal,
                                          uint64_t index_end)
{
    return status_set(OBD_E_JOURNAL,
                      "%s has %llu bytes of whole entries, but %s saw %llu flushed: the index file was replaced; "
                      "--drop-unflushed goes on without what the journal holds",
                      file_path(upper->index), (unsigned long long)index_end, upper->journal_path,
                      (unsigned long long)journal->index_length);
}

/* Decides what to do; gives up what may be given up. */
static enum obd_status judge_or_refuse(struct upper *upper, const struct journal_contents *journal,
                                       enum verdict *verdict)
{
    *verdict = judge(journal);
    bool may_drop = (upper->flags & OBD_UPPER_DROP_UNFLUSHED) != 0;
    if (may_drop && (*verdict == VERDICT_FOREIGN || *verdict == VERDICT_FAILED)) {
        log_write(OBD_LOG_WARNING, "upper %s: %zu unflushed writes in %s are dropped, as was asked", upper->name,
                  journal->nr_records, upper->journal_path);
        *verdict = VERDICT_NOTHING;
    }
    if (*verdict == VERDICT_FOREIGN)
        return refuse_foreign(upper, journal);
    if (*verdict == VERDICT_SEALED && !upper->is_read_only)
        return status_set(OBD_E_READ_ONLY, "upper %s is sealed: it is a lower now and never written again",
                          upper->name);
    return OBD_OK;
}

/* Reads the journal; one that is damaged is an error unless it may be dropped. */
static enum obd_status read_journal(struct upper *upper, struct journal_contents *journal)
{
    enum obd_status status = journal_read(upper->journal_path, &upper->owner, journal);
    if (status != OBD_E_JOURNAL)
        return status;
    journal_contents_free(journal);
    if ((upper->flags & OBD_UPPER_DROP_UNFLUSHED) == 0)
        return status_prefix(status, "upper %s (--drop-unflushed goes on without it)", upper->name);
    log_write(OBD_LOG_WARNING, "upper %s: dropped as was asked: %s", upper->name, status_text());
    *journal = (struct journal_contents){.exists = false};
    return OBD_OK;
}

static struct upper_index_bounds index_bounds(const struct upper *upper, const struct journal_contents *journal)
{
    if (upper->is_derived) /* all of it is synced, and no journal knows its length */
        return (struct upper_index_bounds){.length = UINT64_MAX};
    bool is_failed = journal->exists && journal->is_same_uuid && journal->state == JOURNAL_FAILED;
    return (struct upper_index_bounds){
        .length = is_failed ? journal->index_length : UINT64_MAX,
        .flushed_length = journal->index_length,
        .may_have_zero_tail = journal->exists && journal->is_same_uuid && !journal->is_same_boot,
    };
}

/* ---- applying records ---- */

static enum obd_status check_record(const struct upper *upper, const struct journal_record *record, uint64_t data_size)
{
    uint64_t data_length = record->kind == JOURNAL_DISCARD ? 0 : record->length;
    bool is_in_place = record->place == upper_sparse_place(record->offset);
    if (record->length > 0 && (upper->is_sparse ? is_in_place : record->kind != JOURNAL_REWRITE) &&
        is_aligned(record->offset | record->length | record->place, SECTOR_SIZE) &&
        range_is_inside(record->offset, record->length, upper->virtual_size) && record->place >= UPPER_HEADER_SIZE &&
        range_is_inside(record->place, data_length, data_size))
        return OBD_OK;
    return status_set(
        OBD_E_CORRUPT,
        "journal %s: record %llu (%llu bytes at %llu, place %llu) does not fit a disk of %llu bytes and the %llu "
        "bytes of %s",
        upper->journal_path, (unsigned long long)record->sequence, (unsigned long long)record->length,
        (unsigned long long)record->offset, (unsigned long long)record->place, (unsigned long long)upper->virtual_size,
        (unsigned long long)data_size, upper->name);
}

static enum obd_status check_records(struct upper *upper, const struct journal_contents *journal)
{
    uint64_t data_size;
    enum obd_status status = file_size(upper->data, &data_size);
    for (size_t i = 0; i < journal->nr_records && status == OBD_OK; i++)
        status = check_record(upper, &journal->records[i], data_size);
    return status;
}

/* Puts the record into the map. */
static enum obd_status apply_record(struct upper *upper, const struct journal_record *record)
{
    enum obd_status status = segment_map_reserve(upper->map, record_nr_segments(record->kind, record->length));
    if (status != OBD_OK)
        return status;
    struct record_walk walk = record_walk_begin(record, upper->tag);
    struct segment s;
    while (record_walk_next(&walk, &s))
        segment_map_insert(upper->map, s);
    return OBD_OK;
}

static enum obd_status append_all(struct upper *upper, const struct journal_contents *journal)
{
    struct index_appender appender;
    index_appender_begin(&appender, upper);
    enum obd_status status = OBD_OK;
    for (size_t i = 0; i < journal->nr_records && status == OBD_OK; i++)
        status = index_appender_add(&appender, &journal->records[i]);
    if (status == OBD_OK)
        status = index_appender_finish(&appender);
    if (status == OBD_OK)
        upper->index_length = appender.end;
    return status;
}

/* As a flush does it: data first, then the index. */
static enum obd_status replay_into_index(struct upper *upper, const struct journal_contents *journal)
{
    enum obd_status synced = file_sync_data(upper->data);
    if (synced == OBD_OK) {
        enum obd_status status = append_all(upper, journal);
        if (status != OBD_OK)
            return status; /* the torn tail is cut at the next open; the journal is still there */
        HOOK("upper.open.replay_appended");
        synced = file_sync_data(upper->index);
    }
    if (synced != OBD_OK) {
        char why[STATUS_TEXT_SIZE];
        snprintf(why, sizeof why, "%s", status_text());
        journal_mark(upper->journal_path, JOURNAL_FAILED);
        return status_set(synced, "upper %s: replaying its journal: %s", upper->name, why);
    }
    HOOK("upper.open.replayed");
    return OBD_OK;
}

static enum obd_status replay(struct upper *upper, const struct journal_contents *journal)
{
    enum obd_status status = check_records(upper, journal);
    for (size_t i = 0; i < journal->nr_records && status == OBD_OK; i++)
        status = apply_record(upper, &journal->records[i]);
    if (status == OBD_OK && !upper->is_read_only && journal->nr_records > 0)
        status = replay_into_index(upper, journal);
    if (status == OBD_OK)
        upper->replayed = journal->nr_records;
    return status;
}

/* ---- all of it ---- */

/* Cuts the index file to its last whole entry, so that what is appended lies at a
 * multiple of an entry. */
static enum obd_status cut_index(struct upper *upper)
{
    uint64_t size;
    enum obd_status status = file_size(upper->index, &size);
    if (status == OBD_OK && size != upper->index_length)
        status = file_truncate(upper->index, upper->index_length);
    return status;
}

static enum obd_status make_journal(struct upper *upper)
{
    const char *path = upper->journal_path;
    if ((upper->flags & OBD_UPPER_NO_JOURNAL) != 0) {
        file_remove(path); /* replayed by now; left there it would be replayed again over later writes */
        path = NULL;
    }
    enum obd_status status =
        journal_create(path, &upper->owner, upper->holder, upper->nr_slots, upper->index_length, &upper->journal);
    HOOK("upper.open.journal_ready");
    return status;
}

static void set_failed_earlier(struct upper *upper)
{
    upper->is_read_only = true;
    upper->is_failed = true;
    snprintf(upper->why_read_only, sizeof upper->why_read_only,
             "upper %s is read-only: a sync of it failed earlier, as %s says; it shows what was flushed before that, "
             "and --drop-unflushed goes on from there",
             upper->name, upper->journal_path);
}

static enum obd_status load_map(struct upper *upper, const struct journal_contents *journal)
{
    struct upper_index_bounds bounds = index_bounds(upper, journal);
    if (upper->index != NULL)
        return upper_index_load(upper, &bounds, &upper->map, &upper->index_length);
    upper->index_length = UPPER_HEADER_SIZE;
    return upper_sectors_load_derived(upper, &upper->map);
}

static enum obd_status restore_from(struct upper *upper, const struct journal_contents *journal)
{
    enum verdict verdict;
    enum obd_status status = judge_or_refuse(upper, journal, &verdict);
    if (status != OBD_OK)
        return status;
    status = load_map(upper, journal);
    if (status != OBD_OK)
        return status;
    /* A side index is shorter once it has been written anew, with all that it had. */
    if (verdict == VERDICT_REPLAY && !upper->is_sparse && upper->index_length < journal->index_length) {
        if ((upper->flags & OBD_UPPER_DROP_UNFLUSHED) == 0)
            return refuse_short_index(upper, journal, upper->index_length);
        verdict = VERDICT_NOTHING;
    }
    if (verdict == VERDICT_FAILED)
        set_failed_earlier(upper);
    if (!upper->is_read_only)
        status = cut_index(upper);
    if (status == OBD_OK && verdict == VERDICT_REPLAY)
        status = replay(upper, journal);
    if (status == OBD_OK && !upper->is_read_only && upper->is_sparse)
        status = upper_sectors_mark_open(upper);
    if (status == OBD_OK && !upper->is_read_only)
        status = make_journal(upper);
    return status;
}

enum obd_status upper_restore(struct upper *upper)
{
    struct journal_contents journal;
    enum obd_status status = read_journal(upper, &journal);
    if (status == OBD_OK)
        status = restore_from(upper, &journal);
    journal_contents_free(&journal);
    return status;
}
