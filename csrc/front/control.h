/* control: the queue of commands that Python answers.
 *
 * Ring threads put commands in, Python's thread takes copies of them out and
 * replies by token; whoever comes first of reply, deadline and cancel takes the
 * command out of the queue, and it is his alone from then on.
 *
 *   put --> pending --(next: a copy goes to Python)--> pending, given
 *              |                                          |
 *              +--------- reply, expire or cancel --------+--> out
 *
 * Bounded: a full queue refuses.  All commands have the same time, so the order of
 * arrival is the order of the deadlines.
 *
 * Thread-safe.  Its lock is taken last of all, and nothing is called under it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_FRONT_CONTROL_H
#define OBD_FRONT_CONTROL_H

#include <pthread.h>
#include <stdbool.h>

#include "base/iov.h"
#include "base/list.h"
#include "base/status.h"

#define CONTROL_TIMEOUT_MS  10000
#define CONTROL_MAX_PENDING 1024

/* Lies in the command; its owner fills the first part before control_put. */
struct control_entry {
    uint64_t ring_id;
    const uint8_t *cdb; /* 16 bytes */
    struct iov_cursor data;

    uint64_t token;
    uint64_t deadline_ns;
    bool is_given;
    struct list link; /* in the queue, or a list that expire or cancel filled */
};

struct control_queue {
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    struct list pending; /* in order of arrival */
    unsigned nr_pending;
    uint64_t last_token;
    bool is_closed;
};

void control_queue_init(struct control_queue *queue);
void control_queue_destroy(struct control_queue *queue); /* empty */

/* False: the queue is full, the entry is still the caller's. */
bool control_put(struct control_queue *queue, struct control_entry *entry);

/* Copies the oldest entry that Python has not seen; OBD_E_TIMEOUT, OBD_E_CLOSED. */
enum obd_status control_next(struct control_queue *queue, uint64_t deadline_ns, struct obd_control *control);

/* Takes out the entry of this token; NULL when it is not there any more. */
struct control_entry *control_take(struct control_queue *queue, uint64_t ring_id, uint64_t token);

/* Moves to list what is past its deadline; returns whether anything is left. */
bool control_expire(struct control_queue *queue, uint64_t now_ns, struct list *expired);

/* Moves to list every entry of the ring. */
void control_cancel(struct control_queue *queue, uint64_t ring_id, struct list *cancelled);

/* Wakes control_next for good.  What is pending stays so, and more may come. */
void control_close(struct control_queue *queue);

#endif
