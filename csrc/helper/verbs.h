/* verbs: what the helper can be asked to do.  Failures are in step_outcome().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_HELPER_VERBS_H
#define OBD_HELPER_VERBS_H

#include "helper/options.h"

/* Makes the device, or leaves nothing behind. */
void helper_attach(const struct options *options);

/* Removes what is there of it; stops at the first thing the kernel refuses. */
void helper_detach(const struct options *options);

/* The device has options->size bytes by now; options->disk is "" when it is no disk here. */
void helper_resize(const struct options *options);

/* All that lies on the device's ring fails, until the deadline or the end of who asked: for
 * what another program takes down of a device that no daemon serves (abandon.h). */
void helper_fail_ring(const struct options *options);

/* All disks of ours, whoever made them: the kernel does not flush them any more, so
 * that a machine that shuts down does not wait for that. */
void helper_spare_flush(const struct options *options);

/* That, and all that they are asked fails, now and from now on (abandon.h). */
void helper_abandon(const struct options *options);

#endif
