/* upper: see upper.h.  Here: open, close, look-ups and numbers.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/hook.h"
#include "base/thread.h"
#include "image/upper_device.h"
#include "image/upper_sealed.h"
#include "image/upper_sectors.h"
#include "image/upper_sparse.h"

#define DEFAULT_SLOTS 16384u

/* ---- open ---- */

static enum obd_status check_params(const struct obd_upper_params *params)
{
    if (strlen(params->uuid) != 36)
        return status_set(OBD_E_INVALID, "upper %s: a UUID has 36 characters, \"%s\" has not", params->data_path,
                          params->uuid);
    if (!is_aligned(params->virtual_size, SECTOR_SIZE) || params->virtual_size >> SECTOR_SHIFT > SEGMENT_MAX_OFFSET)
        return status_set(OBD_E_INVALID, "upper %s: a virtual size of %llu bytes cannot be had", params->data_path,
                          (unsigned long long)params->virtual_size);
    if (params->tag > UINT8_MAX)
        return status_set(OBD_E_LIMIT, "upper %s: %u lowers are more than %u", params->data_path, params->tag,
                          OBD_MAX_LAYERS);
#ifndef OBD_TEST_BUILD
    if ((params->flags & OBD_UPPER_NO_JOURNAL) != 0)
        return status_set(OBD_E_UNSUPPORTED, "upper %s: only the test build goes without a journal", params->data_path);
#endif
    return OBD_OK;
}

/* "serve" and a process id, cut so that the id is always whole. */
static void describe_holder(struct upper *upper, const char *holder)
{
    char process[24];
    int process_length = snprintf(process, sizeof process, ", pid %d", (int)getpid());
    int room = (int)sizeof upper->holder - 1 - process_length;
    snprintf(upper->holder, sizeof upper->holder, "%.*s%s", room, holder, process);
}

/* An upper with everything that needs no file. */
static struct upper *upper_new(const struct obd_upper_params *params)
{
    struct upper *upper = calloc(1, sizeof *upper);
    if (upper == NULL)
        return NULL;
    pthread_mutex_init(&upper->flush_lock, NULL);
    pthread_mutex_init(&upper->reserve_lock, NULL);
    pthread_mutex_init(&upper->map_lock, NULL);
    condition_init(&upper->flush_done);
    condition_init(&upper->flusher_wake);
    list_init(&upper->waiters);
    upper->virtual_size = params->virtual_size;
    upper->nr_slots = params->journal_slots == 0 ? DEFAULT_SLOTS : params->journal_slots;
    upper->flush_interval_ns = params->flush_interval_ms * NS_PER_MS;
    upper->tag = params->tag;
    upper->flags = params->flags;
    upper->is_read_only = (params->flags & OBD_UPPER_READ_ONLY) != 0;
    upper->is_sparse = (params->flags & OBD_UPPER_SPARSE) != 0;
    snprintf(upper->why_read_only, sizeof upper->why_read_only, "upper %s was opened read-only", params->data_path);
    memcpy(upper->owner.uuid, params->uuid, sizeof upper->owner.uuid);
    describe_holder(upper, params->holder == NULL ? "tcmu-overlaybd" : params->holder);
    upper->name = strdup(params->data_path);
    if (asprintf(&upper->index_path, "%s%s", params->index_path, upper->is_sparse ? ".sectors" : "") < 0)
        upper->index_path = NULL;
    if (asprintf(&upper->journal_path, "%s.journal", params->index_path) < 0)
        upper->journal_path = NULL;
    return upper;
}

static void upper_free(struct upper *upper)
{
    assert(list_is_empty(&upper->waiters));
    if (upper->journal != NULL)
        journal_close(upper->journal);
    segment_map_free(upper->map);
    file_close(upper->index);
    file_close(upper->data); /* with it goes the lock, so it is the last */
    pthread_cond_destroy(&upper->flusher_wake);
    pthread_cond_destroy(&upper->flush_done);
    pthread_mutex_destroy(&upper->map_lock);
    pthread_mutex_destroy(&upper->reserve_lock);
    pthread_mutex_destroy(&upper->flush_lock);
    segment_array_free(&upper->derived);
    free(upper->journal_path);
    free(upper->index_path);
    free(upper->name);
    free(upper);
}

