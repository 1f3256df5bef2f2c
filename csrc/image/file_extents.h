/* file_extents: the data extents of a file (SEEK_DATA, SEEK_HOLE) as segments: the
 * index of a file that has none.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_IMAGE_FILE_EXTENTS_H
#define OBD_IMAGE_FILE_EXTENTS_H

#include "base/file.h"
#include "index/segment_array.h"

/* The data in bytes [disk_begin, disk_end) of the file, whole sectors of it, in order,
 * each extent cut into segments as long as they can be.  Byte 0 of the disk lies at
 * disk_begin; moffset counts from byte 0 of the file.  Gives out, to be freed. */
enum obd_status file_extents(struct file *file, uint64_t disk_begin, uint64_t disk_end, struct segment_array *out);

#endif
