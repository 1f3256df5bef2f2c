/* layer_extents: see layer_extents.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/layer_extents.h"

#include <fcntl.h>
#include <stdlib.h>

#include "base/checked.h"
#include "image/file_extents.h"

/* The file as whole sectors: what its last one lacks reads as zeros. */
static enum obd_status open_whole_sectors(const char *path, struct source **out)
{
    struct source *file;
    enum obd_status status = source_open_file(path, &file);
    if (status != OBD_OK)
        return status;
    status = source_open_padded(file, round_up(file->size, SECTOR_SIZE), out);
    source_unref(file); /* the padded one has its own */
    return status;
}

static enum obd_status list_extents(const char *path, uint64_t disk_size, struct segment_array *out)
{
    struct file *file;
    enum obd_status status = file_open(path, O_RDONLY, 0, &file);
    if (status != OBD_OK)
        return status;
    status = file_extents(file, 0, disk_size, out);
    file_close(file);
    return status;
}

static enum obd_status open_extents(const char *path, uint64_t disk_size, struct layer **out)
{
    struct segment_array index = {0};
    struct source *source;
    enum obd_status status = list_extents(path, disk_size, &index);
    if (status == OBD_OK)
        status = open_whole_sectors(path, &source);
    if (status != OBD_OK) {
        segment_array_free(&index);
        return status;
    }
    struct layer *layer = layer_new(source, disk_size);
    source_unref(source); /* the layer has its own */
    if (layer == NULL) {
        segment_array_free(&index);
        return OBD_E_NO_MEMORY;
    }
    layer->index = index;
    *out = layer;
    return OBD_OK;
}

static enum obd_status size_of(const char *path, uint64_t *size)
{
    struct file *file;
    enum obd_status status = file_open(path, O_RDONLY, 0, &file);
    if (status != OBD_OK)
        return status;
    status = file_size(file, size);
    file_close(file);
    return status;
}

enum obd_status layer_open_raw(const char *path, struct layer **out)
{
    uint64_t size;
    enum obd_status status = size_of(path, &size);
    if (status != OBD_OK)
        return status;
    if (size >> SECTOR_SHIFT >= SEGMENT_MAX_OFFSET)
        return status_set(OBD_E_LIMIT, "raw image %s: %llu bytes are more than a layer can describe", path,
                          (unsigned long long)size);
    return open_extents(path, round_up(size, SECTOR_SIZE), out);
}
