/* queue: commands that want a worker, served device by device in turn.
 *
 * Each device has a queue of its own; the run queue holds the devices that have
 * something to run.  A worker takes the first that may run one more, one command of
 * it, and puts it back at the end, so that a device with a hundred commands and one
 * with a single one get the same share.
 *
 * A device may run one more as long as it occupies fewer workers than are free.  So a
 * device alone gets half of them; one whose local disk hangs holds half, a second such
 * one half of the rest, and so on: it takes many to stall the others.
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
    queue->nr_free = nr_workers;
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

static struct device *device_of(struct list *link)
{
    return LIST_ENTRY(link, struct device, queue.link);
}

/* The next whose turn it is; NULL when none may run one more. */
static struct device *next_device(struct run_queue *queue)
{
    for (struct list *link = queue->devices.next; link != &queue->devices; link = link->next) {
        if (device_of(link)->queue.nr_running < queue->nr_free)
            return device_of(link);
    }
    return NULL;
}

static void wake_worker(struct run_queue *queue)
{
    if (queue->nr_idle > 0 && next_device(queue) != NULL)
        pthread_cond_signal(&queue->not_empty);
}

/* Puts device at the end of the turn, when it has a command. */
static void enter_turn(struct run_queue *queue, struct device *device)
{
    struct device_queue *share = &device->queue;
    if (!list_is_empty(&share->commands) && !list_is_linked(&share->link))
        list_append(&queue->devices, &share->link);
}

void run_queue_append(struct command *command)
{
    struct device *device = command->device;
    struct run_queue *queue = &device->core->queue;
    pthread_mutex_lock(&queue->lock);
    list_append(&device->queue.commands, &command->link);
    enter_turn(queue, device);
    wake_worker(queue);
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

static struct device *wait_for_device(struct run_queue *queue)
{
    struct device *device;
    while ((device = next_device(queue)) == NULL && !queue->is_closed) {
        queue->nr_idle++;
        condition_wait(&queue->not_empty, &queue->lock, NEVER_NS);
        queue->nr_idle--;
    }
    return device;
}

struct command *run_queue_next(struct run_queue *queue)
{
    struct command *command = NULL;
    pthread_mutex_lock(&queue->lock);
    struct device *device = wait_for_device(queue);
    if (device != NULL) {
        command = LIST_ENTRY(list_pop(&device->queue.commands), struct command, link);
        device->queue.nr_running++;
        queue->nr_free--;
        list_remove(&device->queue.link);
        enter_turn(queue, device);
        wake_worker(queue); /* signals can fall together: whoever takes one looks for more */
        device_ref(device);
    }
    pthread_mutex_unlock(&queue->lock);
    return command;
}

void run_queue_ran(struct run_queue *queue, struct device *device)
{
    pthread_mutex_lock(&queue->lock);
    device->queue.nr_running--;
    queue->nr_free++;
    pthread_mutex_unlock(&queue->lock); /* the caller is free itself, and looks what there is now */
    device_unref(device);
}
