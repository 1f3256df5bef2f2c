/* api/tcmu: the TCMU front's functions of obd.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "front/tcmu.h"

#include "base/clock.h"
#include "front/ring.h"
#include "front/scsi_decode.h"
#include "front/scsi_sense.h"

int obd_tcmu_open(const struct obd_tcmu_params *params, struct tcmu **out)
{
    if (params == NULL || out == NULL)
        return status_set(OBD_E_INVALID, "tcmu: no parameters");
    return tcmu_open(params, out);
}

void obd_tcmu_close(struct tcmu *tcmu)
{
    tcmu_close(tcmu);
}

int obd_ring_bind(struct tcmu *tcmu, const struct obd_ring_params *params, struct ring **out)
{
    if (tcmu == NULL || params == NULL || params->name == NULL || out == NULL)
        return status_set(OBD_E_INVALID, "ring: a name and a descriptor are needed");
    return tcmu_bind(tcmu, params, out);
}

uint64_t obd_ring_id(const struct ring *ring)
{
    return ring->id;
}

int obd_ring_set_device(struct ring *ring, struct device *device, uint32_t timeout_ms)
{
    return tcmu_set_device(ring, device, clock_deadline_ns(timeout_ms));
}

int obd_ring_set_broken(struct ring *ring, int status, uint32_t timeout_ms)
{
    if (status <= OBD_OK || status >= OBD_NR_STATUS)
        return status_set(OBD_E_INVALID, "ring %s: %d is no failure", ring->name, status);
    return tcmu_set_broken(ring, (enum obd_status)status, clock_deadline_ns(timeout_ms));
}

int obd_ring_unbind(struct ring *ring, int leave_parked, uint32_t timeout_ms)
{
    return tcmu_unbind(ring, leave_parked != 0, clock_deadline_ns(timeout_ms));
}

int obd_ring_stats(struct ring *ring, struct obd_ring_stats *stats, uint32_t timeout_ms)
{
    return tcmu_ring_stats(ring, stats, clock_deadline_ns(timeout_ms));
}

int obd_control_next(struct tcmu *tcmu, struct obd_control *control, uint32_t timeout_ms)
{
    return tcmu_control_next(tcmu, clock_deadline_ns(timeout_ms), control);
}

int obd_control_reply(struct tcmu *tcmu, const struct obd_control_reply *reply)
{
    return tcmu_control_reply(tcmu, reply);
}

void obd_tcmu_wake(struct tcmu *tcmu)
{
    tcmu_wake(tcmu);
}

int obd_scsi_class(uint32_t opcode)
{
    return opcode <= UINT8_MAX ? (int)scsi_class((uint8_t)opcode) : OBD_SCSI_UNKNOWN;
}

uint32_t obd_status_sense(int status, int is_write)
{
    return scsi_sense_of_status((enum obd_status)status, is_write != 0);
}
