/* upper_wait: writers set aside because the journal is full (upper.h).
 *
 * Room comes from a flush, or from a write that gives its promise back; both see to
 * it that upper_wake_waiters runs.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/upper_state.h"

bool upper_wait(struct upper *upper, struct upper_waiter *waiter)
{
    pthread_mutex_lock(&upper->map_lock);
    list_init(&waiter->link);
    bool must_wait = !upper->is_read_only && !upper->is_failed && upper->seal_state == UPPER_OPEN &&
                     journal_nr_free(upper->journal) <= upper->slots_reserved;
    if (must_wait) {
        list_append(&upper->waiters, &waiter->link);
        upper_want_flush(upper);
    }
    pthread_mutex_unlock(&upper->map_lock);
    return must_wait;
}

bool upper_cancel_wait(struct upper *upper, struct upper_waiter *waiter)
{
    pthread_mutex_lock(&upper->map_lock);
    bool was_queued = list_is_linked(&waiter->link);
    if (was_queued)
        list_remove(&waiter->link);
    pthread_mutex_unlock(&upper->map_lock);
    return was_queued;
}

/* Under map_lock: would a writer that tries again get another answer? */
static bool is_worth_trying(const struct upper *upper)
{
    return journal_nr_free(upper->journal) > upper->slots_reserved || upper->is_failed ||
           upper->seal_state != UPPER_OPEN || upper->room_status != OBD_OK;
}

/* The first in the queue, if it is worth waking. */
static struct upper_waiter *take_waiter(struct upper *upper)
{
    pthread_mutex_lock(&upper->map_lock);
    struct list *link = is_worth_trying(upper) ? list_pop(&upper->waiters) : NULL;
    pthread_mutex_unlock(&upper->map_lock);
    return link == NULL ? NULL : LIST_ENTRY(link, struct upper_waiter, link);
}

static size_t count_waiters(struct upper *upper)
{
    size_t nr = 0;
    pthread_mutex_lock(&upper->map_lock);
    for (struct list *link = upper->waiters.next; link != &upper->waiters; link = link->next)
        nr++;
    pthread_mutex_unlock(&upper->map_lock);
    return nr;
}

void upper_wake_waiters(struct upper *upper)
{
    for (size_t nr = count_waiters(upper); nr > 0; nr--) {
        struct upper_waiter *waiter = take_waiter(upper);
        if (waiter == NULL)
            return;
        waiter->wake(waiter);
    }
}
