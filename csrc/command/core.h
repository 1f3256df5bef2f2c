/* core: the workers that run commands, and the clock of their deadlines.
 *
 * One core serves all devices of the process.  Its workers take commands from
 * the devices' queues in turn, so that a busy device cannot keep an idle one
 * waiting; one timer thread ends commands whose deadline has passed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_COMMAND_CORE_H
#define OBD_COMMAND_CORE_H

#include "command/command.h"

struct core;

enum obd_status core_open(const struct obd_core_params *params, struct core **out);
void core_close(struct core *core); /* all devices must be closed */

/* A device is an image in service.  Takes its own reference to image. */
enum obd_status device_open(struct core *core, struct image *image, const struct obd_device_params *params,
                            struct device **out);

/* Commands that are parked, wait, or are queued end with status, which is not
 * OBD_OK, and so does every later one.  Those that run come to their end. */
void device_fail_parked(struct device *device, enum obd_status status);

/* Waits until every command is done (its done has returned), at most until
 * deadline_ns: OBD_E_TIMEOUT leaves the device as it was.  Then the upper is flushed,
 * however long the local disk takes, the device is gone and its image given back;
 * what the flush said is returned.  Nobody may be submitting meanwhile. */
enum obd_status device_close(struct device *device, uint64_t deadline_ns);

uint64_t device_size(const struct device *device);
struct image *device_image(const struct device *device);
const char *device_name(const struct device *device);
void device_stats(struct device *device, struct obd_device_stats *stats);

#endif
