/* range_lock: who is working on which bytes of a device.
 *
 * Readers of overlapping ranges go together, a writer goes alone.  Nobody waits
 * on a thread: a holder that cannot have its range is queued, and granted is
 * called when it has it.  First come, first served among those that overlap, so
 * that no writer starves.
 *
 * The holders stand in one list, in order of arrival, granted or not.  A holder
 * may go when nobody before it conflicts with it; that one rule is the whole
 * lock.  The list is as long as the queue of a device (128), so a walk is short.
 *
 * A *barrier* waits for everybody before it and keeps nobody after it waiting: when it is
 * granted, whoever held a range when it came has let go of that.
 *
 * Invariants (range_lock_check)
 *   (1) two granted holders that overlap are both shared, or one is a barrier
 *   (2) a holder that waits has one before it that it conflicts with
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
    bool is_barrier; /* its range does not matter */
    bool is_granted;
    void (*granted)(struct range_lock_holder *holder); /* called with no lock held */
    struct list link;
    struct range_lock_holder *next_granted; /* while granted is about to be called */
};

struct range_lock {
    pthread_mutex_t lock;
    struct list holders; /* granted and waiting, in order of arrival */
    unsigned nr_waiting;
};

void range_lock_init(struct range_lock *ranges);
void range_lock_destroy(struct range_lock *ranges); /* nobody holds or waits */

/* True: the range is the holder's now.  False: it is queued, granted will be called. */
bool range_lock_take(struct range_lock *ranges, struct range_lock_holder *holder);

/* As range_lock_take, but false means that nothing happened. */
bool range_lock_try(struct range_lock *ranges, struct range_lock_holder *holder);

/* Gives back a granted range; calls granted of those that can go now. */
void range_lock_release(struct range_lock *ranges, struct range_lock_holder *holder);

/* True when holder was still waiting and is out of the queue: granted will not be
 * called.  Those that waited only for it are granted, on this thread: the caller
 * holds no lock that granted takes. */
bool range_lock_cancel(struct range_lock *ranges, struct range_lock_holder *holder);

bool range_lock_check(struct range_lock *ranges); /* used in assert and tests only */

#endif
