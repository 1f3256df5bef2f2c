/* wait: how a command is put aside, woken, and taken out of its wait.
 *
 * Three things wake a command: a range that is granted, room in the journal, the
 * last of its misses.  Each can happen before the command has got round to waiting,
 * and each can happen while a deadline takes the command away.  So every wait is
 * the same handshake:
 *
 *   1. command_prepare_wait   it still runs, and is_woken is false
 *   2. the waker is told      from here on it may call command_wake at any time
 *   3. command_wait           waits, unless it was woken or doomed meanwhile
 *
 * and whoever takes a command out of its wait (command_take_from_wait) makes it run
 * again in the same sense, so that a wake is noted rather than acted upon.  The taker
 * then asks the waker to forget it; when that is too late, the wake is sure to come,
 * and the command goes back to wait for it: a waker never meets freed memory.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>

#include "command/state.h"

static bool is_parked_state(enum command_state state)
{
    return state == COMMAND_PARKED || state == COMMAND_WAITING_FOR_ROOM || state == COMMAND_PAUSED;
}

void command_prepare_wait(struct command *command)
{
    assert(command->state == COMMAND_RUNNING);
    command->is_woken = false;
}

static void enter_state(struct command *command, enum command_state state)
{
    struct device *device = command->device;
    device->nr_parked -= is_parked_state(command->state);
    device->nr_parked += is_parked_state(state);
    command->state = state;
}

void command_queue(struct command *command)
{
    enter_state(command, COMMAND_QUEUED);
    run_queue_append(command);
}

void command_pause(struct command *command, uint64_t resume_ns)
{
    command->resume_ns = resume_ns;
    command->nr_pauses++;
    command->device->nr_parks++;
    enter_state(command, COMMAND_PAUSED);
    list_append(&command->device->paused, &command->link);
}

void command_wake_locked(struct command *command)
{
    if (command->state == COMMAND_RUNNING)
        command->is_woken = true;
    else
        command_queue(command);
}

void command_wake(struct command *command)
{
    struct device *device = command->device;
    pthread_mutex_lock(&device->lock);
    command_wake_locked(command);
    pthread_mutex_unlock(&device->lock);
}

static void end_wait(struct command *command);

void command_wait(struct command *command, enum command_state state)
{
    struct device *device = command->device;
    bool is_doomed = false;
    pthread_mutex_lock(&device->lock);
    if (command->is_woken)
        command_queue(command);
    else if (command->doom != OBD_OK)
        is_doomed = true;
    else
        enter_state(command, state);
    device->nr_parks += is_parked_state(state);
    pthread_mutex_unlock(&device->lock);
    if (!is_doomed)
        return; /* and not a glance at the command: it may be done by now */
    command->waited_in = state;
    end_wait(command);
}

bool command_take_from_wait(struct command *command, struct list *list)
{
    switch (command->state) {
    case COMMAND_RUNNING:
        return false;
    case COMMAND_QUEUED:
        if (!run_queue_remove(command))
            return false; /* a worker has it, and will look at its doom */
        break;
    case COMMAND_PAUSED:
    case COMMAND_FLUSHING:
        list_remove(&command->link);
        break;
    case COMMAND_WAITING_FOR_RANGE:
    case COMMAND_WAITING_FOR_ROOM:
    case COMMAND_PARKED:
        command->is_woken = false;
        break;
    }
    command->waited_in = command->state;
    enter_state(command, COMMAND_RUNNING);
    list_append(list, &command->link);
    return true;
}

void command_doom(struct command *command, enum obd_status status, struct list *doomed)
{
    if (command->doom == OBD_OK)
        command->doom = status;
    command_take_from_wait(command, doomed);
}

/* Asks whatever was to wake the command to forget it; false: too late. */
static bool forget_wait(struct command *command)
{
    switch (command->waited_in) {
    case COMMAND_WAITING_FOR_RANGE:
        return range_lock_cancel(&command->device->ranges, &command->range);
    case COMMAND_WAITING_FOR_ROOM:
        return upper_cancel_wait(image_upper(command->room_image), &command->upper_waiter);
    case COMMAND_PARKED:
        return park_forget(command, command->doom);
    default:
        return true;
    }
}

/* Back into a wait whose wake is under way; true when it has come meanwhile, and
 * the command is still the caller's. */
static bool resume_wait(struct command *command)
{
    struct device *device = command->device;
    pthread_mutex_lock(&device->lock);
    bool is_woken = command->is_woken;
    if (!is_woken)
        enter_state(command, command->waited_in);
    pthread_mutex_unlock(&device->lock);
    return is_woken;
}

static void end_wait(struct command *command)
{
    if (forget_wait(command) || resume_wait(command))
        command_end_doomed(command);
}

void commands_end(struct list *doomed)
{
    struct list *link;
    while ((link = list_pop(doomed)) != NULL)
        end_wait(LIST_ENTRY(link, struct command, link));
}

void commands_ask_again(struct list *late)
{
    struct list *link;
    while ((link = list_pop(late)) != NULL) {
        struct command *command = LIST_ENTRY(link, struct command, link);
        struct device *device = command->device;
        if (!park_forget(command, OBD_E_TIMEOUT) && !resume_wait(command))
            continue; /* and not a glance at it: it may be done by now */
        pthread_mutex_lock(&device->lock);
        command_queue(command);
        pthread_mutex_unlock(&device->lock);
    }
}
