/* queue: commands that want a worker, served device by device in turn.
 *
 * Each device has a queue of its own; the run queue holds the devices that have
 * something to run.  A worker takes the first device, one command of it, and puts
 * the device back at the end, so that a device with a hundred commands and one
 * with a single one get the same share.  One device occupies at most max_running
 * workers: a local disk that hangs stalls its own device first.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>

#include "base/thread.h"
#include "command/state.h"

void run_queue_init(struct run_queue *queue, unsigned nr_workers)
{
    pthread_mutex_init(&queue->lock, NULL);
    condition_init(&queue->not_empty);
    list_init(&queue->devices);
    queue->nr_idle = 0;
    queue->max_running = nr_workers > 1 ? nr_workers - (nr_workers + 3) / 4 : 1;
    queue->is_closed = false;
}

void run_queue_destroy(struct run_queue *queue)
{
    assert(list_is_empty(&queue->devices));
    pthread_cond_destroy(&queue->not_empty);
    pthread_mutex_destroy(&queue->lock);
}

void run_queue_close(struct run_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->is_closed = true;
    pthread_cond_broadcast(&queue->not_empty);
    pthread_mutex_unlock(&queue->lock);
}

void device_queue_init(struct device_queue *share)
{
    list_init(&share->commands);
    list_init(&share->link);
    share->nr_running = 0;
}

/* Puts device where a worker looks, when it has a command and may run one more. */
static void offer_device(struct run_queue *queue, struct device *device)
{
    struct device_queue *share = &device->queue;
    if (list_is_empty(&share->commands) || list_is_linked(&share->link) || share->nr_running >= queue->max_running)
        return;
    list_append(&queue->devices, &share->link);
    if (queue->nr_idle > 0)
        pthread_cond_signal(&queue->not_empty);
}

void run_queue_append(struct command *command)
{
    struct device *device = command->device;
    struct run_queue *queue = &device->core->queue;
    pthread_mutex_lock(&queue->lock);
    list_append(&device->queue.commands, &command->link);
    offer_device(queue, device);
    pthread_mutex_unlock(&queue->lock);
}

bool run_queue_remove(struct command *command)
{
    struct device_queue *share = &command->device->queue;
    struct run_queue *queue = &command->device->core->queue;
    pthread_mutex_lock(&queue->lock);
    bool was_queued = list_is_linked(&command->link);
    if (was_queued) {
        list_remove(&command->link);
        if (list_is_empty(&share->commands) && list_is_linked(&share->link))
            list_remove(&share->link);
    }
    pthread_mutex_unlock(&queue->lock);
    return was_queued;
}

struct command *run_queue_next(struct run_queue *queue)
{
    struct command *command = NULL;
    pthread_mutex_lock(&queue->lock);
    while (list_is_empty(&queue->devices) && !queue->is_closed) {
        queue->nr_idle++;
        condition_wait(&queue->not_empty, &queue->lock, NEVER_NS);
        queue->nr_idle--;
    }
    struct list *link = list_pop(&queue->devices);
    if (link != NULL) {
        struct device *device = LIST_ENTRY(link, struct device, queue.link);
        command = LIST_ENTRY(list_pop(&device->queue.commands), struct command, link);
        device->queue.nr_running++;
        offer_device(queue, device);
        device_ref(device);
    }
    pthread_mutex_unlock(&queue->lock);
    return command;
}

void run_queue_ran(struct device *device)
{
    struct run_queue *queue = &device->core->queue;
    pthread_mutex_lock(&queue->lock);
    device->queue.nr_running--;
    offer_device(queue, device);
    pthread_mutex_unlock(&queue->lock);
    device_unref(device);
}
