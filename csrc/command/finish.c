/* finish: the way of a command out of the core: counters, log, and done.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "base/log.h"
#include "command/state.h"

static const char *const kind_names[OBD_NR_COMMAND_KINDS] = {"read", "write", "discard", "flush", "verify"};

/* Every sentence that leaves the core says which device and which command. */
static void describe(const struct command *command)
{
    status_prefix(command->status, "device %s: %s of %llu bytes at %llu", command->device->name,
                  kind_names[command->kind], (unsigned long long)command->length, (unsigned long long)command->offset);
}

/* What the initiator asked for wrongly, or found out, is told to it alone. */
static bool is_worth_logging(enum obd_status status)
{
    return status != OBD_OK && status != OBD_E_INVALID && status != OBD_E_RANGE && status != OBD_E_READ_ONLY &&
           status != OBD_E_MISCOMPARE;
}

void command_end_at_once(struct command *command, enum obd_status status)
{
    command->status = status;
    shard_count(shard_of_thread(command->device), command);
    if (status != OBD_OK)
        describe(command);
    if (is_worth_logging(status))
        log_write(OBD_LOG_ERROR, "%s (%s)", status_text(), obd_status_name(status));
    command->done(command);
}

void command_finish(struct command *command, enum obd_status status)
{
    struct device *device = command->device;
    char text[STATUS_TEXT_SIZE];
    if (status != OBD_OK)
        snprintf(text, sizeof text, "%s", status_text());
    if (command->range.is_granted)
        range_lock_release(&device->ranges, &command->range);
    command_leave_room(command);
    park_release(command);
    command->provenance = command->demand.provenance;
    command->took_ns = clock_now_ns() - command->submitted_ns;
    demand_destroy(&command->demand);
    if (status != OBD_OK)
        status_set(status, "%s", text); /* sources that were asked just now may have said something else */
    pthread_mutex_lock(&device->lock);
    list_remove(&command->in_flight);
    pthread_mutex_unlock(&device->lock);
    command_end_at_once(command, status);
    /* The command is its front's; the device is ours until it is counted out. */
    pthread_mutex_lock(&device->lock);
    if (--device->nr_in_flight == 0)
        pthread_cond_broadcast(&device->idle);
    pthread_mutex_unlock(&device->lock);
}

/* Where it was when its time was over. */
static const char *const state_names[] = {
    [COMMAND_RUNNING] = "running",
    [COMMAND_QUEUED] = "queued for a worker",
    [COMMAND_WAITING_FOR_RANGE] = "waiting for its range",
    [COMMAND_WAITING_FOR_ROOM] = "waiting for room in the journal",
    [COMMAND_PARKED] = "parked for missing data",
    [COMMAND_PAUSED] = "paused after its source failed",
    [COMMAND_FLUSHING] = "queued for a flush",
};

void command_end_doomed(struct command *command)
{
    unsigned long long age_ms = (clock_now_ns() - command->submitted_ns) / NS_PER_MS;
    status_set(command->doom, "given up after %llu ms, %s", age_ms, state_names[command->waited_in]);
    command_finish(command, command->doom);
}
