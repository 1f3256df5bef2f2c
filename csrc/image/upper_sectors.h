/* upper_sectors: the side index of a sparse upper, <index>.sectors.
 *
 * A sparse upper is one file in the reference's format: byte L of the disk lies at
 * 4096 + L, and what the upper has is what the file system says has data (spec/lsmt.md
 * section 4.3).  That forgets two things: a discard becomes a hole, through which the
 * lowers show, and a write of less than a file system's block becomes a whole block,
 * which hides them.  So we keep the map in a file of our own beside it.  The reference
 * neither reads nor changes it, and reads the data file as ever.
 *
 * Layout, little-endian
 *
 *   offset  size  header, one 4096-byte block
 *        0     8  magic "OBDSECT\1"
 *        8     4  version, 1
 *       12     4  state: 1 open, 2 clean
 *       16    36  UUID of the upper (from its data file's header), ASCII
 *       52     4  zero
 *       56     8  of the data file when it was closed: its size, bytes,
 *       64     8  its mtime, seconds since 1970,
 *       72     8  and the nanoseconds of that
 *       80     4  crc32c_raw of bytes 0..79, seed 0
 *
 *   then entries as in an append upper's index file, in the order of writes; moffset is
 *   always offset + 8, in discards too.
 *
 * It is believed if and only if
 *   (1) the header is whole and names the UUID of the data file, and
 *   (2) it is open, or clean and the data file has the size and mtime it had then: else
 *       another program has written there, and knows nothing of this file.
 * What is not believed is replaced by what the file system tells, with a line in the log.
 *
 * Open is said, and synced, before the first write of an opening; clean after the last
 * flush, when the data file's mtime is on the disk as well.  An opening that ended
 * without that (killed, power cut) is believed as it stands, with the journal: who wrote
 * what since cannot be told from the mtime.  inode and device say nothing here, because
 * a faithful copy of the files is as good as they are.
 *
 * Private to upper*.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_IMAGE_UPPER_SECTORS_H
#define OBD_IMAGE_UPPER_SECTORS_H

#include "image/upper_state.h"

/* Opens the side index as upper->index, or makes one of what the file system tells; a
 * read-only upper that has none to believe gets upper->derived instead. */
enum obd_status upper_sectors_open(struct upper *upper);

/* A map of upper->derived. */
enum obd_status upper_sectors_load_derived(struct upper *upper, struct segment_map **map);

/* Before the first write: the header says open. */
enum obd_status upper_sectors_mark_open(struct upper *upper);

/* After the last flush: the header says clean.  An index that has grown long is written
 * anew, without what is outdated. */
enum obd_status upper_sectors_mark_clean(struct upper *upper);

#endif
