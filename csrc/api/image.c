/* api/image: images for Python, on a thread that may wait.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/image.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/thread.h"
#include "source/demand_wait.h"

/* ---- waiting for journal room ---- */

struct room_wait {
    struct upper_waiter waiter;
    pthread_mutex_t lock; /* guards is_awake */
    pthread_cond_t changed;
    bool is_awake;
};

static void wake(struct upper_waiter *waiter)
{
    struct room_wait *wait = LIST_ENTRY(waiter, struct room_wait, waiter);
    pthread_mutex_lock(&wait->lock);
    wait->is_awake = true;
    pthread_cond_signal(&wait->changed); /* under the lock: the waiter is gone once it has seen is_awake */
    pthread_mutex_unlock(&wait->lock);
}

/* False when deadline_ns came first. */
static bool sleep_until_awake(struct room_wait *wait, uint64_t deadline_ns)
{
    bool is_in_time = true;
    pthread_mutex_lock(&wait->lock);
    while (!wait->is_awake && is_in_time)
        is_in_time = condition_wait(&wait->changed, &wait->lock, deadline_ns);
    bool is_awake = wait->is_awake;
    pthread_mutex_unlock(&wait->lock);
    return is_awake;
}

/* OBD_OK: it is worth trying again. */
static enum obd_status wait_for_room(struct image *image, uint64_t deadline_ns)
{
    struct room_wait wait = {.waiter.wake = wake};
    pthread_mutex_init(&wait.lock, NULL);
    condition_init(&wait.changed);
    enum obd_status status = OBD_OK;
    if (upper_wait(image_upper(image), &wait.waiter) && !sleep_until_awake(&wait, deadline_ns)) {
        if (!upper_cancel_wait(image_upper(image), &wait.waiter))
            sleep_until_awake(&wait, NEVER_NS); /* wake is being called */
        status = status_set(OBD_E_TIMEOUT, "image %s: the journal of its upper had no room in time", image_name(image));
    }
    pthread_cond_destroy(&wait.changed);
    pthread_mutex_destroy(&wait.lock);
    return status;
}

/* ---- the calls ---- */

int obd_image_open(struct layer *const *lowers, size_t nr_lowers, struct upper *upper, uint64_t virtual_size,
                   const char *name, struct image **out)
{
    return image_open(lowers, nr_lowers, upper, virtual_size, name, out);
}

uint64_t obd_image_size(const struct image *image)
{
    return image_size(image);
}

int obd_image_is_read_only(const struct image *image)
{
    return image_is_read_only(image);
}

static enum obd_status check_range(const struct image *image, uint64_t length, uint64_t offset)
{
    if (!is_aligned(offset | length, SECTOR_SIZE))
        return status_set(OBD_E_INVALID, "image %s: %llu bytes at %llu are not whole sectors", image_name(image),
                          (unsigned long long)length, (unsigned long long)offset);
    if (!range_is_inside(offset, length, image_size(image)))
        return status_set(OBD_E_RANGE, "image %s: %llu bytes at %llu are outside of its %llu", image_name(image),
                          (unsigned long long)length, (unsigned long long)offset,
                          (unsigned long long)image_size(image));
    return OBD_OK;
}

static enum obd_status read_and_wait(struct image *image, const struct iovec *iov, uint64_t offset,
                                     uint64_t deadline_ns)
{
    struct demand_wait wait;
    struct read_context context = {.nowait = false, .demand = &wait.demand};
    enum obd_status status;
    demand_wait_init(&wait);
    for (;;) {
        struct iov_cursor cursor = iov_cursor_at(iov, 1);
        status = image_read(image, &context, &cursor, iov->iov_len, offset);
        if (status != OBD_E_MISS)
            break;
        status = demand_wait_for_misses(&wait, image_name(image), deadline_ns);
        if (status != OBD_OK)
            break;
    }
    demand_wait_destroy(&wait);
    return status;
}

int obd_image_read(struct image *image, void *buffer, size_t length, uint64_t offset, uint32_t timeout_ms)
{
    enum obd_status status = check_range(image, length, offset);
    struct iovec iov = {.iov_base = buffer, .iov_len = length};
    return status == OBD_OK ? read_and_wait(image, &iov, offset, clock_deadline_ns(timeout_ms)) : status;
}

int obd_image_write(struct image *image, const void *buffer, size_t length, uint64_t offset, uint32_t timeout_ms)
{
    uint64_t deadline_ns = clock_deadline_ns(timeout_ms);
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buffer, .iov_len = length};
    enum obd_status status = check_range(image, length, offset);
    while (status == OBD_OK) {
        struct iov_cursor cursor = iov_cursor_at(&iov, 1);
        status = image_write(image, &cursor, length, offset);
        if (status != OBD_E_AGAIN)
            break;
        status = wait_for_room(image, deadline_ns);
    }
    return status;
}

int obd_image_discard(struct image *image, uint64_t length, uint64_t offset, uint32_t timeout_ms)
{
    uint64_t deadline_ns = clock_deadline_ns(timeout_ms);
    enum obd_status status = check_range(image, length, offset);
    while (status == OBD_OK) {
        status = image_discard(image, length, offset);
        if (status != OBD_E_AGAIN)
            break;
        status = wait_for_room(image, deadline_ns);
    }
    return status;
}

int obd_image_grow(struct image *image, uint64_t size)
{
    return image_grow(image, size);
}

int obd_image_flush(struct image *image)
{
    return image_flush(image);
}

int obd_image_extents(struct image *image, uint64_t offset, uint64_t length, struct obd_extent *out, size_t max,
                      size_t *nr)
{
    enum obd_status status = check_range(image, length, offset);
    return status == OBD_OK ? image_extents(image, offset, length, out, max, nr) : status;
}

uint64_t obd_image_nr_segments(struct image *image)
{
    return image_nr_segments(image);
}

int obd_image_upper_stats(struct image *image, struct obd_upper_stats *stats)
{
    if (image_upper(image) == NULL)
        return status_set(OBD_E_NOT_FOUND, "image %s has no upper", image_name(image));
    upper_stats(image_upper(image), stats);
    return OBD_OK;
}

int obd_image_seal(struct image *image, struct obd_sealed_index *index)
{
    return image_seal(image, index);
}

int obd_image_finish_seal(struct image *image, const void *trailer)
{
    return image_finish_seal(image, trailer);
}

int obd_image_unseal(struct image *image)
{
    return image_unseal(image);
}

struct image *obd_image_share(struct image *image)
{
    return image_ref(image);
}

int obd_image_close(struct image *image)
{
    return image_close(image);
}
