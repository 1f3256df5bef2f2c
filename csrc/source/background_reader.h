/* background_reader: reads of a whole source by somebody who has time.
 *
 * As source_read_wait, but whoever reads for a command goes first: a source that fetches
 * asks for what is absent only when it has nothing better to do, and such a read says
 * nothing of what will be read next.  It may take long, so it can be stopped.
 *
 * One thread reads; stop comes from any.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_SOURCE_BACKGROUND_READER_H
#define OBD_SOURCE_BACKGROUND_READER_H

#include "base/status.h"

struct source;
struct background_reader;

/* Takes its own reference to source. */
enum obd_status background_reader_open(struct source *source, struct background_reader **out);
/* OBD_E_TIMEOUT; OBD_E_CANCELLED once it is stopped. */
enum obd_status background_reader_read(struct background_reader *reader, void *buffer, size_t length, uint64_t offset,
                                       uint64_t deadline_ns);
void background_reader_stop(struct background_reader *reader);
void background_reader_close(struct background_reader *reader); /* nobody reads or stops */

#endif
