/* demand_wait: see demand_wait.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "source/demand_wait.h"

#include "base/clock.h"
#include "base/thread.h"

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
    wait->is_ready = false;
}

void demand_wait_destroy(struct demand_wait *wait)
{
    demand_destroy(&wait->demand);
    pthread_cond_destroy(&wait->changed);
    pthread_mutex_destroy(&wait->lock);
}

/* False when deadline_ns came first. */
static bool sleep_until_ready(struct demand_wait *wait, uint64_t deadline_ns)
{
    bool is_in_time = true;
    pthread_mutex_lock(&wait->lock);
    while (!wait->is_ready && is_in_time)
        is_in_time = condition_wait(&wait->changed, &wait->lock, deadline_ns);
    bool is_ready = wait->is_ready;
    pthread_mutex_unlock(&wait->lock);
    return is_ready;
}

enum obd_status demand_wait_for_misses(struct demand_wait *wait, const char *name, uint64_t deadline_ns)
{
    wait->is_ready = false; /* nobody else looks before demand_start */
    wait->demand.deadline_ns = deadline_ns;
    demand_start(&wait->demand);
    if (!sleep_until_ready(wait, deadline_ns)) {
        status_set(OBD_E_TIMEOUT, "%s: the data did not arrive in time", name);
        if (demand_hold(&wait->demand))
            demand_cancel(&wait->demand, OBD_E_TIMEOUT);
        sleep_until_ready(wait, NEVER_NS); /* every request is answered or being answered */
    }
    return demand_status(&wait->demand);
}
