/* image: the stack: merged lower layers and, on top, perhaps an upper.
 *
 * A sector is read from the upper when that has a segment there, else from the
 * topmost lower that has one, else it is zeros (spec/lsmt.md sections 5, 6).
 * The lowers' indexes are merged once, at open.
 *
 * Thread-safe: lowers never change, the upper locks itself.  Counted.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_IMAGE_IMAGE_H
#define OBD_IMAGE_IMAGE_H

#include "image/layer.h"
#include "image/upper.h"

struct image;

/* lowers[0] is the lowest (as in config.v1.json), nr_lowers <= 255; takes its own
 * references.  upper may be NULL; it is taken, also when this fails, and closed
 * with the last reference.  virtual_size in bytes was decided by Python
 * (spec/lsmt.md section 10). */
enum obd_status image_open(struct layer *const *lowers, size_t nr_lowers, struct upper *upper, uint64_t virtual_size,
                           const char *name, struct image **out);
struct image *image_ref(struct image *image);
void image_unref(struct image *image);
/* As image_unref, and says what closing the upper said when this was the last. */
enum obd_status image_close(struct image *image);

uint64_t image_size(const struct image *image);
const char *image_name(const struct image *image);
bool image_is_read_only(const struct image *image);   /* no upper, or one opened read-only */
struct upper *image_upper(const struct image *image); /* NULL when there is none */

/* Fills length bytes at the cursor.  offset and length are multiples of 512,
 * inside the disk.  As source_read: OBD_E_MISS has noted *every* absent chunk of
 * the range; OBD_E_AGAIN only with nowait. */
enum obd_status image_read(struct image *image, const struct read_context *context, struct iov_cursor *cursor,
                           uint64_t length, uint64_t offset);

/* The upper's, with OBD_E_READ_ONLY when there is none. */
enum obd_status image_write(struct image *image, struct iov_cursor *cursor, uint64_t length, uint64_t offset);
enum obd_status image_try_write(struct image *image, struct iov_cursor *cursor, uint64_t length, uint64_t offset);
enum obd_status image_discard(struct image *image, uint64_t length, uint64_t offset);
enum obd_status image_flush(struct image *image);

/* As upper_grow: the disk is larger from now on. */
enum obd_status image_grow(struct image *image, uint64_t size);

/* The upper's (upper_seal and its kin), with OBD_E_READ_ONLY when there is none. */
enum obd_status image_seal(struct image *image, struct obd_sealed_index *index);
enum obd_status image_finish_seal(struct image *image, const void *trailer);
enum obd_status image_unseal(struct image *image);

/* What [offset, offset + length) is made of, in order, neighbours of one kind
 * merged; at most max extents, *nr says how many.  For block status and maps. */
enum obd_status image_extents(struct image *image, uint64_t offset, uint64_t length, struct obd_extent *out, size_t max,
                              size_t *nr);

/* Segments of the merged lowers and of the upper: what the indexes cost. */
uint64_t image_nr_segments(struct image *image);

/* One sorted array of everything visible now, tag 0 = top (the upper, when
 * there is one), and the means to read what a segment points to. */
enum obd_status image_freeze(struct image *image, struct segment_array *out);
/* The same of the upper alone, for a commit of a stack that is in use. */
enum obd_status image_freeze_upper(struct image *image, struct segment_array *out);
enum obd_status image_read_mapped(struct image *image, struct segment s, void *buffer, uint64_t deadline_ns);

#endif
