/* background_reader: see background_reader.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "source/background_reader.h"

#include <stdlib.h>

#include "source/demand_wait.h"
#include "source/source.h"

struct background_reader {
    struct source *source; /* referenced */
    struct demand_wait wait;
};

enum obd_status background_reader_open(struct source *source, struct background_reader **out)
{
    struct background_reader *reader = malloc(sizeof *reader);
    if (reader == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to read %s", source->name);
    reader->source = source_ref(source);
    demand_wait_init(&reader->wait);
    reader->wait.demand.is_background = true;
    *out = reader;
    return OBD_OK;
}

enum obd_status background_reader_read(struct background_reader *reader, void *buffer, size_t length, uint64_t offset,
                                       uint64_t deadline_ns)
{
    enum obd_status status = source_read_with_wait(reader->source, &reader->wait, buffer, length, offset, deadline_ns);
    demand_release(&reader->wait.demand);
    return status;
}

void background_reader_stop(struct background_reader *reader)
{
    demand_wait_stop(&reader->wait);
}

void background_reader_close(struct background_reader *reader)
{
    demand_wait_destroy(&reader->wait);
    source_unref(reader->source);
    free(reader);
}
