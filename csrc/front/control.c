/* See control.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "front/control.h"

#include <string.h>

#include "base/clock.h"
#include "base/thread.h"

void control_queue_init(struct control_queue *queue)
{
    *queue = (struct control_queue){.nr_pending = 0};
    list_init(&queue->pending);
    pthread_mutex_init(&queue->lock, NULL);
    condition_init(&queue->arrived);
}

void control_queue_destroy(struct control_queue *queue)
{
    pthread_cond_destroy(&queue->arrived);
    pthread_mutex_destroy(&queue->lock);
}

bool control_put(struct control_queue *queue, struct control_entry *entry)
{
    pthread_mutex_lock(&queue->lock);
    bool has_room = queue->nr_pending < CONTROL_MAX_PENDING;
    if (has_room) {
        entry->token = ++queue->last_token;
        entry->deadline_ns = clock_now_ns() + CONTROL_TIMEOUT_MS * NS_PER_MS;
        entry->is_given = false;
        list_append(&queue->pending, &entry->link);
        queue->nr_pending++;
        pthread_cond_signal(&queue->arrived);
    }
    pthread_mutex_unlock(&queue->lock);
    return has_room;
}

/* Called with the lock held, as all that is static here. */
static void take_out(struct control_queue *queue, struct control_entry *entry)
{
    list_remove(&entry->link);
    queue->nr_pending--;
}

static struct control_entry *first_not_given(struct control_queue *queue)
{
    for (struct list *link = queue->pending.next; link != &queue->pending; link = link->next) {
        struct control_entry *entry = LIST_ENTRY(link, struct control_entry, link);
        if (!entry->is_given)
            return entry;
    }
    return NULL;
}

/* The lock keeps the entry in the queue, and with it the kernel's memory mapped. */
static void describe(const struct control_entry *entry, struct obd_control *control)
{
    struct iov_cursor data = entry->data;
    uint64_t length = iov_cursor_left(&data);
    control->ring_id = entry->ring_id;
    control->token = entry->token;
    memcpy(control->cdb, entry->cdb, sizeof control->cdb);
    control->data_in_length = length < UINT32_MAX ? (uint32_t)length : UINT32_MAX;
    control->data_out_length = length < sizeof control->data_out ? (uint32_t)length : sizeof control->data_out;
    iov_cursor_read(&data, control->data_out, control->data_out_length);
}

enum obd_status control_next(struct control_queue *queue, uint64_t deadline_ns, struct obd_control *control)
{
    struct control_entry *entry;
    bool is_in_time = true;
    pthread_mutex_lock(&queue->lock);
    while ((entry = first_not_given(queue)) == NULL && !queue->is_closed && is_in_time)
        is_in_time = condition_wait(&queue->arrived, &queue->lock, deadline_ns);
    bool is_closed = queue->is_closed;
    if (!is_closed && entry != NULL) {
        entry->is_given = true;
        describe(entry, control);
    }
    pthread_mutex_unlock(&queue->lock);
    if (is_closed)
        return OBD_E_CLOSED;
    return entry != NULL ? OBD_OK : OBD_E_TIMEOUT;
}

struct control_entry *control_take(struct control_queue *queue, uint64_t ring_id, uint64_t token)
{
    struct control_entry *found = NULL;
    pthread_mutex_lock(&queue->lock);
    for (struct list *link = queue->pending.next; link != &queue->pending; link = link->next) {
        struct control_entry *entry = LIST_ENTRY(link, struct control_entry, link);
        if (entry->token == token && entry->ring_id == ring_id) {
            found = entry;
            take_out(queue, entry);
            break;
        }
    }
    pthread_mutex_unlock(&queue->lock);
    return found;
}

bool control_expire(struct control_queue *queue, uint64_t now_ns, struct list *expired)
{
    pthread_mutex_lock(&queue->lock);
    while (!list_is_empty(&queue->pending)) {
        struct control_entry *entry = LIST_ENTRY(queue->pending.next, struct control_entry, link);
        if (entry->deadline_ns > now_ns)
            break;
        take_out(queue, entry);
        list_append(expired, &entry->link);
    }
    bool is_more = queue->nr_pending > 0;
    pthread_mutex_unlock(&queue->lock);
    return is_more;
}

void control_cancel(struct control_queue *queue, uint64_t ring_id, struct list *cancelled)
{
    pthread_mutex_lock(&queue->lock);
    for (struct list *link = queue->pending.next, *next; link != &queue->pending; link = next) {
        struct control_entry *entry = LIST_ENTRY(link, struct control_entry, link);
        next = link->next;
        if (entry->ring_id == ring_id) {
            take_out(queue, entry);
            list_append(cancelled, link);
        }
    }
    pthread_mutex_unlock(&queue->lock);
}

void control_close(struct control_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->is_closed = true;
    pthread_cond_broadcast(&queue->arrived);
    pthread_mutex_unlock(&queue->lock);
}
