/* api/layer: layers for Python.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/layer.h"

#include "base/checked.h"
#include "base/clock.h"

int obd_layer_open(struct source *source, const struct obd_layer_params *params, uint32_t timeout_ms,
                   struct layer **out)
{
    return layer_open(source, params, clock_deadline_ns(timeout_ms), out);
}

int obd_layer_open_raw(const char *path, struct layer **out)
{
    return layer_open_raw(path, out);
}

uint64_t obd_layer_nr_segments(const struct layer *layer)
{
    return layer->index.nr;
}

size_t obd_layer_segments(const struct layer *layer, uint64_t first, struct obd_segment *out, size_t max)
{
    if (first >= layer->index.nr)
        return 0;
    size_t nr = min_u64(layer->index.nr - first, max);
    for (size_t i = 0; i < nr; i++) {
        struct segment s = layer->index.segments[first + i];
        out[i] = (struct obd_segment){
            .offset = s.offset, .moffset = s.moffset, .length = s.length, .zeroed = s.zeroed, .tag = s.tag};
    }
    return nr;
}

void obd_layer_close(struct layer *layer)
{
    layer_unref(layer);
}