/* Who has the data file locked, as far as that can be known. */
static enum obd_status refuse_held(struct upper *upper)
{
    if (!upper->is_read_only && file_lock(upper->data, FILE_SHARED) == OBD_OK)
        return status_set(OBD_E_BUSY, "upper %s cannot be opened for writing while another process reads it",
                          upper->name);
    struct journal_contents journal;
    enum obd_status status = journal_read(upper->journal_path, &upper->owner, &journal);
    if (status == OBD_OK && journal.has_header)
        status_set(OBD_E_BUSY, "upper %s is held by %s", upper->name, journal.holder);
    else
        status_set(OBD_E_BUSY, "upper %s is held by another process", upper->name);
    journal_contents_free(&journal);
    return OBD_E_BUSY;
}

static enum obd_status take_lock(struct upper *upper)
{
    enum obd_status status = file_lock(upper->data, upper->is_read_only ? FILE_SHARED : FILE_EXCLUSIVE);
    return status == OBD_E_BUSY ? refuse_held(upper) : status;
}

static enum obd_status ask_for_inode(struct file *file, struct stat *st)
{
    if (fstat(file_fd(file), st) != 0)
        return status_set_errno(errno, "cannot ask for the inode of %s", file_path(file));
    return OBD_OK;
}

/* What an earlier upper left on a device would look like entries of this one. */
static enum obd_status check_index_file(struct file *index)
{
    struct stat st;
    enum obd_status status = ask_for_inode(index, &st);
    if (status == OBD_OK && !S_ISREG(st.st_mode))
        status = status_set(OBD_E_UNSUPPORTED,
                            "upper index %s is not a regular file: where it ends says what was flushed, and a device "
                            "does not; only an upper's data may lie on one",
                            file_path(index));
    return status;
}

static enum obd_status find_owner(struct upper *upper)
{
    struct stat st;
    enum obd_status status = ask_for_inode(upper->data, &st);
    if (status != OBD_OK)
        return status;
    upper->is_on_device = S_ISBLK(st.st_mode);
    if (upper->is_on_device ? upper->is_sparse : !S_ISREG(st.st_mode))
        return status_set(OBD_E_UNSUPPORTED, "upper %s is no file%s", upper->name,
                          upper->is_on_device ? ", and a device has no holes: it cannot be a sparse upper" : "");
    /* A device's node is made anew now and then; its number stays as long as the boot. */
    upper->owner.data_device = upper->is_on_device ? st.st_rdev : st.st_dev;
    upper->owner.data_inode = upper->is_on_device ? 0 : st.st_ino;
    return OBD_OK;
}

/* Where the log ends: a torn last sector is skipped, never written into.  In a sparse
 * file everything has its place already; on a device it is found later. */
static enum obd_status find_log_end(struct upper *upper)
{
    uint64_t size;
    enum obd_status status = file_size(upper->data, &size);
    if (status == OBD_OK && size < UPPER_HEADER_SIZE)
        status = status_set(OBD_E_CORRUPT, "upper %s is %llu bytes long, shorter than its header", upper->name,
                            (unsigned long long)size);
    if (status != OBD_OK)
        return status;
    if (upper->is_sparse)
        size = UPPER_HEADER_SIZE + upper->virtual_size;
    upper->log_written = round_down(size, SECTOR_SIZE);
    upper->log_end = upper->log_room = round_up(size, SECTOR_SIZE);
    return OBD_OK;
}

