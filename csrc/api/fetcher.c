/* api/fetcher: the fetcher, its origins and the resolve queue for Python.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cache/fetcher.h"

#include "base/clock.h"

int obd_fetcher_open(const struct obd_fetcher_params *params, struct fetcher **out)
{
    if (params == NULL || out == NULL)
        return status_set(OBD_E_INVALID, "fetcher: parameters are needed");
    return fetcher_open(params, out);
}

void obd_fetcher_close(struct fetcher *fetcher)
{
    fetcher_close(fetcher);
}

void obd_fetcher_stats(struct fetcher *fetcher, struct obd_fetcher_stats *stats)
{
    fetcher_stats(fetcher, stats);
}

int obd_origin_open(struct fetcher *fetcher, uint64_t id, uint64_t size, const char *name, struct origin **out)
{
    if (size == 0 || name == NULL)
        return status_set(OBD_E_INVALID, "origin %llu: a name and a size are needed", (unsigned long long)id);
    return origin_open(fetcher, id, size, name, out);
}

void obd_origin_close(struct origin *origin)
{
    origin_unref(origin);
}

int obd_resolve_next(struct fetcher *fetcher, struct obd_resolve *question, uint32_t timeout_ms)
{
    return resolve_next(fetcher, question, clock_deadline_ns(timeout_ms));
}

int obd_resolve_reply(struct fetcher *fetcher, const struct obd_resolve_reply *reply)
{
    if (reply->url == NULL)
        return status_set(OBD_E_INVALID, "origin %llu: a URL is needed", (unsigned long long)reply->origin_id);
    return resolve_reply(fetcher, reply);
}

int obd_resolve_fail(struct fetcher *fetcher, uint64_t origin_id, int status, const char *text)
{
    if (status <= OBD_E_MISS || status >= OBD_NR_STATUS || text == NULL)
        return status_set(OBD_E_INVALID, "origin %llu: a failure and its reason are needed",
                          (unsigned long long)origin_id);
    return resolve_fail(fetcher, origin_id, (enum obd_status)status, text);
}

void obd_resolve_close(struct fetcher *fetcher)
{
    resolve_close(fetcher);
}
