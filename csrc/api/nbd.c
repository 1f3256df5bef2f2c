/* api/nbd: the NBD front's functions of obd.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "front/nbd.h"

#include "base/clock.h"

int obd_nbd_start(struct device *device, const struct obd_nbd_params *params, struct nbd **out)
{
    if (!device || !params || !out || params->fd < 0)
        return status_set(OBD_E_INVALID, "nbd: a device and a connected socket are needed");
    return nbd_start(device, params, out);
}

int obd_nbd_wait(struct nbd *nbd, uint32_t timeout_ms)
{
    return nbd_wait(nbd, clock_now_ns() + timeout_ms * NS_PER_MS);
}

void obd_nbd_stop(struct nbd *nbd)
{
    nbd_stop(nbd);
}

void obd_nbd_close(struct nbd *nbd)
{
    nbd_close(nbd);
}

uint32_t obd_status_nbd_errno(int status)
{
    return nbd_errno((enum obd_status)status);
}
