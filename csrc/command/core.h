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

/* A hold: no write or discard runs when this returns OBD_OK, and none begins before
 * device_resume; those that come wait for their range, reads and flushes go on.  Commands
 * that are parked stay so, and hold nothing.  OBD_E_TIMEOUT when what runs has not ended
 * by deadline_ns, and OBD_E_BUSY when somebody holds it: nothing has changed then. */
enum obd_status device_hold(struct device *device, uint64_t deadline_ns);
void device_resume(struct device *device);

/* While held: commands go to image from now on, which is writable, has the same size, and
 * shows the same bytes.  Takes its own reference.  The image before it is kept for reads
 * that still use it; its upper, if it has been sealed, is written no more. */
enum obd_status device_replace_image(struct device *device, struct image *image);
/* Waits until nobody uses images that were replaced, and gives them back.  After
 * OBD_E_TIMEOUT they are kept, to be given back by another call, or at device_close. */
enum obd_status device_drop_replaced(struct device *device, uint64_t deadline_ns);

uint64_t device_size(const struct device *device);
/* As image_grow, of the image as it is now. */
enum obd_status device_grow(struct device *device, uint64_t size);
/* As it is now: of use to who knows that nobody replaces it. */
struct image *device_image(struct device *device);
struct image *device_take_image(struct device *device); /* with a reference for the caller */
const char *device_name(const struct device *device);
void device_stats(struct device *device, struct obd_device_stats *stats);
void device_latency(struct device *device, struct obd_latency *out); /* see obd_device_latency */

#endif
