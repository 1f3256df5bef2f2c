/* demand_wait: see demand_wait.h.
 *
 * Lock order: sleepers.lock, demand_wait.lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "source/demand_wait.h"

#include "base/clock.h"
#include "base/thread.h"

/* Those that sleep, for demand_wait_interrupt(); a tool has a few at most. */
static struct {
    pthread_mutex_t lock; /* guards the others */
    struct list waits;
    bool are_interrupted;
} sleepers = {.lock = PTHREAD_MUTEX_INITIALIZER, .waits = {&sleepers.waits, &sleepers.waits}};

static void wake(struct demand *demand)
{
    struct demand_wait *wait = LIST_ENTRY(demand, struct demand_wait, demand);
    pthread_mutex_lock(&wait->lock);
    wait->is_ready = true;
    pthread_cond_signal(&wait->changed); /* under the lock: the waiter is gone once it has seen is_ready */
    pthread_mutex_unlock(&wait->lock);
}

void demand_wait_init(struct demand_wait *wait)
{
    demand_init(&wait->demand, wake);
    pthread_mutex_init(&wait->lock, NULL);
    condition_init(&wait->changed);
    wait->is_ready = wait->is_stopped = false;
}

void demand_wait_destroy(struct demand_wait *wait)
{
    demand_destroy(&wait->demand);
    pthread_cond_destroy(&wait->changed);
    pthread_mutex_destroy(&wait->lock);
}

static void join_sleepers(struct demand_wait *wait)
{
    pthread_mutex_lock(&sleepers.lock);
    wait->is_interrupted = sleepers.are_interrupted;
    list_append(&sleepers.waits, &wait->link);
    pthread_mutex_unlock(&sleepers.lock);
}

static void leave_sleepers(struct demand_wait *wait)
{
    pthread_mutex_lock(&sleepers.lock);
    list_remove(&wait->link);
    pthread_mutex_unlock(&sleepers.lock);
}

void demand_wait_interrupt(bool wanted)
{
    pthread_mutex_lock(&sleepers.lock);
    sleepers.are_interrupted = wanted;
    for (struct list *link = sleepers.waits.next; wanted && link != &sleepers.waits; link = link->next) {
        struct demand_wait *wait = LIST_ENTRY(link, struct demand_wait, link);
        pthread_mutex_lock(&wait->lock);
        wait->is_interrupted = true;
        pthread_cond_signal(&wait->changed);
        pthread_mutex_unlock(&wait->lock);
    }
    pthread_mutex_unlock(&sleepers.lock);
}

void demand_wait_stop(struct demand_wait *wait)
{
    pthread_mutex_lock(&wait->lock);
    wait->is_stopped = true;
    pthread_cond_signal(&wait->changed);
    pthread_mutex_unlock(&wait->lock);
}

static bool is_stopped(struct demand_wait *wait)
{
    pthread_mutex_lock(&wait->lock);
    bool is = wait->is_stopped;
    pthread_mutex_unlock(&wait->lock);
    return is;
}

/* Why it did not become ready, as this thread's sentence; OBD_OK when it did. */
static enum obd_status sleep_until_ready(struct demand_wait *wait, const char *name, uint64_t deadline_ns)
{
    bool is_in_time = true;
    join_sleepers(wait);
    pthread_mutex_lock(&wait->lock);
    while (!wait->is_ready && !wait->is_interrupted && !wait->is_stopped && is_in_time)
        is_in_time = condition_wait(&wait->changed, &wait->lock, deadline_ns);
    bool is_ready = wait->is_ready, is_interrupted = wait->is_interrupted, is_stopped = wait->is_stopped;
    pthread_mutex_unlock(&wait->lock);
    leave_sleepers(wait);
    if (is_ready)
        return OBD_OK;
    if (is_stopped)
        return status_set(OBD_E_CANCELLED, "%s: stopped", name);
    return is_interrupted ? status_set(OBD_E_CANCELLED, "%s: interrupted while waiting for data", name)
                          : status_set(OBD_E_TIMEOUT, "%s: the data did not arrive in time", name);
}

/* Every request is answered or being answered: it does not last. */
static void wait_for_the_answers(struct demand_wait *wait)
{
    pthread_mutex_lock(&wait->lock);
    while (!wait->is_ready)
        condition_wait(&wait->changed, &wait->lock, NEVER_NS);
    pthread_mutex_unlock(&wait->lock);
}

enum obd_status demand_wait_for_misses(struct demand_wait *wait, const char *name, uint64_t deadline_ns)
{
    if (is_stopped(wait))
        return status_set(OBD_E_CANCELLED, "%s: stopped", name);
    wait->is_ready = false; /* nobody else looks before demand_start */
    wait->demand.deadline_ns = deadline_ns;
    demand_start(&wait->demand);
    enum obd_status status = sleep_until_ready(wait, name, deadline_ns);
    if (status != OBD_OK) {
        if (demand_hold(&wait->demand))
            demand_cancel(&wait->demand, status);
        wait_for_the_answers(wait);
    }
    return demand_status(&wait->demand);
}
