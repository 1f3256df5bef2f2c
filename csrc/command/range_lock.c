/* range_lock: see range_lock.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "command/range_lock.h"

#include <assert.h>

#include "base/checked.h"

static struct range_lock_holder *holder_of(struct list *link)
{
    return LIST_ENTRY(link, struct range_lock_holder, link);
}

void range_lock_init(struct range_lock *ranges)
{
    pthread_mutex_init(&ranges->lock, NULL);
    list_init(&ranges->holders);
    ranges->nr_waiting = 0;
}

void range_lock_destroy(struct range_lock *ranges)
{
    assert(list_is_empty(&ranges->holders));
    pthread_mutex_destroy(&ranges->lock);
}

/* Does first, which came before second, keep it waiting? */
static bool holders_conflict(const struct range_lock_holder *first, const struct range_lock_holder *second)
{
    if (first->is_barrier || second->is_barrier)
        return second->is_barrier;
    return (first->is_exclusive || second->is_exclusive) &&
           ranges_overlap(first->offset, first->length, second->offset, second->length);
}

/* Does one of those before end (which may be the head: all) stand in holder's way? */
static bool must_wait(struct range_lock *ranges, const struct range_lock_holder *holder, const struct list *end)
{
    for (struct list *link = ranges->holders.next; link != end; link = link->next) {
        if (holders_conflict(holder_of(link), holder))
            return true;
    }
    return false;
}

bool range_lock_take(struct range_lock *ranges, struct range_lock_holder *holder)
{
    pthread_mutex_lock(&ranges->lock);
    bool may_go = !must_wait(ranges, holder, &ranges->holders);
    holder->is_granted = may_go;
    ranges->nr_waiting += !may_go;
    list_append(&ranges->holders, &holder->link);
    pthread_mutex_unlock(&ranges->lock);
    /* A holder that was queued may be granted, and gone, from here on. */
    return may_go;
}

bool range_lock_try(struct range_lock *ranges, struct range_lock_holder *holder)
{
    pthread_mutex_lock(&ranges->lock);
    bool may_go = !must_wait(ranges, holder, &ranges->holders);
    holder->is_granted = may_go;
    if (may_go)
        list_append(&ranges->holders, &holder->link);
    pthread_mutex_unlock(&ranges->lock);
    return may_go;
}

/* Takes gone out and returns those that its going lets go, as a chain in order
 * of arrival. */
static struct range_lock_holder *remove_and_grant(struct range_lock *ranges, struct range_lock_holder *gone)
{
    struct range_lock_holder *first = NULL, **last = &first;
    list_remove(&gone->link);
    if (ranges->nr_waiting == 0)
        return NULL;
    for (struct list *link = ranges->holders.next; link != &ranges->holders; link = link->next) {
        struct range_lock_holder *holder = holder_of(link);
        if (holder->is_granted || !holders_conflict(gone, holder) || must_wait(ranges, holder, link))
            continue;
        holder->is_granted = true;
        holder->next_granted = NULL;
        ranges->nr_waiting--;
        *last = holder;
        last = &holder->next_granted;
    }
    return first;
}

/* With the lock dropped: granted may take other locks, or take and release ranges. */
static void call_granted(struct range_lock_holder *holder)
{
    while (holder != NULL) {
        struct range_lock_holder *next = holder->next_granted;
        holder->granted(holder);
        holder = next;
    }
}

void range_lock_release(struct range_lock *ranges, struct range_lock_holder *holder)
{
    pthread_mutex_lock(&ranges->lock);
    assert(holder->is_granted);
    holder->is_granted = false;
    struct range_lock_holder *granted = remove_and_grant(ranges, holder);
    pthread_mutex_unlock(&ranges->lock);
    call_granted(granted);
}

bool range_lock_cancel(struct range_lock *ranges, struct range_lock_holder *holder)
{
    struct range_lock_holder *granted = NULL;
    pthread_mutex_lock(&ranges->lock);
    bool was_waiting = !holder->is_granted;
    if (was_waiting) {
        ranges->nr_waiting--;
        granted = remove_and_grant(ranges, holder);
    }
    pthread_mutex_unlock(&ranges->lock);
    call_granted(granted);
    return was_waiting;
}

static bool holder_check(struct range_lock *ranges, const struct range_lock_holder *holder)
{
    for (struct list *link = ranges->holders.next; link != &ranges->holders; link = link->next) {
        const struct range_lock_holder *other = holder_of(link);
        if (other == holder || other->is_barrier || holder->is_barrier)
            continue;
        if (other->is_granted && holder->is_granted && holders_conflict(other, holder))
            return false;
    }
    return holder->is_granted || must_wait(ranges, holder, &holder->link);
}

bool range_lock_check(struct range_lock *ranges)
{
    bool is_sound = true;
    pthread_mutex_lock(&ranges->lock);
    for (struct list *link = ranges->holders.next; link != &ranges->holders; link = link->next)
        is_sound = is_sound && holder_check(ranges, holder_of(link));
    pthread_mutex_unlock(&ranges->lock);
    return is_sound;
}
