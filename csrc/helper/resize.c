/* resize: tells the kernel that a device has grown: first LIO, then whoever has the disk.
 *
 * Writing dev_size asks the daemon, and sleeps until it has answered.  The size that a
 * SCSI disk has for the kernel is what it last read, so a rescan makes it read again.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "helper/verbs.h"

#include "helper/configfs.h"
#include "helper/disk.h"

void helper_resize(const struct options *options)
{
    struct places places;
    if (places_of(options, &places) &&
        attribute_write_number("dev-size", places.backstore, "attrib/dev_size", options->size) &&
        options->disk[0] != '\0')
        disk_rescan(options);
}
