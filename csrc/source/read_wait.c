/* read_wait: a read that waits, for tools and for opening.
 *
 * The thread does what the command core does for a parked command: it collects
 * misses, asks, sleeps until all have come, and reads again from the start while
 * they are pinned.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE /* pthread_cond_clockwait */
#include <errno.h>
#include <pthread.h>

#include "base/clock.h"
#include "source/source.h"

struct waiter {
    struct demand demand;
    pthread_mutex_t lock; /* guards is_ready */
    pthread_cond_t changed;
    bool is_ready;
};

static void wake(struct demand *demand)
{
    struct waiter *waiter = LIST_ENTRY(demand, struct waiter, demand);
    pthread_mutex_lock(&waiter->lock);
    waiter->is_ready = true;
    pthread_cond_signal(&waiter->changed); /* under the lock: the waiter is gone once it has seen is_ready */
    pthread_mutex_unlock(&waiter->lock);
}

static void waiter_init(struct waiter *waiter)
{
    demand_init(&waiter->demand, wake);
    pthread_mutex_init(&waiter->lock, NULL);
    pthread_cond_init(&waiter->changed, NULL);
    waiter->is_ready = false;
}

static void waiter_destroy(struct waiter *waiter)
{
    demand_destroy(&waiter->demand);
    pthread_cond_destroy(&waiter->changed);
    pthread_mutex_destroy(&waiter->lock);
}

/* False when deadline_ns came first. */
static bool sleep_until_ready(struct waiter *waiter, uint64_t deadline_ns)
{
    struct timespec deadline = clock_timespec(deadline_ns);
    int error = 0;
    pthread_mutex_lock(&waiter->lock);
    while (!waiter->is_ready && error != ETIMEDOUT)
        error = pthread_cond_clockwait(&waiter->changed, &waiter->lock, CLOCK_MONOTONIC, &deadline);
    bool is_ready = waiter->is_ready;
    pthread_mutex_unlock(&waiter->lock);
    return is_ready;
}

/* Asks for what is missing and waits for it; it is pinned afterwards. */
static enum obd_status wait_for_misses(struct waiter *waiter, const struct source *source, uint64_t deadline_ns)
{
    waiter->is_ready = false; /* nobody else looks before demand_start */
    demand_start(&waiter->demand);
    if (!sleep_until_ready(waiter, deadline_ns)) {
        status_set(OBD_E_TIMEOUT, "%s: the data did not arrive in time", source->name);
        if (demand_hold(&waiter->demand))
            demand_cancel(&waiter->demand, OBD_E_TIMEOUT);
        sleep_until_ready(waiter, NEVER_NS); /* every request is answered or being answered */
    }
    return demand_status(&waiter->demand);
}

enum obd_status source_read_wait(struct source *source, void *buffer, size_t length, uint64_t offset,
                                 uint64_t deadline_ns)
{
    struct waiter waiter;
    struct read_context context = {.nowait = false, .demand = &waiter.demand};
    struct iovec iov = {.iov_base = buffer, .iov_len = length};
    enum obd_status status;
    waiter_init(&waiter);
    for (;;) {
        struct iov_cursor cursor = iov_cursor_at(&iov, 1);
        status = source_read(source, &context, &cursor, length, offset);
        if (status != OBD_E_MISS)
            break;
        status = wait_for_misses(&waiter, source, deadline_ns);
        if (status != OBD_OK)
            break;
    }
    waiter_destroy(&waiter);
    return status;
}
