/* upper_grow: an upper that becomes larger while it is used (spec/lsmt.md section 10).
 *
 * The size of the disk stands in both headers, and what is written past the old end
 * must never be found by an open that does not know of the new one.  So:
 *
 *   the data file's header, then the index file's, then the size in memory, from which
 *   on such a write is possible at all
 *
 * The index file's header is what an open believes.  A process killed before it is
 * written leaves the old size, and nothing past it; one killed later, the new.  A power
 * cut may keep either header, but the first flush that makes a write past the old end
 * durable syncs both files, and so both headers, whose pages are theirs.  A writable
 * open makes the data file's header like the index file's again.
 *
 * A sparse upper has one header, and its file is as long as the disk: it is made so, and
 * synced, before the header says it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <endian.h>

#include "base/checked.h"
#include "base/hook.h"
#include "image/upper_sparse.h"

/* virtual_size in the header block (spec/lsmt.md section 2). */
#define VIRTUAL_SIZE_PLACE 48

static enum obd_status check_growth(const struct upper *upper, uint64_t size)
{
    if (upper->is_read_only || upper->is_failed)
        return upper_refuse(upper);
    if (upper->seal_state != UPPER_OPEN)
        return status_set(OBD_E_BUSY, "upper %s is being sealed, or is sealed: its size stays", upper->name);
    if (!is_aligned(size, SECTOR_SIZE) || size >> SECTOR_SHIFT > SEGMENT_MAX_OFFSET)
        return status_set(OBD_E_INVALID, "upper %s: a virtual size of %llu bytes cannot be had", upper->name,
                          (unsigned long long)size);
    if (size < upper->virtual_size)
        return status_set(OBD_E_INVALID, "upper %s: its disk of %llu bytes cannot shrink to %llu", upper->name,
                          (unsigned long long)upper->virtual_size, (unsigned long long)size);
    return OBD_OK;
}

static enum obd_status write_size(struct file *file, uint64_t size)
{
    uint64_t field = htole64(size);
    return file_write(file, &field, sizeof field, VIRTUAL_SIZE_PLACE);
}

static enum obd_status write_headers(struct upper *upper, uint64_t size)
{
    enum obd_status status = write_size(upper->data, size);
    HOOK("upper.grow.data_header");
    if (status == OBD_OK && !upper->is_sparse)
        status = write_size(upper->index, size);
    HOOK("upper.grow.index_header");
    return status == OBD_OK ? OBD_OK : status_prefix(status, "upper %s: its new size", upper->name);
}

static enum obd_status stretch_data(struct upper *upper, uint64_t size)
{
    pthread_mutex_lock(&upper->map_lock);
    enum obd_status status = check_growth(upper, size);
    if (status == OBD_OK) {
        status = upper_sparse_stretch(upper, size);
        upper->nr_size_changes++; /* so that there is something to flush */
    }
    pthread_mutex_unlock(&upper->map_lock);
    return status == OBD_OK ? upper_flush(upper) : status;
}

enum obd_status upper_grow(struct upper *upper, uint64_t size)
{
    if (upper->is_sparse) {
        enum obd_status status = stretch_data(upper, size);
        if (status != OBD_OK)
            return status;
    }
    pthread_mutex_lock(&upper->reserve_lock);
    pthread_mutex_lock(&upper->map_lock);
    enum obd_status status = check_growth(upper, size);
    if (status == OBD_OK && size > upper->virtual_size) {
        status = write_headers(upper, size);
        if (status == OBD_OK)
            upper->virtual_size = size;
        if (status == OBD_OK && upper->is_sparse)
            upper->log_written = upper->log_end = upper->log_room = upper_sparse_place(size);
        upper->nr_size_changes++; /* also one that failed: the pages are dirty */
    }
    pthread_mutex_unlock(&upper->map_lock);
    pthread_mutex_unlock(&upper->reserve_lock);
    return status;
}
