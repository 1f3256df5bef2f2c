/* api/hub: the hub's functions of front/hub.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "front/hub.h"

int obd_hub_open(const struct obd_hub_params *params, struct hub **out)
{
    if (params == NULL || params->subtype == NULL || params->description == NULL || params->added == NULL ||
        params->removed == NULL || params->reconfig == NULL || out == NULL)
        return status_set(OBD_E_INVALID, "hub: a subtype, a description and three callbacks are needed");
    return hub_open(params, out);
}

int obd_hub_fd(const struct hub *hub)
{
    return hub_fd(hub);
}

void obd_hub_ready(struct hub *hub)
{
    hub_ready(hub);
}
