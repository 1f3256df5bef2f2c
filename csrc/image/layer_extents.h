/* layer_extents: a layer without an index: what the file system says has data is
 * what the layer has (layer_open_raw).
 *
 * Private to layer*.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_IMAGE_LAYER_EXTENTS_H
#define OBD_IMAGE_LAYER_EXTENTS_H

#include "image/layer.h"

/* A layer with an empty index and its own reference to source; NULL, with the
 * sentence set, when there is no memory. */
struct layer *layer_new(struct source *source, uint64_t virtual_size);

#endif
