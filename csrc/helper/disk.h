/* disk: the SCSI disk that a LUN has become, found and set up without udev.
 *
 * The address of a loopback port is in its TPG's "address" attribute; the disk is the
 * child of that SCSI device in /sys.  sdX is there before the kernel has read its
 * partition table, and while it reads, every open of the disk sleeps where no signal
 * reaches: this is why it is done in a process of its own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_HELPER_DISK_H
#define OBD_HELPER_DISK_H

#include <stdbool.h>
#include <stddef.h>

#include "helper/configfs.h"
#include "helper/options.h"

struct disk {
    char address[32];      /* H:C:T:0 */
    char name[32];         /* sdX */
    char device[PATH_MAX]; /* /sys/class/scsi_device/H:C:T:0/device */
};

/* The disk of places->tpg as it is now; an errno value: ENOENT when there is none (yet). */
int disk_look(const struct options *options, const struct places *places, struct disk *disk);

/* Steps. */
bool disk_find(const struct options *options, const struct places *places, struct disk *disk);
bool disk_set_timeout(const struct options *options, const struct disk *disk);
/* Reads the first 4 KiB from the device itself, not from a cache. */
bool disk_read_first_block(const struct options *options, const struct disk *disk);
/* After it has been read: the queue's folder appears later than the disk. */
bool disk_set_up_queue(const struct options *options, const struct disk *disk);
/* Opens it exclusively: fails while a partition or the disk is mounted, in any mount
 * namespace, or used by swap, LVM, md, ...  The claim is held until the process ends. */
bool disk_claim(const struct options *options, const struct disk *disk);
/* From now on the kernel believes that there is no cache to be flushed. */
bool disk_spare_flush(const struct options *options, const struct disk *disk);
/* All that it is asked fails from now on, but for what the kernel itself flushes or aborts. */
bool disk_set_offline(const struct disk *disk);
/* Asks for its size again and reads the partition table, as after a change of medium. */
bool disk_rescan(const struct options *options);

#endif