static enum obd_status refuse_sealed(struct upper *upper)
{
    bool is_sealed;
    uint64_t size = 0;
    enum obd_status status = upper_has_trailer(upper->data, &is_sealed);
    if (status == OBD_OK && is_sealed && upper->is_sparse) {
        /* The last bytes of the disk are no trailer, whatever they look like. */
        status = file_size(upper->data, &size);
        is_sealed = size > UPPER_HEADER_SIZE + upper->virtual_size;
    }
    if (status == OBD_OK && is_sealed)
        status =
            status_set(OBD_E_READ_ONLY, "upper %s is sealed: it is a lower now and never written again", upper->name);
    return status;
}

static enum obd_status open_index(struct upper *upper)
{
    enum obd_status status = file_open(upper->index_path, upper->is_read_only ? O_RDONLY : O_RDWR, 0, &upper->index);
    return status == OBD_OK ? check_index_file(upper->index) : status;
}

static enum obd_status open_side_index(struct upper *upper)
{
    enum obd_status status = upper_sectors_open(upper);
    return status == OBD_OK && !upper->is_read_only ? upper_sparse_stretch(upper, upper->virtual_size) : status;
}

static enum obd_status open_files(struct upper *upper)
{
    int flags = upper->is_read_only ? O_RDONLY : O_RDWR | O_EXCL; /* claims a device, and is nothing to a file */
    enum obd_status status = file_open(upper->name, flags, 0, &upper->data);
    if (status == OBD_OK)
        status = find_owner(upper);
    if (status == OBD_OK)
        status = take_lock(upper);
    if (status == OBD_OK)
        status = find_log_end(upper);
    if (status == OBD_OK && !upper->is_read_only && !upper->is_on_device)
        status = refuse_sealed(upper);
    if (status != OBD_OK)
        return status;
    return upper->is_sparse ? open_side_index(upper) : open_index(upper);
}

