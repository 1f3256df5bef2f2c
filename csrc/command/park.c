/* park: commands set aside until the bytes that they miss have come.
 *
 *   waiting --admitted--> asked --(last answer, or taken back)--> ready --> run again
 *
 * What is asked for holds memory: pins in the cache, or transient buffers.  So a
 * command is admitted first, with all that it misses (architecture, rule 2.3):
 *
 *   (1) within a device commands are admitted in order of arrival
 *   (2) a command is admitted when it fits into what is left of the device's budget
 *       and of the global one
 *   (3) or when the device has no other: so one command of every device always goes
 *       on, and one larger than the budget runs alone
 *   (4) a command that was admitted, ran, and missed again keeps its place and is
 *       charged the rest: it must not wait for those that wait for it
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>

#include "command/state.h"

void park_init(struct park *park, uint64_t budget)
{
    pthread_mutex_init(&park->lock, NULL);
    park->budget = budget;
    park->bytes = 0;
    list_init(&park->devices);
}

void park_destroy(struct park *park)
{
    assert(list_is_empty(&park->devices) && park->bytes == 0);
    pthread_mutex_destroy(&park->lock);
}

void device_park_init(struct device_park *share, uint64_t budget)
{
    share->budget = budget;
    share->bytes = 0;
    share->nr_admitted = 0;
    list_init(&share->waiting);
    list_init(&share->link);
}

static struct command *waiting_of(struct list *link)
{
    return LIST_ENTRY(link, struct command, park_link);
}

static bool fits(uint64_t bytes, uint64_t used, uint64_t budget)
{
    return used <= budget && bytes <= budget - used;
}

static bool may_admit(const struct park *park, const struct device_park *share, const struct command *command)
{
    uint64_t bytes = command->demand.bytes;
    return share->nr_admitted == 0 ||
           (fits(bytes, share->bytes, share->budget) && fits(bytes, park->bytes, park->budget));
}

static void leave_queue(struct device_park *share, struct command *command)
{
    list_remove(&command->park_link);
    if (list_is_empty(&share->waiting))
        list_remove(&share->link);
}

static void charge(struct park *park, struct device_park *share, struct command *command)
{
    uint64_t more = command->demand.bytes - command->admitted_bytes;
    command->admitted_bytes += more;
    share->bytes += more;
    park->bytes += more;
    /* Still under the lock: whoever finds the command admitted can count on a wake. */
    demand_begin(&command->demand);
}

/* Admits the first command of share, if it may go, and puts it on admitted. */
static bool admit_first(struct park *park, struct device_park *share, struct list *admitted)
{
    struct command *command = waiting_of(share->waiting.next);
    if (!may_admit(park, share, command))
        return false;
    leave_queue(share, command);
    command->is_admitted = true;
    share->nr_admitted++;
    charge(park, share, command);
    list_append(admitted, &command->park_link);
    return true;
}

/* One of each device, round and round, until nobody can go: no device takes all
 * that another has given back. */
static void admit_waiting(struct park *park, struct list *admitted)
{
    bool has_admitted = true;
    while (has_admitted) {
        has_admitted = false;
        struct list *next;
        for (struct list *link = park->devices.next; link != &park->devices; link = next) {
            next = link->next;
            struct device_park *share = LIST_ENTRY(link, struct device_park, link);
            has_admitted |= admit_first(park, share, admitted);
        }
    }
}

/* With no lock held: a source may answer at once, on this thread. */
static void start_admitted(struct list *admitted)
{
    struct list *link;
    while ((link = list_pop(admitted)) != NULL)
        demand_start(&waiting_of(link)->demand);
}

static void enter_queue(struct park *park, struct command *command)
{
    struct device_park *share = &command->device->park;
    list_append(&share->waiting, &command->park_link);
    if (!list_is_linked(&share->link))
        list_append(&park->devices, &share->link);
}

static void on_ready(struct demand *demand)
{
    command_wake(LIST_ENTRY(demand, struct command, demand));
}

void park_command(struct command *command)
{
    struct park *park = &command->device->core->park;
    struct list admitted;
    list_init(&admitted);
    command->demand.ready = on_ready;
    command_prepare_wait(command);
    pthread_mutex_lock(&park->lock);
    if (command->is_admitted) {
        charge(park, &command->device->park, command);
        list_append(&admitted, &command->park_link);
    } else {
        enter_queue(park, command);
        admit_waiting(park, &admitted);
    }
    pthread_mutex_unlock(&park->lock);
    start_admitted(&admitted);
    command_wait(command, COMMAND_PARKED);
}

/* False: it was admitted, and is or will be asked for. */
static bool leave_queue_unadmitted(struct command *command)
{
    struct park *park = &command->device->core->park;
    pthread_mutex_lock(&park->lock);
    bool was_waiting = !command->is_admitted;
    if (was_waiting)
        leave_queue(&command->device->park, command);
    pthread_mutex_unlock(&park->lock);
    return was_waiting;
}

bool park_forget(struct command *command, enum obd_status status)
{
    if (leave_queue_unadmitted(command))
        return true;
    if (demand_hold(&command->demand)) {
        status_set(status, "the data did not come in time");
        demand_cancel(&command->demand, status);
    }
    return false;
}

void park_release(struct command *command)
{
    struct device_park *share = &command->device->park;
    struct park *park = &command->device->core->park;
    struct list admitted;
    list_init(&admitted);
    demand_release(&command->demand); /* the pins first: then the bytes are free indeed */
    if (!command->is_admitted)
        return;
    pthread_mutex_lock(&park->lock);
    share->bytes -= command->admitted_bytes;
    share->nr_admitted--;
    park->bytes -= command->admitted_bytes;
    command->admitted_bytes = 0;
    command->is_admitted = false;
    admit_waiting(park, &admitted);
    pthread_mutex_unlock(&park->lock);
    start_admitted(&admitted);
}
