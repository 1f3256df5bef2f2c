/* run: one attempt at a command, on a worker.
 *
 * An attempt starts from the beginning each time (architecture, rule 2.3) and ends
 * in one of these ways:
 *   done                   to the front, or to the flusher when it shall be durable
 *   its range is taken     waits for it, and will hold it when it is run again
 *   bytes are missing      parked; gives its range back first
 *   no room in the journal parked; likewise
 *   its source failed      paused, and tried again while its deadline allows it
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/checked.h"
#include "command/state.h"

/* Between attempts after a source failed for a reason that may pass. */
#define FIRST_PAUSE_MS 250u
#define MAX_PAUSE_MS   8000u

static void on_granted(struct range_lock_holder *holder)
{
    command_wake(LIST_ENTRY(holder, struct command, range));
}

static void on_room(struct upper_waiter *waiter)
{
    command_wake(LIST_ENTRY(waiter, struct command, upper_waiter));
}

/* True when it holds its range, or needs none; false: it waits, and is not ours. */
static bool take_range(struct command *command)
{
    struct device *device = command->device;
    if (device->is_read_only || command->range.is_granted)
        return true;
    command->range = (struct range_lock_holder){
        .offset = command->offset,
        .length = command->length,
        .is_exclusive = command->kind == COMMAND_WRITE || command->kind == COMMAND_DISCARD,
        .granted = on_granted,
    };
    command_prepare_wait(command);
    if (range_lock_take(&device->ranges, &command->range))
        return true;
    command_wait(command, COMMAND_WAITING_FOR_RANGE);
    return false;
}

static enum obd_status execute(struct command *command)
{
    struct image *image = device_image(command->device); /* its range keeps it there */
    const struct read_context context = {.nowait = false, .demand = &command->demand};
    struct iov_cursor cursor = iov_cursor_at(command->iov, command->nr_iov);
    switch (command->kind) {
    case COMMAND_READ:
        return image_read(image, &context, &cursor, command->length, command->offset);
    case COMMAND_WRITE:
        return image_write(image, &cursor, command->length, command->offset);
    case COMMAND_DISCARD:
        return image_discard(image, command->length, command->offset);
    case COMMAND_VERIFY:
        return command_verify(command);
    case COMMAND_FLUSH:
        break; /* goes straight to the flusher */
    }
    return status_set(OBD_E_INVALID, "there is no command of kind %d", command->kind);
}

static void release_range(struct command *command)
{
    if (command->range.is_granted)
        range_lock_release(&command->device->ranges, &command->range);
}

/* What an attempt held, before the command waits for something else. */
static void let_go(struct command *command)
{
    release_range(command);
    park_release(command);
}

static void queue_again(struct command *command)
{
    struct device *device = command->device;
    pthread_mutex_lock(&device->lock);
    command_queue(command);
    pthread_mutex_unlock(&device->lock);
}

void command_leave_room(struct command *command)
{
    if (command->room_image != NULL)
        image_unref(command->room_image);
    command->room_image = NULL;
}

static void wait_for_room(struct command *command)
{
    command->upper_waiter.wake = on_room;
    list_init(&command->upper_waiter.link);
    command->room_image = device_take_image(command->device);
    command_prepare_wait(command);
    if (upper_wait(image_upper(command->room_image), &command->upper_waiter))
        command_wait(command, COMMAND_WAITING_FOR_ROOM);
    else
        queue_again(command);
}

/* A stretch of a VERIFY is behind it: others have their turn, and its time to live
 * starts anew, since a whole disk may well take longer than one command should. */
static void go_on_later(struct command *command)
{
    struct device *device = command->device;
    pthread_mutex_lock(&device->lock);
    if (command->deadline_ns != NEVER_NS) {
        command->deadline_ns = clock_now_ns() + device->io_timeout_ms * NS_PER_MS;
        list_remove(&command->in_flight);
        list_append(&device->in_flight, &command->in_flight);
    }
    command_queue(command);
    pthread_mutex_unlock(&device->lock);
}

static bool has_more(const struct command *command)
{
    return command->kind == COMMAND_VERIFY && command->progress < command->length;
}

/* After an attempt that came to its end. */
static void succeed(struct command *command)
{
    if (has_more(command)) {
        let_go(command);
        go_on_later(command);
    } else if (command->fua && !command->device->is_read_only) {
        let_go(command);
        flusher_append(command);
    } else {
        command_finish(command, OBD_OK);
    }
}

static void attempt(struct command *command)
{
    enum obd_status status = execute(command);
    switch (status) {
    case OBD_OK:
        succeed(command);
        break;
    case OBD_E_MISS:
        release_range(command); /* but not the pins: what has come must not go again */
        park_command(command);
        break;
    case OBD_E_AGAIN:
        let_go(command);
        wait_for_room(command);
        break;
    default:
        command_finish(command, status);
    }
}

static uint64_t pause_ms(const struct command *command)
{
    if (command->device->on_timeout == OBD_ON_TIMEOUT_FREEZE)
        return command->device->io_timeout_ms;
    uint32_t doublings = command->nr_pauses < 5 ? command->nr_pauses : 5;
    return min_u64(MAX_PAUSE_MS, (uint64_t)FIRST_PAUSE_MS << doublings);
}

static bool may_pass(enum obd_status status)
{
    return status == OBD_E_UNREACHABLE || status == OBD_E_TIMEOUT;
}

/* Is there time for another attempt after a pause? */
static bool has_time(const struct command *command, uint64_t resume_ns)
{
    return command->device->on_timeout != OBD_ON_TIMEOUT_ERROR || resume_ns < command->deadline_ns;
}

static void pause_until(struct command *command, uint64_t resume_ns)
{
    struct device *device = command->device;
    struct core *core = device->core;
    pthread_mutex_lock(&device->lock);
    bool is_doomed = command->doom != OBD_OK;
    if (!is_doomed)
        command_pause(command, resume_ns);
    pthread_mutex_unlock(&device->lock);
    if (is_doomed)
        command_end_doomed(command);
    else
        timer_expect(&core->timer, resume_ns);
}

/* True when it was not parked, or all it was parked for has come; false: it is
 * not ours any more. */
static bool has_its_bytes(struct command *command)
{
    enum obd_status status = demand_status(&command->demand);
    if (status == OBD_OK)
        return true;
    uint64_t resume_ns = clock_now_ns() + pause_ms(command) * NS_PER_MS;
    if (may_pass(status) && has_time(command, resume_ns)) {
        park_release(command); /* a pause holds no budget */
        pause_until(command, resume_ns);
    } else {
        command_finish(command, status);
    }
    return false;
}

void command_run(struct command *command)
{
    struct device *device = command->device;
    pthread_mutex_lock(&device->lock);
    command->state = COMMAND_RUNNING;
    command->demand.deadline_ns = command->deadline_ns;
    bool is_doomed = command->doom != OBD_OK;
    pthread_mutex_unlock(&device->lock);
    command_leave_room(command);
    if (is_doomed)
        command_end_doomed(command);
    else if (has_its_bytes(command) && take_range(command))
        attempt(command);
}
