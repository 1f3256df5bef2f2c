/* device: an image in service (core.h).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/thread.h"
#include "command/state.h"

#define DEFAULT_IO_TIMEOUT_MS 20000u
#define DEFAULT_PARK_BUDGET   (UINT64_C(32) << 20)

static void init_limits(struct device *device, const struct obd_device_params *params)
{
    device->io_timeout_ms = params->io_timeout_ms != 0 ? params->io_timeout_ms : DEFAULT_IO_TIMEOUT_MS;
    device->on_timeout = params->on_timeout;
    device_park_init(&device->park, params->park_budget_bytes != 0 ? params->park_budget_bytes : DEFAULT_PARK_BUDGET);
}

static void init_lists(struct device *device)
{
    pthread_mutex_init(&device->lock, NULL);
    condition_init(&device->idle);
    list_init(&device->in_flight);
    list_init(&device->paused);
    range_lock_init(&device->ranges);
    device_queue_init(&device->queue);
    hold_init(device);
    flusher_init(&device->flusher);
}

enum obd_status device_open(struct core *core, struct image *image, const struct obd_device_params *params,
                            struct device **out)
{
    struct device *device = aligned_alloc(_Alignof(struct device), sizeof *device);
    char *name = strdup(params->name != NULL ? params->name : image_name(image));
    if (device == NULL || name == NULL) {
        free(device);
        free(name);
        return status_set(OBD_E_NO_MEMORY, "device %s: no memory", params->name);
    }
    memset(device, 0, sizeof *device);
    device->name = name;
    device->core = core;
    atomic_init(&device->image, image_ref(image));
    atomic_init(&device->size, image_size(image));
    device->is_read_only = image_is_read_only(image);
    atomic_init(&device->nr_references, 1);
    init_limits(device, params);
    init_lists(device);
    timer_add_device(&core->timer, device);
    *out = device;
    return OBD_OK;
}

struct device *device_ref(struct device *device)
{
    atomic_fetch_add(&device->nr_references, 1);
    return device;
}

void device_unref(struct device *device)
{
    if (atomic_fetch_sub(&device->nr_references, 1) != 1)
        return;
    range_lock_destroy(&device->ranges);
    pthread_cond_destroy(&device->idle);
    pthread_mutex_destroy(&device->lock);
    free(device->name);
    free(device);
}

void device_fail_parked(struct device *device, enum obd_status status)
{
    struct list doomed;
    list_init(&doomed);
    pthread_mutex_lock(&device->lock);
    atomic_store(&device->refusal, status);
    for (struct list *link = device->in_flight.next; link != &device->in_flight; link = link->next)
        command_doom(LIST_ENTRY(link, struct command, in_flight), status, &doomed);
    pthread_mutex_unlock(&device->lock);
    commands_end(&doomed);
}

static bool wait_for_in_flight(struct device *device, uint64_t deadline_ns)
{
    bool is_in_time = true;
    pthread_mutex_lock(&device->lock);
    while (device->nr_in_flight > 0 && is_in_time)
        is_in_time = condition_wait(&device->idle, &device->lock, deadline_ns);
    bool is_idle = device->nr_in_flight == 0;
    pthread_mutex_unlock(&device->lock);
    return is_idle;
}

static enum obd_status refuse_close(struct device *device)
{
    struct obd_device_stats stats;
    device_stats(device, &stats);
    return status_set(OBD_E_TIMEOUT, "device %s: close: %llu commands are still in flight, %llu of them parked",
                      device->name, (unsigned long long)stats.nr_in_flight, (unsigned long long)stats.nr_parked);
}

enum obd_status device_close(struct device *device, uint64_t deadline_ns)
{
    if (!wait_for_in_flight(device, deadline_ns))
        return refuse_close(device);
    timer_remove_device(&device->core->timer, device);
    flusher_stop(device);
    /* Lasts as long as the local disk takes; nothing could be done about it. */
    hold_destroy(device);
    struct image *image = device_image(device);
    enum obd_status status = device->is_read_only ? OBD_OK : image_flush(image);
    image_unref(image);
    device_unref(device);
    return status;
}

uint64_t device_size(const struct device *device)
{
    return device->size;
}

enum obd_status device_grow(struct device *device, uint64_t size)
{
    struct image *image = device_take_image(device);
    enum obd_status status = image_grow(image, size);
    if (status == OBD_OK)
        atomic_store(&device->size, image_size(image));
    image_unref(image);
    return status;
}

struct image *device_image(struct device *device)
{
    return atomic_load_explicit(&device->image, memory_order_acquire);
}

struct image *device_take_image(struct device *device)
{
    pthread_mutex_lock(&device->lock);
    struct image *image = image_ref(device_image(device)); /* the device's own reference keeps it so long */
    pthread_mutex_unlock(&device->lock);
    return image;
}

const char *device_name(const struct device *device)
{
    return device->name;
}

static uint64_t oldest_ms(const struct device *device)
{
    uint64_t now = clock_now_ns(), oldest = now;
    /* The whole list: a policy of retry puts old commands at its end. */
    for (const struct list *link = device->in_flight.next; link != &device->in_flight; link = link->next)
        oldest = min_u64(oldest, LIST_ENTRY(link, struct command, in_flight)->submitted_ns);
    return (now - oldest) / NS_PER_MS;
}

void device_stats(struct device *device, struct obd_device_stats *stats)
{
    memset(stats, 0, sizeof *stats);
    for (unsigned i = 0; i < NR_SHARDS; i++)
        shard_add(&device->shards[i], stats);
    pthread_mutex_lock(&device->lock);
    stats->nr_in_flight = device->nr_in_flight;
    stats->nr_parked = device->nr_parked;
    stats->nr_parks = device->nr_parks;
    stats->oldest_ms = oldest_ms(device);
    pthread_mutex_unlock(&device->lock);
    pthread_mutex_lock(&device->core->park.lock);
    stats->parked_bytes = device->park.bytes;
    pthread_mutex_unlock(&device->core->park.lock);
}

void device_latency(struct device *device, struct obd_latency *out)
{
    memset(out, 0, OBD_NR_COMMAND_KINDS * OBD_NR_LATENCY_CLASSES * sizeof *out);
    for (unsigned i = 0; i < NR_SHARDS; i++)
        shard_add_latency(&device->shards[i], out);
}
