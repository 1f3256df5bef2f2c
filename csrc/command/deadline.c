/* deadline: the timer thread, which ends what has waited too long.
 *
 * All commands of a device have the same time to live, so its list of commands in
 * flight, oldest first, is sorted by deadline as it stands, and the timer needs no
 * heap: it looks at the heads.  It sleeps until the earliest of them, and is not
 * told when that command is done meanwhile; waking once too often in twenty
 * seconds is cheaper than a lock with every command.
 *
 * What happens at the deadline is the device's policy:
 *   error    the command ends with OBD_E_TIMEOUT, unless it runs at that moment
 *   retry    it lives on; when it is parked, its sources are asked again
 *   freeze   there is no deadline
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>

#include "base/checked.h"
#include "base/thread.h"
#include "command/state.h"

/* What one look at the devices found, to be acted on with no lock held. */
struct due {
    uint64_t now_ns;
    uint64_t next_ns; /* when to look again */
    struct list doomed;
    struct list late; /* parked, of devices that retry */
};

static struct command *in_flight_of(struct list *link)
{
    return LIST_ENTRY(link, struct command, in_flight);
}

/* Gives a command of a device that retries another term, at the list's end, where
 * its new deadline belongs. */
static void renew(struct device *device, struct command *command, struct due *due)
{
    command->deadline_ns = due->now_ns + device->io_timeout_ms * NS_PER_MS;
    list_remove(&command->in_flight);
    list_append(&device->in_flight, &command->in_flight);
    if (command->state == COMMAND_PARKED)
        command_take_from_wait(command, &due->late);
}

static void collect_expired(struct device *device, struct due *due)
{
    struct list *link = device->in_flight.next, *next;
    for (; link != &device->in_flight; link = next) {
        struct command *command = in_flight_of(link);
        if (command->deadline_ns > due->now_ns) {
            due->next_ns = min_u64(due->next_ns, command->deadline_ns);
            break;
        }
        next = link->next;
        if (device->on_timeout == OBD_ON_TIMEOUT_RETRY)
            renew(device, command, due);
        else
            command_doom(command, OBD_E_TIMEOUT, &due->doomed);
    }
}

static void resume_paused(struct device *device, struct due *due)
{
    struct list *link = device->paused.next, *next;
    for (; link != &device->paused; link = next) {
        struct command *command = LIST_ENTRY(link, struct command, link);
        next = link->next;
        if (command->resume_ns <= due->now_ns) {
            list_remove(link);
            command_queue(command);
        } else {
            due->next_ns = min_u64(due->next_ns, command->resume_ns);
        }
    }
}

static void collect_due(struct timer *timer, struct due *due)
{
    list_init(&due->doomed);
    list_init(&due->late);
    due->now_ns = clock_now_ns();
    due->next_ns = NEVER_NS;
    for (struct list *link = timer->devices.next; link != &timer->devices; link = link->next) {
        struct device *device = LIST_ENTRY(link, struct device, timer_link);
        pthread_mutex_lock(&device->lock);
        collect_expired(device, due);
        resume_paused(device, due);
        pthread_mutex_unlock(&device->lock);
    }
}

static void *timer_run(void *argument)
{
    struct timer *timer = argument;
    struct due due;
    pthread_mutex_lock(&timer->lock);
    while (!timer->is_closed) {
        /* Whoever queues a command while we look finds "never", comes for the
         * lock, and so cannot be missed. */
        atomic_store(&timer->wake_ns, NEVER_NS);
        collect_due(timer, &due);
        if (!list_is_empty(&due.doomed) || !list_is_empty(&due.late)) {
            pthread_mutex_unlock(&timer->lock);
            commands_end(&due.doomed);
            commands_ask_again(&due.late);
            pthread_mutex_lock(&timer->lock);
            continue;
        }
        atomic_store(&timer->wake_ns, due.next_ns);
        while (!timer->is_closed && clock_now_ns() < atomic_load(&timer->wake_ns))
            condition_wait(&timer->changed, &timer->lock, atomic_load(&timer->wake_ns));
    }
    pthread_mutex_unlock(&timer->lock);
    return NULL;
}

enum obd_status timer_start(struct timer *timer)
{
    pthread_mutex_init(&timer->lock, NULL);
    condition_init(&timer->changed);
    list_init(&timer->devices);
    atomic_init(&timer->wake_ns, NEVER_NS);
    timer->is_closed = false;
    return thread_start("obd-timer", timer_run, timer, &timer->thread);
}

void timer_stop(struct timer *timer)
{
    pthread_mutex_lock(&timer->lock);
    assert(list_is_empty(&timer->devices));
    timer->is_closed = true;
    pthread_cond_signal(&timer->changed);
    pthread_mutex_unlock(&timer->lock);
    pthread_join(timer->thread, NULL);
    pthread_cond_destroy(&timer->changed);
    pthread_mutex_destroy(&timer->lock);
}

void timer_add_device(struct timer *timer, struct device *device)
{
    pthread_mutex_lock(&timer->lock);
    list_append(&timer->devices, &device->timer_link);
    pthread_mutex_unlock(&timer->lock);
}

void timer_remove_device(struct timer *timer, struct device *device)
{
    pthread_mutex_lock(&timer->lock);
    list_remove(&device->timer_link);
    pthread_mutex_unlock(&timer->lock);
}

void timer_expect(struct timer *timer, uint64_t when_ns)
{
    if (when_ns >= atomic_load(&timer->wake_ns))
        return;
    pthread_mutex_lock(&timer->lock);
    if (when_ns < atomic_load(&timer->wake_ns)) {
        atomic_store(&timer->wake_ns, when_ns);
        pthread_cond_signal(&timer->changed);
    }
    pthread_mutex_unlock(&timer->lock);
}
