/* upper_sparse: what is different when an upper is written in place.
 *
 * The circle of upper.h holds, with these changes:
 *
 *   write    the data goes to 4096 + offset.  Sectors that are data already need no
 *            entry in the index: the record is a rewrite then, and only says that
 *            there is something to sync
 *   discard  the space is given back first, then the record is made: a discard that
 *            was cut off in between reads as zeros already, which it may
 *   flush    the same, and the index is synced only when something was appended
 *
 * Invariant (3) of upper.h is not there: a sector that is written again changes in
 * place, so after a power cut it may hold any of the values since the last flush, and
 * a frozen map does not freeze the data.  A sector is written whole or not at all, as
 * disks do it.
 *
 * Steps at which a test may kill the process, besides those of upper.h:
 *   discard  sparse.punched, after upper.reserved
 *   open     sparse.sectors_written, sparse.sectors_replaced (both only when the side
 *            index is made anew), sparse.marked_open (when it was marked clean)
 *   close    sparse.marked_clean, after upper.close.flushed
 *
 * Private to upper*.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_IMAGE_UPPER_SPARSE_H
#define OBD_IMAGE_UPPER_SPARSE_H

#include "image/upper_state.h"

/* Where byte offset of the disk lies in the data file. */
static inline uint64_t upper_sparse_place(uint64_t offset)
{
    return UPPER_HEADER_SIZE + offset;
}

/* Makes the data file long enough for a disk of size bytes, if it is not. */
enum obd_status upper_sparse_stretch(struct upper *upper, uint64_t size);

/* Under map_lock: is all of the range data by now?  May say no when looking would take long. */
bool upper_sparse_is_data(struct upper *upper, uint64_t offset, uint64_t length);

/* Gives the range's space back, where the file system can do that. */
enum obd_status upper_sparse_punch(struct upper *upper, uint64_t offset, uint64_t length);

/* Joins neighbours, and cuts as file_extents does: the same map is the same index and the
 * same commit, however it was written. */
void upper_sparse_normalize(struct segment_array *segments);

/* What the data file takes on its disk, bytes. */
uint64_t upper_sparse_bytes(struct upper *upper);

#endif
