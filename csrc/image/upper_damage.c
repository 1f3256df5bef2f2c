/* upper_damage: a journal that is damaged, and writes that are lost with it.
 *
 * No power cut does that: what it tears are unsynced writes, and it leaves one of the two
 * headers whole (journal.h).  Somebody has had his hands in it, or the disk is bad.
 * Everything flushed is in the index all the same, so the upper opens, and says what
 * is lost:
 *
 *   without a header      nothing that a killed process of this boot has acknowledged,
 *                         unless records of this boot are there: each names its boot
 *   cut, or a record in   the records before the damage are replayed, those behind it
 *   the midst damaged     are lost
 *   data cut off          likewise, from the first record whose data is gone
 *
 * The file is laid aside (<journal>.damaged): what is in it may be of use to somebody.
 *
 * With OBD_UPPER_LOSE_NOTHING it refuses to lose acknowledged writes.  The daemon opens so
 * when it takes up a disk that outlived its predecessor: the file system on it is mounted,
 * counts on them, and would not notice.  A new disk has nobody above it yet; for that
 * one it is as after a power cut.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <limits.h>
#include <stdio.h>

#include "base/checked.h"
#include "base/log.h"
#include "image/upper_sparse.h"

/* May acknowledged writes be lost with what is damaged in it? */
static bool has_lost_writes(const struct journal_contents *journal, bool is_replayed)
{
    return journal->damage != NULL && (is_replayed || (!journal->has_header && journal->nr_lost > 0));
}

bool upper_journal_is_kept(const struct journal_contents *journal, bool is_replayed)
{
    return journal->exists && (!journal->has_header || has_lost_writes(journal, is_replayed));
}

enum obd_status upper_lay_journal_aside(const struct upper *upper)
{
    char aside[PATH_MAX];
    snprintf(aside, sizeof aside, "%s.damaged", upper->journal_path);
    enum obd_status status = file_rename(upper->journal_path, aside);
    if (status == OBD_OK)
        log_write(OBD_LOG_WARNING, "upper %s: its damaged journal is kept as %s", upper->name, aside);
    return status;
}

static void say_dropped(const struct upper *upper, const struct journal_contents *journal)
{
    if (journal->has_header)
        log_write(
            OBD_LOG_WARNING,
            "upper %s: %s is damaged: %s; %zu writes in it are replayed, and %llu or more that were acknowledged, "
            "but not flushed, are dropped",
            upper->name, upper->journal_path, journal->damage, journal->nr_records,
            (unsigned long long)journal->nr_lost);
    else if (journal->nr_lost > 0)
        log_write(OBD_LOG_WARNING,
                  "upper %s: %s is dropped: %s; %llu or more writes in it were acknowledged, but not flushed",
                  upper->name, upper->journal_path, journal->damage, (unsigned long long)journal->nr_lost);
    else
        log_write(OBD_LOG_WARNING, "upper %s: %s is dropped: %s, and no record in it is of this boot", upper->name,
                  upper->journal_path, journal->damage);
}

enum obd_status upper_accept_damage(struct upper *upper, const struct journal_contents *journal, bool is_replayed)
{
    bool is_lost = has_lost_writes(journal, is_replayed);
    if (journal->damage == NULL || (journal->has_header && !is_lost))
        return OBD_OK;
    if (is_lost && (upper->flags & (OBD_UPPER_LOSE_NOTHING | OBD_UPPER_DROP_UNFLUSHED)) == OBD_UPPER_LOSE_NOTHING)
        return status_set(OBD_E_JOURNAL,
                          "%s of upper %s is damaged: %s; %llu or more acknowledged writes cannot be replayed: "
                          "a new attach goes on without them",
                          upper->journal_path, upper->name, journal->damage, (unsigned long long)journal->nr_lost);
    upper->dropped_writes += journal->nr_lost;
    say_dropped(upper, journal);
    return OBD_OK;
}

static bool fits(const struct upper *upper, const struct journal_record *record, uint64_t data_size)
{
    uint64_t data_length = record->kind == JOURNAL_DISCARD ? 0 : record->length;
    bool is_in_place = record->place == upper_sparse_place(record->offset);
    return record->length > 0 && (upper->is_sparse ? is_in_place : record->kind != JOURNAL_REWRITE) &&
           is_aligned(record->offset | record->length | record->place, SECTOR_SIZE) &&
           range_is_inside(record->offset, record->length, upper->virtual_size) && record->place >= UPPER_HEADER_SIZE &&
           range_is_inside(record->place, data_length, data_size);
}

enum obd_status upper_cut_records(struct upper *upper, struct journal_contents *journal)
{
    uint64_t data_size;
    enum obd_status status = file_size(upper->data, &data_size);
    if (status != OBD_OK)
        return status;
    size_t nr = 0;
    while (nr < journal->nr_records && fits(upper, &journal->records[nr], data_size))
        nr++;
    if (nr == journal->nr_records)
        return OBD_OK;
    journal->nr_lost += journal->nr_records - nr;
    journal->nr_records = nr;
    if (journal->damage == NULL)
        journal->damage = "the data file is too short for a record";
    return OBD_OK;
}
