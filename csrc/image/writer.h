/* writer: a byte stream into a file, compressed into ZFile blocks on the way.
 *
 * Strictly sequential, so a layer can be streamed: bytes given to writer_write
 * are cut into blocks, compressed by several threads, and written in order, so
 * that the file is the same at any number of threads.  writer_finish writes the
 * last, short block and the jump table; header, trailer and tar wrapper are
 * written by Python around it (spec/zfile.md sections 1, 9).
 *
 * Without a codec it is a plain copy.  One thread uses it at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_IMAGE_WRITER_H
#define OBD_IMAGE_WRITER_H

#include <stddef.h>

#include "base/status.h"

struct writer;

/* params->fd is borrowed; writing starts at params->offset in it. */
enum obd_status writer_open(const struct obd_writer_params *params, struct writer **out);
enum obd_status writer_write(struct writer *writer, const void *bytes, size_t length);
uint64_t writer_position(const struct writer *writer); /* bytes given so far */
enum obd_status writer_finish(struct writer *writer, struct obd_writer_result *result);
void writer_close(struct writer *writer); /* stops its threads; NULL is fine */

#endif
