/* compact: the live segments of an image, copied densely into a writer.
 *
 * This is commit and merge (spec/lsmt.md section 7): data of every segment in
 * offset order, cut into pieces of at most 64 sectors, then neighbours in the new
 * index joined by the reference's rule, then padding to 256 entries.  The same
 * image gives the same bytes, always.
 *
 * Works in steps, so that the caller can show progress and be stopped.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_IMAGE_COMPACT_H
#define OBD_IMAGE_COMPACT_H

#include "image/image.h"
#include "image/writer.h"

struct compact;

/* Freezes the image's segments now; later writes do not show.  The writer stands
 * behind the 4096 bytes of the LSMT header; both are borrowed. */
enum obd_status compact_open(struct image *image, struct writer *writer, const struct obd_compact_params *params,
                             struct compact **out);
uint64_t compact_total(const struct compact *compact); /* bytes of data to copy */

/* Copies about max_bytes more; *done is the sum so far.  Finished when it is the total. */
enum obd_status compact_step(struct compact *compact, uint64_t max_bytes, uint64_t *done);

/* Writes the index; result for the trailer.  OBD_E_LIMIT above 1,000,000 entries. */
enum obd_status compact_finish(struct compact *compact, struct obd_compact_result *result);
void compact_close(struct compact *compact);

#endif
