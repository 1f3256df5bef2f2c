/* api/source: sources for Python.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "source/source.h"

#include "base/checked.h"
#include "base/clock.h"
#include "source/background_reader.h"

int obd_source_open_file(const char *path, struct source **out)
{
    return source_open_file(path, out);
}

int obd_source_open_slice(struct source *below, uint64_t offset, uint64_t size, struct source **out)
{
    return source_open_slice(below, offset, size, out);
}

int obd_source_open_zfile(struct source *below, const struct obd_zfile_params *params, uint32_t timeout_ms,
                          struct source **out)
{
    return source_open_zfile(below, params, clock_deadline_ns(timeout_ms), out);
}

int obd_source_open_slow(struct source *below, uint32_t chunk_size, uint32_t delay_ms, uint32_t keep_ms,
                         struct source **out)
{
#ifdef OBD_TEST_BUILD
    return source_open_slow(below, chunk_size, delay_ms, keep_ms, out);
#else
    (void)below, (void)chunk_size, (void)delay_ms, (void)keep_ms, (void)out;
    return status_set(OBD_E_UNSUPPORTED, "a slow source is in the test build only");
#endif
}

int obd_source_set_late(struct source *slow, int is_late)
{
#ifdef OBD_TEST_BUILD
    return source_set_late(slow, is_late != 0);
#else
    (void)slow, (void)is_late;
    return status_set(OBD_E_UNSUPPORTED, "a slow source is in the test build only");
#endif
}

uint64_t obd_source_size(const struct source *source)
{
    return source->size;
}

int obd_source_read(struct source *source, void *buffer, size_t length, uint64_t offset, uint32_t timeout_ms)
{
    /* Here a range outside is the caller's mistake; below, only damaged metadata asks for one. */
    if (!range_is_inside(offset, length, source->size))
        return status_set(OBD_E_RANGE, "%s: %zu bytes at %llu are outside of its %llu", source->name, length,
                          (unsigned long long)offset, (unsigned long long)source->size);
    return source_read_wait(source, buffer, length, offset, clock_deadline_ns(timeout_ms));
}

int obd_source_verify_zfile(struct source *zfile, uint64_t first_block, uint64_t nr_blocks, uint32_t timeout_ms)
{
    return source_verify_zfile(zfile, first_block, nr_blocks, clock_deadline_ns(timeout_ms));
}

int obd_background_reader_open(struct source *source, struct background_reader **out)
{
    return background_reader_open(source, out);
}

int obd_background_reader_read(struct background_reader *reader, void *buffer, size_t length, uint64_t offset,
                               uint32_t timeout_ms)
{
    return background_reader_read(reader, buffer, length, offset, clock_deadline_ns(timeout_ms));
}

void obd_background_reader_stop(struct background_reader *reader)
{
    background_reader_stop(reader);
}

void obd_background_reader_close(struct background_reader *reader)
{
    background_reader_close(reader);
}

int obd_source_discard(struct source *source, uint64_t offset, uint64_t length)
{
    if (!range_is_inside(offset, length, source->size))
        return status_set(OBD_E_RANGE, "%s: %llu bytes at %llu are outside of its %llu", source->name,
                          (unsigned long long)length, (unsigned long long)offset, (unsigned long long)source->size);
    enum obd_status status = source_discard(source, offset, length);
    return status != OBD_E_CORRUPT ? status : status_set(status, "%s: cannot be fetched again", source->name);
}

struct source *obd_source_share(struct source *source)
{
    return source_ref(source);
}

void obd_source_close(struct source *source)
{
    source_unref(source);
}
