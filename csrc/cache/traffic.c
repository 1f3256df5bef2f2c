/* traffic: see traffic.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cache/traffic.h"

#include <string.h>

void traffic_init(struct traffic *traffic)
{
    memset(traffic, 0, sizeof *traffic);
    traffic->nr_hosts = 1; /* that of all others */
}

static const char *without_scheme(const char *authority)
{
    const char *end = strstr(authority, "://");
    return end != NULL ? end + 3 : authority;
}

struct obd_host_traffic *traffic_of(struct traffic *traffic, const char *authority)
{
    const char *host = without_scheme(authority);
    size_t length = strlen(host);
    if (length == 0 || length >= sizeof traffic->hosts[0].host)
        return &traffic->hosts[0];
    for (unsigned i = 1; i < traffic->nr_hosts; i++)
        if (strcmp(traffic->hosts[i].host, host) == 0)
            return &traffic->hosts[i];
    if (traffic->nr_hosts > MAX_TRAFFIC_HOSTS)
        return &traffic->hosts[0];
    struct obd_host_traffic *row = &traffic->hosts[traffic->nr_hosts++];
    memcpy(row->host, host, length + 1);
    return row;
}
