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
 *   open, records damaged  ours         this    replay what comes before the damage
 *   without a header       ?            ?       nothing
 *
 * "Ours" is the UUID, and device and inode of the data file: a copied upper has
 * another inode, and the records' places may not be in the copy.  Where it says
 * refuse or failed, OBD_UPPER_DROP_UNFLUSHED makes it nothing.
 *
 * The last two rows are the business of upper_damage.c.
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
    if (!journal->has_header || journal->state == JOURNAL_CLEAN)
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

/* The journal was here when the index file was longer: flushed entries are gone. */
static enum obd_status refuse_short_index(const struct upper *upper, const struct journal_contents *journal,
                                          uint64_t index_end)
{
    return status_set(OBD_E_CORRUPT,
                      "%s has %llu bytes of good entries, but %s saw %llu flushed: it was cut or replaced; "
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

/* ---- the index ---- */

static struct upper_index_bounds index_bounds(const struct upper *upper, const struct journal_contents *journal)
{
    if (upper->is_derived) /* all of it is synced, and no journal knows its length */
        return (struct upper_index_bounds){
            .length = UINT64_MAX, .flushed_length = UINT64_MAX, .is_flushed_known = true};
    bool is_known = journal->has_header && journal->is_same_uuid;
    return (struct upper_index_bounds){
        .length = is_known && journal->state == JOURNAL_FAILED ? journal->index_length : UINT64_MAX,
        .flushed_length = journal->index_length,
        .is_flushed_known = is_known,
    };
}

/* What was surely flushed must be there. */
static enum obd_status check_flushed_length(struct upper *upper, const struct journal_contents *journal,
                                            const struct upper_index_bounds *bounds, enum verdict *verdict)
{
    bool is_in_use = journal->state == JOURNAL_OPEN || journal->state == JOURNAL_FAILED;
    /* A side index is shorter once it has been written anew, with all that it had. */
    if (!bounds->is_flushed_known || !is_in_use || upper->is_sparse || upper->index_length >= bounds->flushed_length)
        return OBD_OK;
    if ((upper->flags & OBD_UPPER_DROP_UNFLUSHED) == 0)
        return refuse_short_index(upper, journal, upper->index_length);
    if (*verdict == VERDICT_REPLAY)
        *verdict = VERDICT_NOTHING; /* the records belong behind entries that are gone */
    return OBD_OK;
}

static enum obd_status load_index(struct upper *upper, const struct upper_index_bounds *bounds)
{
    struct loaded_index loaded;
    enum obd_status status = upper_index_load(upper, bounds, &loaded);
    if (status != OBD_OK)
        return status;
    upper->map = loaded.map;
    upper->index_length = loaded.end;
    upper->dropped_bytes = loaded.dropped;
    upper->is_drop_unexplained = loaded.dropped >= UPPER_ENTRY_SIZE && !bounds->is_flushed_known;
    if (loaded.dropped > 0)
        log_write(OBD_LOG_WARNING, "upper %s: the last %llu bytes of its index %s are dropped, from byte %llu on%s: %s",
                  upper->name, (unsigned long long)loaded.dropped, file_path(upper->index),
                  (unsigned long long)loaded.end, bounds->is_flushed_known ? ", which were never flushed" : "",
                  loaded.why_dropped);
    return OBD_OK;
}

static enum obd_status load_map(struct upper *upper, const struct upper_index_bounds *bounds)
{
    if (upper->index != NULL)
        return load_index(upper, bounds);
    upper->index_length = UPPER_HEADER_SIZE;
    return upper_sectors_load_derived(upper, &upper->map);
}

/* ---- applying records ---- */

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
    enum obd_status status = OBD_OK;
    for (size_t i = 0; i < journal->nr_records && status == OBD_OK; i++)
        status = apply_record(upper, &journal->records[i]);
    if (status == OBD_OK && !upper->is_read_only && journal->nr_records > 0)
        status = replay_into_index(upper, journal);
    if (status == OBD_OK)
        upper->replayed = journal->nr_records;
    return status;
}

/* ---- all of it ---- */

/* Cuts the index file to its last good entry, so that what is appended lies at a
 * multiple of an entry.  Synced: after a power cut what is appended must not be found
 * among bytes of what was there before, behind a journal that calls them flushed. */
static enum obd_status cut_index(struct upper *upper)
{
    uint64_t size;
    enum obd_status status = file_size(upper->index, &size);
    if (status != OBD_OK || size == upper->index_length)
        return status;
    status = file_truncate(upper->index, upper->index_length);
    return status == OBD_OK ? file_sync_data(upper->index) : status;
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

/* What the journal means and what is wrong with it; gives up what may be given up. */
static enum obd_status judge_all(struct upper *upper, struct journal_contents *journal, enum verdict *verdict)
{
    enum obd_status status = judge_or_refuse(upper, journal, verdict);
    if (status == OBD_OK && *verdict == VERDICT_REPLAY)
        status = upper_cut_records(upper, journal);
    return status == OBD_OK ? upper_accept_damage(upper, journal, *verdict == VERDICT_REPLAY) : status;
}

/* Entries behind the flushed length are in the journal, too, and are appended again: to the
 * same places, so that a power cut in the midst leaves a beginning of them.  Behind the
 * first copy it would leave some of them twice, and an older one last.  A damaged journal may
 * lack what the index has; and what a side index had may lie elsewhere by now. */
static void append_from_flushed(struct upper *upper, const struct journal_contents *journal, enum verdict verdict)
{
    if (verdict == VERDICT_REPLAY && journal->damage == NULL && !upper->is_sparse && !upper->is_read_only)
        upper->index_length = journal->index_length;
}

static enum obd_status restore_from(struct upper *upper, struct journal_contents *journal)
{
    enum verdict verdict;
    enum obd_status status = judge_all(upper, journal, &verdict);
    if (status != OBD_OK)
        return status;
    bool is_kept = upper_journal_is_kept(journal, verdict == VERDICT_REPLAY);
    struct upper_index_bounds bounds = index_bounds(upper, journal);
    status = load_map(upper, &bounds);
    if (status == OBD_OK)
        status = check_flushed_length(upper, journal, &bounds, &verdict);
    if (status != OBD_OK)
        return status;
    if (verdict == VERDICT_FAILED)
        set_failed_earlier(upper);
    append_from_flushed(upper, journal, verdict);
    if (!upper->is_read_only)
        status = cut_index(upper);
    if (status == OBD_OK && verdict == VERDICT_REPLAY)
        status = replay(upper, journal);
    if (status == OBD_OK && !upper->is_read_only && upper->is_sparse)
        status = upper_sectors_mark_open(upper);
    if (status == OBD_OK && !upper->is_read_only && is_kept)
        status = upper_lay_journal_aside(upper);
    if (status == OBD_OK && !upper->is_read_only)
        status = make_journal(upper);
    return status;
}

enum obd_status upper_restore(struct upper *upper)
{
    struct journal_contents journal;
    enum obd_status status = journal_read(upper->journal_path, &upper->owner, &journal);
    if (status == OBD_OK)
        status = restore_from(upper, &journal);
    journal_contents_free(&journal);
    return status;
}
