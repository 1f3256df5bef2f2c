/* traffic: what each host was asked for, and what came of it.
 *
 * Hosts come and go with the resolutions that name them, their numbers stay until the
 * fetcher is closed.  There is a row for each of the first MAX_TRAFFIC_HOSTS that were
 * spoken to; all later ones share the first row, so that a registry that redirects to
 * ever new names does not grow it.
 *
 * Not thread-safe: the fetcher calls it under its lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_TRAFFIC_H
#define OBD_CACHE_TRAFFIC_H

#include "obd.h"

#define MAX_TRAFFIC_HOSTS 16

struct traffic {
    unsigned nr_hosts; /* rows in use, the first included */
    struct obd_host_traffic hosts[MAX_TRAFFIC_HOSTS + 1];
};

void traffic_init(struct traffic *traffic);
/* The row of scheme://NAME:PORT; valid as long as traffic is. */
struct obd_host_traffic *traffic_of(struct traffic *traffic, const char *authority);

#endif
