/* range_lock: who is working on which bytes of a device.
 *
 * Readers of overlapping ranges go together, a writer goes alone.  Nobody waits
 * on a thread: a holder that cannot have its range is queued, and granted is
 * called when it has it.  First come, first served among those that overlap, so
 * that no writer starves.
 *
 * Thread-safe.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_COMMAND_RANGE_LOCK_H
#define OBD_COMMAND_RANGE_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct range_lock_holder {
    uint64_t offset;
    uint64_t length;
    bool is_exclusive;
    bool is_granted;
    void (*granted)(struct range_lock_holder *holder); /* called with no lock held */
    struct list link;
};

struct range_lock {
    pthread_mutex_t lock;
    struct list holders; /* granted and waiting, in order of arrival */
};

void range_lock_init(struct range_lock *ranges);
void range_lock_destroy(struct range_lock *ranges);

/* True: the range is the holder's now.  False: it is queued, granted will be called. */
bool range_lock_take(struct range_lock *ranges, struct range_lock_holder *holder);

/* Gives back a granted range; calls granted of those that can go now. */
void range_lock_release(struct range_lock *ranges, struct range_lock_holder *holder);

/* True when holder was still waiting and is out of the queue. */
bool range_lock_cancel(struct range_lock *ranges, struct range_lock_holder *holder);

#endif
