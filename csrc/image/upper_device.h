/* upper_device: an append upper whose data file is a block device.
 *
 * A file's end says where its log ends; a device's does not, and behind the log lies
 * whatever was there before.  So the log is known by the index alone, which is a file,
 * with the journal beside it: it ends behind the last sector that a segment points to.
 * What lies behind that was never flushed, or is dead, and is written over.
 *
 *   - the device is claimed (O_EXCL): one that is mounted, or held elsewhere, is busy
 *   - no space is reserved, and none given back: the device has it
 *   - it cannot be sealed, because a trailer ends a file
 *   - it cannot be sparse, because a device has no holes
 *
 * Private to upper*.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_IMAGE_UPPER_DEVICE_H
#define OBD_IMAGE_UPPER_DEVICE_H

#include "image/upper_state.h"

/* After the map is restored: where the log ends, and how much room there is. */
enum obd_status upper_device_find_end(struct upper *upper);

/* The log would end at end, past the device. */
enum obd_status upper_device_refuse_full(const struct upper *upper, uint64_t end);

#endif
