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

#endif