enum obd_status upper_open(const struct obd_upper_params *params, struct upper **out)
{
    enum obd_status status = check_params(params);
    if (status != OBD_OK)
        return status;
    struct upper *upper = upper_new(params);
    if (upper == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to open upper %s", params->data_path);
    if (upper->name == NULL || upper->index_path == NULL || upper->journal_path == NULL)
        status = status_set(OBD_E_NO_MEMORY, "no memory to open upper %s", params->data_path);
    if (status == OBD_OK)
        status = open_files(upper);
    if (status == OBD_OK)
        status = upper_restore(upper);
    if (status == OBD_OK && upper->is_on_device)
        status = upper_device_find_end(upper);
    upper->index_room = upper->index_length;
    if (status == OBD_OK && !upper->is_read_only)
        status = upper_start_flusher(upper);
    if (status != OBD_OK) {
        upper_free(upper);
        return status;
    }
    *out = upper;
    return OBD_OK;
}

/* ---- close ---- */

/* Gives back what was reserved behind the end, so that the pair is as the
 * reference would have left it. */
static enum obd_status give_room_back(struct file *file)
{
    uint64_t size;
    enum obd_status status = file_size(file, &size);
    return status == OBD_OK ? file_truncate(file, size) : status;
}

/* Everything is in the index file: the journal has done its work. */
static enum obd_status retire_journal(struct upper *upper)
{
    enum obd_status status = journal_set_state(upper->journal, JOURNAL_CLEAN);
    HOOK("upper.close.marked_clean");
    if (status == OBD_OK && (upper->flags & OBD_UPPER_NO_JOURNAL) == 0)
        status = file_remove(upper->journal_path);
    HOOK("upper.close.removed");
    return status;
}

static enum obd_status close_writable(struct upper *upper)
{
    upper_stop_flusher(upper);
    if (upper->seal_state == UPPER_SEALED)
        return OBD_OK; /* whoever made a lower of it removes index and journal */
    enum obd_status status = upper_flush(upper);
    HOOK("upper.close.flushed");
    if (status != OBD_OK)
        return status; /* the journal stays: the next open goes on from it */
    if (upper->is_sparse)
        status = upper_sectors_mark_clean(upper);
    if (status == OBD_OK)
        status = retire_journal(upper);
    /* Of a sparse file nothing was reserved, and its mtime is noted; of a device neither. */
    if (status == OBD_OK && !upper->is_sparse && !upper->is_on_device)
        status = give_room_back(upper->data);
    return status == OBD_OK ? give_room_back(upper->index) : status;
}

enum obd_status upper_close(struct upper *upper)
{
    enum obd_status status = upper->is_read_only ? OBD_OK : close_writable(upper);
    upper_free(upper);
    return status;
}

/* ---- look-ups and numbers ---- */

uint64_t upper_virtual_size(const struct upper *upper)
{
    return upper->virtual_size;
}

bool upper_is_read_only(const struct upper *upper)
{
    return upper->is_read_only;
}

size_t upper_lookup(struct upper *upper, uint64_t begin, uint64_t end, struct segment *out, size_t max)
{
    pthread_mutex_lock(&upper->map_lock);
    size_t nr = segment_map_lookup(upper->map, begin, end, out, max);
    pthread_mutex_unlock(&upper->map_lock);
    return nr;
}

enum obd_status upper_read_log(struct upper *upper, struct iov_cursor *cursor, size_t length, uint64_t place,
                               bool nowait)
{
    return nowait ? file_read_iov_nowait(upper->data, cursor, length, place)
                  : file_read_iov(upper->data, cursor, length, place);
}

uint64_t upper_nr_segments(struct upper *upper)
{
    pthread_mutex_lock(&upper->map_lock);
    uint64_t nr = segment_map_count(upper->map);
    pthread_mutex_unlock(&upper->map_lock);
    return nr;
}

enum obd_status upper_freeze(struct upper *upper, struct segment_array *out)
{
    pthread_mutex_lock(&upper->map_lock);
    enum obd_status status = segment_map_freeze(upper->map, out);
    pthread_mutex_unlock(&upper->map_lock);
    if (status == OBD_OK && upper->is_sparse)
        upper_sparse_normalize(out);
    return status;
}

/* Bytes of the log that are still visible.  Walked in pieces, each under the lock,
 * so that a large map keeps no writer waiting. */
static uint64_t count_live_bytes(struct upper *upper)
{
    struct segment batch[256];
    uint64_t sectors = 0, from = 0;
    for (;;) {
        size_t nr = upper_lookup(upper, from, SEGMENT_MAX_OFFSET, batch, sizeof batch / sizeof batch[0]);
        for (size_t i = 0; i < nr; i++)
            sectors += batch[i].zeroed ? 0 : batch[i].length;
        if (nr < sizeof batch / sizeof batch[0])
            return sectors << SECTOR_SHIFT;
        from = segment_end(batch[nr - 1]);
    }
}

void upper_stats(struct upper *upper, struct obd_upper_stats *stats)
{
    memset(stats, 0, sizeof *stats);
    pthread_mutex_lock(&upper->flush_lock);
    stats->nr_flushes = upper->nr_flushes;
    stats->nr_flush_calls = upper->nr_flush_calls;
    pthread_mutex_unlock(&upper->flush_lock);
    pthread_mutex_lock(&upper->reserve_lock);
    stats->log_bytes = upper->log_end - UPPER_HEADER_SIZE;
    pthread_mutex_unlock(&upper->reserve_lock);
    if (upper->is_sparse)
        stats->log_bytes = upper_sparse_bytes(upper);
    pthread_mutex_lock(&upper->map_lock);
    if (upper->journal != NULL) {
        stats->nr_journal_slots = journal_nr_slots(upper->journal);
        stats->nr_journal_used = stats->nr_journal_slots - journal_nr_free(upper->journal);
    }
    stats->unflushed_bytes = upper->unflushed_bytes;
    stats->replayed = upper->replayed;
    stats->dropped_writes = upper->dropped_writes;
    stats->dropped_bytes = upper->dropped_bytes;
    stats->is_drop_unexplained = upper->is_drop_unexplained;
    stats->is_failed = upper->is_failed;
    pthread_mutex_unlock(&upper->map_lock);
    stats->nr_segments = upper_nr_segments(upper);
    stats->live_bytes = count_live_bytes(upper);
}
