/* layer: see layer.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/layer.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/layer_extents.h"

/* The LSMT header and trailer, each. */
#define BLOCK_SIZE 4096u

struct layer *layer_new(struct source *source, uint64_t virtual_size)
{
    struct layer *layer = calloc(1, sizeof *layer);
    if (layer == NULL)
        goto no_memory;
    layer->name = strdup(source->name);
    if (layer->name == NULL)
        goto no_memory;
    layer->source = source_ref(source);
    layer->virtual_size = virtual_size;
    atomic_init(&layer->nr_references, 1);
    return layer;
no_memory:
    free(layer);
    status_set(OBD_E_NO_MEMORY, "no memory to open layer %s", source->name);
    return NULL;
}

struct layer *layer_ref(struct layer *layer)
{
    atomic_fetch_add_explicit(&layer->nr_references, 1, memory_order_relaxed);
    return layer;
}

void layer_unref(struct layer *layer)
{
    if (layer == NULL || atomic_fetch_sub_explicit(&layer->nr_references, 1, memory_order_acq_rel) != 1)
        return;
    segment_array_free(&layer->index);
    source_unref(layer->source);
    free(layer->name);
    free(layer);
}

/* The numbers of the trailer, against the file and the format's limits. */
static enum obd_status check_params(const struct source *source, const struct obd_layer_params *params)
{
    uint64_t length;
    if (params->nr_entries > OBD_MAX_LAYER_SEGMENTS)
        return status_set(OBD_E_LIMIT, "layer %s: its index has %llu entries, more than %d", source->name,
                          (unsigned long long)params->nr_entries, OBD_MAX_LAYER_SEGMENTS);
    if (!checked_multiply(params->nr_entries, sizeof(struct segment), &length) || source->size < 2 * BLOCK_SIZE ||
        params->index_offset < BLOCK_SIZE || !range_is_inside(params->index_offset, length, source->size - BLOCK_SIZE))
        return status_set(OBD_E_CORRUPT, "layer %s: an index of %llu entries at %llu is not inside its %llu bytes",
                          source->name, (unsigned long long)params->nr_entries,
                          (unsigned long long)params->index_offset, (unsigned long long)source->size);
    return OBD_OK;
}

static enum obd_status load_index(struct layer *layer, const struct obd_layer_params *params, uint64_t deadline_ns)
{
    size_t length = params->nr_entries * sizeof(struct segment);
    void *entries = malloc(length + 1); /* not nothing, when there are none */
    if (entries == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory for the index of layer %s", layer->name);
    enum obd_status status = OBD_OK;
    if (length > 0)
        status = source_read_wait(layer->source, entries, length, params->index_offset, deadline_ns);
    if (status == OBD_OK)
        status = segment_array_load(&layer->index, entries, params->nr_entries, BLOCK_SIZE >> SECTOR_SHIFT,
                                    params->index_offset >> SECTOR_SHIFT);
    free(entries);
    return status == OBD_OK ? OBD_OK : status_prefix(status, "layer %s", layer->name);
}

enum obd_status layer_open(struct source *source, const struct obd_layer_params *params, uint64_t deadline_ns,
                           struct layer **out)
{
    enum obd_status status = check_params(source, params);
    if (status != OBD_OK)
        return status;
    struct layer *layer = layer_new(source, params->virtual_size);
    if (layer == NULL)
        return OBD_E_NO_MEMORY;
    status = load_index(layer, params, deadline_ns);
    if (status != OBD_OK) {
        layer_unref(layer);
        return status;
    }
    *out = layer;
    return OBD_OK;
}
