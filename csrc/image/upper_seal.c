/* upper_seal: an upper ended in place, while it is being read (spec/lsmt.md section 7.1).
 *
 *   log | index: the map, sorted, as entries; zeros up to a sector | trailer
 *
 * Index and log are synced before the trailer is written, and the trailer is what makes a
 * layer of the file: so a file that ends in one is whole, also after a power cut.  What
 * was acknowledged and is not flushed yet need not be: the index holds it, and the sync of
 * the data file, which the log and this index share, covers it.
 *
 * Before the trailer the upper is what it was: the next start appends to the log behind an
 * index that nobody looks for.  Behind it, the upper is a lower, and whoever seals has
 * written down somewhere what goes on top of it (image/snapshot_intent.py).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/hook.h"
#include "image/upper_sealed.h"
#include "image/upper_state.h"

/* ---- the index behind the log ---- */

/* Under map_lock: from here on no write can begin, and none runs. */
static enum obd_status enter_sealing(struct upper *upper)
{
    if (upper->is_read_only || upper->is_failed || upper->seal_state != UPPER_OPEN)
        return upper_refuse(upper);
    if (upper->is_on_device)
        return status_set(OBD_E_UNSUPPORTED, "upper %s is a device, whose end is no place for a trailer: commit it",
                          upper->name);
    if (upper->is_sparse)
        return status_set(OBD_E_UNSUPPORTED, "upper %s is sparse: it has no log that an index could end", upper->name);
    if (upper->inserts_owed > 0)
        return status_set(OBD_E_BUSY, "upper %s is being written, so it cannot be sealed", upper->name);
    size_t nr = segment_map_count(upper->map);
    if (nr > OBD_MAX_LAYER_SEGMENTS)
        return status_set(OBD_E_LIMIT,
                          "upper %s has %zu segments, and no reader opens a layer of more than %d: commit it",
                          upper->name, nr, OBD_MAX_LAYER_SEGMENTS);
    upper->seal_state = UPPER_SEALING;
    return OBD_OK;
}

static void leave_sealing(struct upper *upper, enum upper_seal_state state)
{
    pthread_mutex_lock(&upper->map_lock);
    upper->seal_state = state;
    pthread_cond_signal(&upper->flusher_wake); /* it may have work again, or none any more */
    pthread_mutex_unlock(&upper->map_lock);
}

static enum obd_status freeze_for_seal(struct upper *upper, struct segment_array *frozen)
{
    pthread_mutex_lock(&upper->map_lock);
    enum obd_status status = enter_sealing(upper);
    if (status == OBD_OK)
        status = segment_map_freeze(upper->map, frozen);
    if (status != OBD_OK && upper->seal_state == UPPER_SEALING)
        upper->seal_state = UPPER_OPEN;
    pthread_mutex_unlock(&upper->map_lock);
    return status;
}

/* Turns the entries in frozen into what lies on disk. */
static enum obd_status write_index(struct upper *upper, struct segment_array *frozen)
{
    static const uint8_t zeros[SECTOR_SIZE];
    uint64_t length = frozen->nr * UPPER_ENTRY_SIZE;
    struct obd_sealed_index *sealed = &upper->sealed;
    pthread_mutex_lock(&upper->reserve_lock);
    *sealed = (struct obd_sealed_index){.index_offset = upper->log_end, .nr_entries = frozen->nr};
    pthread_mutex_unlock(&upper->reserve_lock);
    uint64_t end = sealed->index_offset + length;
    sealed->trailer_offset = round_up(end, SECTOR_SIZE);
    enum obd_status status = OBD_OK;
    if (length > 0) {
        segments_to_disk(frozen->segments, frozen->segments, frozen->nr);
        status = file_write(upper->data, frozen->segments, length, sealed->index_offset);
    }
    if (status == OBD_OK && end < sealed->trailer_offset)
        status = file_write(upper->data, zeros, sealed->trailer_offset - end, end);
    return status == OBD_OK ? OBD_OK : status_prefix(status, "upper %s", upper->name);
}

static enum obd_status sync_or_fail(struct upper *upper)
{
    enum obd_status status = file_sync_data(upper->data);
    return status == OBD_OK ? OBD_OK : upper_fail(upper, status);
}

enum obd_status upper_seal(struct upper *upper, struct obd_sealed_index *index)
{
    struct segment_array frozen = {0};
    enum obd_status status = freeze_for_seal(upper, &frozen);
    if (status != OBD_OK)
        return status;
    status = write_index(upper, &frozen);
    segment_array_free(&frozen);
    if (status == OBD_OK)
        status = sync_or_fail(upper);
    HOOK("seal.index_synced");
    *index = upper->sealed;
    return status;
}

/* ---- the trailer ---- */

/* It was written for this file by somebody else, and decides what the file is from now on. */
static enum obd_status check_sealed(struct upper *upper)
{
    bool is_sealed;
    enum obd_status status = upper_has_trailer(upper->data, &is_sealed);
    if (status == OBD_OK && !is_sealed)
        status = status_set(OBD_E_INVALID, "upper %s: the trailer that it was given is not its own", upper->name);
    return status;
}

/* So that nobody writes to it, even one who does not look for a trailer. */
static enum obd_status mark_journal(struct upper *upper, enum journal_state state)
{
    pthread_mutex_lock(&upper->map_lock);
    enum obd_status status = journal_set_state(upper->journal, state);
    pthread_mutex_unlock(&upper->map_lock);
    return status;
}

enum obd_status upper_finish_seal(struct upper *upper, const void *trailer)
{
    if (upper->seal_state != UPPER_SEALING)
        return status_set(OBD_E_INVALID, "upper %s has no index behind its log that a trailer could end", upper->name);
    enum obd_status status = file_write(upper->data, trailer, UPPER_HEADER_SIZE, upper->sealed.trailer_offset);
    HOOK("seal.trailer_written");
    if (status == OBD_OK) /* gives back what was reserved: nothing is to change the file later */
        status = file_truncate(upper->data, upper->sealed.trailer_offset + UPPER_HEADER_SIZE);
    if (status == OBD_OK)
        status = check_sealed(upper);
    if (status == OBD_OK)
        status = sync_or_fail(upper);
    HOOK("seal.trailer_synced");
    if (status == OBD_OK)
        status = mark_journal(upper, JOURNAL_SEALED);
    HOOK("seal.marked");
    if (status != OBD_OK)
        return status;
    leave_sealing(upper, UPPER_SEALED);
    upper_wake_waiters(upper); /* they find room in another upper */
    return OBD_OK;
}

/* ---- taken back ---- */

/* The mark first: a file with a trailer is not written, whatever its journal says. */
static enum obd_status cut_seal_off(struct upper *upper)
{
    enum obd_status status = mark_journal(upper, upper->is_failed ? JOURNAL_FAILED : JOURNAL_OPEN);
    if (status == OBD_OK)
        status = file_truncate(upper->data, upper->sealed.index_offset);
    return status == OBD_OK ? file_sync_data(upper->data) : status;
}

enum obd_status upper_unseal(struct upper *upper)
{
    if (upper->seal_state == UPPER_OPEN)
        return OBD_OK;
    enum obd_status status = cut_seal_off(upper);
    if (status != OBD_OK)
        return upper_fail(upper, status); /* what is behind the log may make a lower of it */
    pthread_mutex_lock(&upper->reserve_lock);
    upper->log_room = upper->log_end; /* what was reserved went with the cut */
    pthread_mutex_unlock(&upper->reserve_lock);
    leave_sealing(upper, UPPER_OPEN);
    return OBD_OK;
}
