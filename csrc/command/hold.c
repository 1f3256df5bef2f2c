/* hold: a device without writes for a moment, and another image put under it.
 *
 * Both are done with range locks, which every command of a writable device takes anyway,
 * so that nothing is added to the way of a read or a write:
 *
 *   hold     a shared lock of the whole disk: writes that run have ended, those that
 *            come wait for their range in their order, reads go on
 *   replace  one store of a pointer.  A read on its way may have either image, and both
 *            hold the same bytes; a write has the new one, for it has its range later
 *   drop     a barrier: reads that hold a range when it comes have ended, and nobody
 *            can have the old image but those that took a reference
 *
 * Flushes take no range.  One that finds the image before is as good: whoever replaces
 * it has made it durable.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>
#include <stdlib.h>

#include "base/thread.h"
#include "command/state.h"

/* An image that reads may still use. */
struct replaced_image {
    struct list link; /* in device->replaced */
    struct image *image;
};

/* A range that a thread sleeps for. */
struct range_sleeper {
    struct range_lock_holder holder; /* first */
    struct device *device;
    bool is_granted; /* under device->lock */
};

void hold_init(struct device *device)
{
    condition_init(&device->granted);
    list_init(&device->replaced);
}

static void free_replaced(struct list *replaced)
{
    struct list *link;
    while ((link = list_pop(replaced)) != NULL) {
        struct replaced_image *old = LIST_ENTRY(link, struct replaced_image, link);
        image_unref(old->image);
        free(old);
    }
}

void hold_destroy(struct device *device)
{
    assert(!device->is_held);
    free_replaced(&device->replaced);
    pthread_cond_destroy(&device->granted);
}

/* ---- sleeping for a range ---- */

static void on_granted(struct range_lock_holder *holder)
{
    struct range_sleeper *sleeper = LIST_ENTRY(holder, struct range_sleeper, holder);
    struct device *device = sleeper->device;
    pthread_mutex_lock(&device->lock);
    sleeper->is_granted = true; /* the sleeper may be gone as soon as the lock is free */
    pthread_cond_broadcast(&device->granted);
    pthread_mutex_unlock(&device->lock);
}

/* False when deadline_ns came first. */
static bool sleep_until_granted(struct range_sleeper *sleeper, uint64_t deadline_ns)
{
    struct device *device = sleeper->device;
    bool is_in_time = true;
    pthread_mutex_lock(&device->lock);
    while (!sleeper->is_granted && is_in_time)
        is_in_time = condition_wait(&device->granted, &device->lock, deadline_ns);
    bool is_granted = sleeper->is_granted;
    pthread_mutex_unlock(&device->lock);
    return is_granted;
}

/* False when deadline_ns came first: then it is as if it had not been tried. */
static bool take_range(struct range_sleeper *sleeper, uint64_t deadline_ns)
{
    struct range_lock *ranges = &sleeper->device->ranges;
    if (range_lock_take(ranges, &sleeper->holder) || sleep_until_granted(sleeper, deadline_ns))
        return true;
    if (range_lock_cancel(ranges, &sleeper->holder))
        return false;
    return sleep_until_granted(sleeper, NEVER_NS); /* granted is being called */
}

/* ---- hold and resume ---- */

static bool claim_hold(struct device *device)
{
    pthread_mutex_lock(&device->lock);
    bool is_ours = !device->is_held;
    device->is_held = true;
    pthread_mutex_unlock(&device->lock);
    return is_ours;
}

static void give_hold_up(struct device *device)
{
    pthread_mutex_lock(&device->lock);
    device->is_held = false;
    pthread_mutex_unlock(&device->lock);
}

enum obd_status device_hold(struct device *device, uint64_t deadline_ns)
{
    if (device->is_read_only)
        return status_set(OBD_E_READ_ONLY, "device %s: nothing writes to it that could be held", device->name);
    if (!claim_hold(device))
        return status_set(OBD_E_BUSY, "device %s: it is held already", device->name);
    struct range_sleeper *hold = calloc(1, sizeof *hold);
    if (hold == NULL) {
        give_hold_up(device);
        return status_set(OBD_E_NO_MEMORY, "device %s: no memory for a hold", device->name);
    }
    *hold = (struct range_sleeper){.holder = {.length = UINT64_MAX, .granted = on_granted}, .device = device};
    if (!take_range(hold, deadline_ns)) {
        free(hold);
        give_hold_up(device);
        return status_set(OBD_E_TIMEOUT, "device %s: writes that run have not ended in time", device->name);
    }
    device->hold = hold;
    return OBD_OK;
}

void device_resume(struct device *device)
{
    struct range_sleeper *hold = device->hold;
    device->hold = NULL;
    range_lock_release(&device->ranges, &hold->holder);
    free(hold);
    give_hold_up(device);
}

/* ---- replacing the image ---- */

enum obd_status device_replace_image(struct device *device, struct image *image)
{
    assert(device->hold != NULL);
    if (image_is_read_only(image) || image_size(image) != device->size)
        return status_set(OBD_E_INVALID, "device %s: image %s of %llu bytes cannot take the place of a disk of %llu",
                          device->name, image_name(image), (unsigned long long)image_size(image),
                          (unsigned long long)device->size);
    struct replaced_image *old = malloc(sizeof *old);
    if (old == NULL)
        return status_set(OBD_E_NO_MEMORY, "device %s: no memory to replace its image", device->name);
    pthread_mutex_lock(&device->lock);
    old->image = device_image(device);
    list_append(&device->replaced, &old->link);
    atomic_store_explicit(&device->image, image_ref(image), memory_order_release);
    pthread_mutex_unlock(&device->lock);
    return OBD_OK;
}

static void move_all(struct list *to, struct list *from)
{
    struct list *link;
    while ((link = list_pop(from)) != NULL)
        list_append(to, link);
}

enum obd_status device_drop_replaced(struct device *device, uint64_t deadline_ns)
{
    struct list dropped;
    list_init(&dropped);
    pthread_mutex_lock(&device->lock);
    move_all(&dropped, &device->replaced);
    pthread_mutex_unlock(&device->lock);
    struct range_sleeper barrier = {.holder = {.is_barrier = true, .granted = on_granted}, .device = device};
    if (take_range(&barrier, deadline_ns)) {
        range_lock_release(&device->ranges, &barrier.holder);
        free_replaced(&dropped);
        return OBD_OK;
    }
    pthread_mutex_lock(&device->lock);
    move_all(&device->replaced, &dropped);
    pthread_mutex_unlock(&device->lock);
    return status_set(OBD_E_TIMEOUT, "device %s: reads of the image before have not ended in time", device->name);
}
