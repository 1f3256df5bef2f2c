/* api/command: the core, its devices, and commands from memory, for Python.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/clock.h"
#include "command/core.h"
#include "front/mem.h"

int obd_core_open(const struct obd_core_params *params, struct core **out)
{
    return core_open(params, out);
}

void obd_core_close(struct core *core)
{
    core_close(core);
}

int obd_device_open(struct core *core, struct image *image, const struct obd_device_params *params, struct device **out)
{
    if (params->on_timeout > OBD_ON_TIMEOUT_FREEZE)
        return status_set(OBD_E_INVALID, "device %s: there is no time-out policy %u", params->name, params->on_timeout);
    return device_open(core, image, params, out);
}

void obd_device_fail_parked(struct device *device, int status)
{
    /* What is no failure would leave commands waiting. */
    device_fail_parked(device,
                       status > OBD_E_MISS && status < OBD_NR_STATUS ? (enum obd_status)status : OBD_E_CANCELLED);
}

int obd_device_close(struct device *device, uint32_t timeout_ms)
{
    return device_close(device, clock_deadline_ns(timeout_ms));
}

void obd_device_stats(struct device *device, struct obd_device_stats *stats)
{
    device_stats(device, stats);
}

int obd_device_grow(struct device *device, uint64_t size)
{
    return device_grow(device, size);
}

int obd_device_hold(struct device *device, uint32_t timeout_ms)
{
    return device_hold(device, clock_deadline_ns(timeout_ms));
}

void obd_device_resume(struct device *device)
{
    device_resume(device);
}

int obd_device_replace_image(struct device *device, struct image *image)
{
    return device_replace_image(device, image);
}

int obd_device_drop_replaced(struct device *device, uint32_t timeout_ms)
{
    return device_drop_replaced(device, clock_deadline_ns(timeout_ms));
}

void obd_device_latency(struct device *device, struct obd_latency *out)
{
    device_latency(device, out);
}

static enum obd_status check_mem(const struct obd_mem_params *params)
{
    if (params->kind >= OBD_NR_COMMAND_KINDS)
        return status_set(OBD_E_INVALID, "there is no command of kind %u", params->kind);
    return OBD_OK;
}

int obd_mem_submit(struct device *device, const struct obd_mem_params *params, struct mem_command **out)
{
    enum obd_status status = check_mem(params);
    return status == OBD_OK ? mem_submit(device, params, out) : status;
}

int obd_mem_wait(struct mem_command **command, uint32_t timeout_ms)
{
    return mem_wait(command, clock_deadline_ns(timeout_ms));
}

int obd_mem_run(struct device *device, const struct obd_mem_params *params)
{
    enum obd_status status = check_mem(params);
    return status == OBD_OK ? mem_run(device, params) : status;
}

int obd_mem_read_loop(struct device *device, const uint64_t *offsets, size_t nr, uint32_t length, uint32_t nr_threads,
                      uint64_t *elapsed_ns)
{
    if (nr_threads == 0)
        return status_set(OBD_E_INVALID, "a read loop needs a thread");
    return mem_read_loop(device, offsets, nr, length, nr_threads, elapsed_ns);
}
