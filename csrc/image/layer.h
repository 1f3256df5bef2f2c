/* layer: a sealed layer of an image: a source and the index of what it holds.
 *
 * Never changes once open; counted, because images share layers (one open layer
 * per file however many images use it).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_IMAGE_LAYER_H
#define OBD_IMAGE_LAYER_H

#include "index/segment_array.h"
#include "source/source.h"

struct layer {
    struct source *source; /* the LSMT file, unwrapped and decompressed */
    struct segment_array index;
    uint64_t virtual_size; /* bytes */
    atomic_uint nr_references;
    char *name;
};

/* Reads and checks the index of a committed or sealed layer; where it lies was
 * read from the trailer by Python (spec/lsmt.md section 4.1).  Takes its own
 * reference to source. */
enum obd_status layer_open(struct source *source, const struct obd_layer_params *params, uint64_t deadline_ns,
                           struct layer **out);

/* A raw disk image as a layer: data extents are segments, with moffset counted
 * from byte 0 of the file; its size is rounded up to a sector.  For import. */
enum obd_status layer_open_raw(const char *path, struct layer **out);

struct layer *layer_ref(struct layer *layer);
void layer_unref(struct layer *layer); /* NULL is fine */

#endif
