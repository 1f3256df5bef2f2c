/* flush: the thread that makes a device's writes durable.
 *
 * A sync takes as long as the disk takes, so it happens neither on a front's thread
 * nor on a worker, but on a thread that the device gets with its first flush.  All
 * flushes that have gathered while one sync ran share the next: each arrived before
 * that begins, and image_flush covers everything acknowledged before it is called.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>
#include <stdio.h>

#include "base/thread.h"
#include "command/state.h"

void flusher_init(struct flusher *flusher)
{
    condition_init(&flusher->not_empty);
    list_init(&flusher->commands);
    flusher->is_started = false;
    flusher->is_stopped = false;
}

/* Waits for flushes and takes all there are; false when there will be no more. */
static bool take_batch(struct device *device, struct list *batch)
{
    struct flusher *flusher = &device->flusher;
    struct list *link;
    pthread_mutex_lock(&device->lock);
    while (list_is_empty(&flusher->commands) && !flusher->is_stopped)
        condition_wait(&flusher->not_empty, &device->lock, NEVER_NS);
    while ((link = list_pop(&flusher->commands)) != NULL) {
        LIST_ENTRY(link, struct command, link)->state = COMMAND_RUNNING;
        list_append(batch, link);
    }
    pthread_mutex_unlock(&device->lock);
    return !list_is_empty(batch);
}

static void finish_batch(struct list *batch, enum obd_status status)
{
    char text[STATUS_TEXT_SIZE];
    snprintf(text, sizeof text, "%s", status_text());
    struct list *link;
    while ((link = list_pop(batch)) != NULL) {
        if (status != OBD_OK)
            status_set(status, "%s", text); /* what done did may have changed it */
        command_finish(LIST_ENTRY(link, struct command, link), status);
    }
}

/* Of the image as it is now: one that was replaced before had been synced whole. */
static enum obd_status flush_image(struct device *device)
{
    struct image *image = device_take_image(device);
    enum obd_status status = image_flush(image);
    image_unref(image);
    return status;
}

static void *flusher_run(void *argument)
{
    struct device *device = argument;
    struct list batch;
    list_init(&batch);
    while (take_batch(device, &batch))
        finish_batch(&batch, flush_image(device));
    return NULL;
}

static enum obd_status start_once(struct device *device)
{
    struct flusher *flusher = &device->flusher;
    if (flusher->is_started)
        return OBD_OK;
    enum obd_status status = thread_start("obd-flusher", flusher_run, device, &flusher->thread);
    flusher->is_started = status == OBD_OK;
    return status;
}

void flusher_append(struct command *command)
{
    struct device *device = command->device;
    pthread_mutex_lock(&device->lock);
    enum obd_status status = command->doom;
    if (status == OBD_OK)
        status = start_once(device);
    if (status == OBD_OK) {
        command->state = COMMAND_FLUSHING;
        list_append(&device->flusher.commands, &command->link);
        pthread_cond_signal(&device->flusher.not_empty);
    }
    pthread_mutex_unlock(&device->lock);
    if (status != OBD_OK)
        command_finish(command, status);
}

void flusher_stop(struct device *device)
{
    struct flusher *flusher = &device->flusher;
    pthread_mutex_lock(&device->lock);
    assert(list_is_empty(&flusher->commands));
    flusher->is_stopped = true;
    pthread_cond_signal(&flusher->not_empty);
    pthread_mutex_unlock(&device->lock);
    if (flusher->is_started)
        pthread_join(flusher->thread, NULL);
    pthread_cond_destroy(&flusher->not_empty);
}
