/* api/cache: the cache, and sources that read through it, for Python.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cache/cached_source.h"

int obd_cache_open(const struct obd_cache_params *params, struct cache **out)
{
    if (params == NULL || params->folder == NULL || out == NULL)
        return status_set(OBD_E_INVALID, "cache: a folder is needed");
    return cache_open(params, out);
}

void obd_cache_close(struct cache *cache)
{
    cache_close(cache);
}

void obd_cache_stats(struct cache *cache, struct obd_cache_stats *stats)
{
    cache_stats(cache, stats);
}

int obd_source_open_cached(struct cache *cache, struct origin *origin, const uint8_t *digest, struct source **out)
{
    return source_open_cached(cache, origin, digest, out);
}

int obd_source_prefetch(struct source *source, uint64_t offset, uint64_t length)
{
    return cached_source_prefetch(source, offset, length);
}

int obd_source_switch_to(struct source *cached, struct source *local)
{
    return cached_source_switch_to(cached, local);
}

int obd_cached_source_stats(struct source *source, struct obd_cached_source_stats *stats)
{
    return cached_source_stats(source, stats);
}
