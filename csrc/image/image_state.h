/* image_state: what an image holds; private to image*.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_IMAGE_IMAGE_STATE_H
#define OBD_IMAGE_IMAGE_STATE_H

#include "image/image.h"

/* Segments looked up at once: few enough for the stack, enough for most reads. */
#define IMAGE_LOOKUP_BATCH 32

struct image {
    char *name;
    _Atomic uint64_t virtual_size; /* only grows, with its upper's */
    struct upper *upper;           /* owned; may be NULL */
    struct layer **lowers;         /* referenced; lowers[0] is the TOP one, as tags count */
    size_t nr_lowers;
    struct segment_array merged; /* of the lowers; tag = place in lowers */
    atomic_uint nr_references;
};

#endif
