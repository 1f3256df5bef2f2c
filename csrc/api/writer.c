/* api/writer: writing layers, for Python.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/writer.h"

#include "image/compact.h"

int obd_writer_open(const struct obd_writer_params *params, struct writer **out)
{
    return writer_open(params, out);
}

int obd_writer_write(struct writer *writer, const void *bytes, size_t length)
{
    return writer_write(writer, bytes, length);
}

int obd_writer_finish(struct writer *writer, struct obd_writer_result *result)
{
    return writer_finish(writer, result);
}

void obd_writer_close(struct writer *writer)
{
    writer_close(writer);
}

int obd_compact_open(struct image *image, struct writer *writer, const struct obd_compact_params *params,
                     struct compact **out)
{
    return compact_open(image, writer, params, out);
}

uint64_t obd_compact_total(const struct compact *compact)
{
    return compact_total(compact);
}

int obd_compact_step(struct compact *compact, uint64_t max_bytes, uint64_t *done)
{
    return compact_step(compact, max_bytes, done);
}

int obd_compact_finish(struct compact *compact, struct obd_compact_result *result)
{
    return compact_finish(compact, result);
}

void obd_compact_close(struct compact *compact)
{
    compact_close(compact);
}
