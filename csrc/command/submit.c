/* submit: the way of a command into the core.
 *
 * The short way: a read that a front may run on its own thread touches no lock that
 * another reader takes, allocates nothing and mostly reads no clock.  On a read-only image,
 * where ranges need no lock, its only shared writes are to the thread's own shard.
 * When its bytes are not at hand it goes the long way like every other command.
 *
 * A small write may go the short way too, because handing it over costs more than a
 * copy to the page cache.  Its range is its own meanwhile, as on the long way, so that
 * memory and index see overlapping writes in one order; when the range or the upper is
 * busy, or the disk behind it is, it goes the long way (upper_try_write).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/checked.h"
#include "command/state.h"

/* As long as it may keep a front's thread from its other devices. */
#define MAX_INLINE_WRITE (64u << 10)

static bool is_write(const struct command *command)
{
    return command->kind == COMMAND_WRITE || command->kind == COMMAND_DISCARD;
}

/* Does the kind come with data in iov? */
static bool has_data(const struct command *command)
{
    return command->kind == COMMAND_READ || command->kind == COMMAND_WRITE ||
           (command->kind == COMMAND_VERIFY && command->nr_iov > 0);
}

static enum obd_status refuse_closing(enum obd_status refusal)
{
    return status_set(refusal, "the device is being closed");
}

static enum obd_status check_command(const struct command *command)
{
    const struct device *device = command->device;
    enum obd_status refusal = atomic_load_explicit(&device->refusal, memory_order_relaxed);
    if (refusal != OBD_OK)
        return refuse_closing(refusal);
    if (command->kind == COMMAND_FLUSH)
        return OBD_OK;
    if (!is_aligned(command->offset | command->length, SECTOR_SIZE))
        return status_set(OBD_E_INVALID, "not a multiple of 512");
    if (!range_is_inside(command->offset, command->length, device->size))
        return status_set(OBD_E_RANGE, "outside the device, which has %llu", (unsigned long long)device->size);
    if (is_write(command) && device->is_read_only)
        return status_set(OBD_E_READ_ONLY, "the image is read-only");
    if (has_data(command)) {
        struct iov_cursor cursor = iov_cursor_at(command->iov, command->nr_iov);
        if (iov_cursor_left(&cursor) < command->length)
            return status_set(OBD_E_INVALID, "the buffers are too short");
    }
    return OBD_OK;
}

/* What costs nothing: an empty range, or a flush of what cannot change. */
static bool is_nothing(const struct command *command)
{
    return command->kind == COMMAND_FLUSH ? command->device->is_read_only : command->length == 0;
}

/* One attempt that waits for nothing; OBD_E_AGAIN and OBD_E_MISS: not so. */
static enum obd_status try_read(struct command *command)
{
    struct device *device = command->device;
    if (!device->is_read_only) {
        command->range = (struct range_lock_holder){.offset = command->offset, .length = command->length};
        if (!range_lock_try(&device->ranges, &command->range))
            return OBD_E_AGAIN;
    }
    struct demand demand;
    demand_init(&demand, NULL);
    const struct read_context context = {.nowait = true, .demand = &demand};
    struct iov_cursor cursor = iov_cursor_at(command->iov, command->nr_iov);
    enum obd_status status = image_read(device_image(device), &context, &cursor, command->length, command->offset);
    command->provenance = demand.provenance;
    demand_destroy(&demand); /* a worker will collect the misses again */
    if (!device->is_read_only)
        range_lock_release(&device->ranges, &command->range);
    return status;
}

static enum obd_status try_write(struct command *command)
{
    struct device *device = command->device;
    command->range =
        (struct range_lock_holder){.offset = command->offset, .length = command->length, .is_exclusive = true};
    if (!range_lock_try(&device->ranges, &command->range))
        return OBD_E_AGAIN;
    struct iov_cursor cursor = iov_cursor_at(command->iov, command->nr_iov);
    enum obd_status status = image_try_write(device_image(device), &cursor, command->length, command->offset);
    range_lock_release(&device->ranges, &command->range);
    return status;
}

/* Discards may cut up as much of the index as there is; who wants FUA waits for the disk. */
static enum obd_status try_now(struct command *command)
{
    if (command->kind == COMMAND_READ)
        return try_read(command);
    if (command->kind == COMMAND_WRITE && !command->fua && command->length <= MAX_INLINE_WRITE)
        return try_write(command);
    return OBD_E_AGAIN;
}

/* True: it is done, and its front's again. */
static bool run_inline(struct command *command)
{
    struct sampler *sampler = &shard_of_thread(command->device)->samplers[command->kind];
    uint64_t began_ns = sampler_begin(sampler);
    enum obd_status status = try_now(command);
    if (status == OBD_E_AGAIN || status == OBD_E_MISS)
        return false;
    command->took_ns = sampler_end(sampler, began_ns);
    command_end_at_once(command, status);
    return true;
}

static void init_command(struct command *command)
{
    struct device *device = command->device;
    demand_init(&command->demand, NULL);
    command->admitted_bytes = 0;
    command->is_admitted = false;
    command->range.is_granted = false;
    command->room_image = NULL;
    list_init(&command->link);
    command->submitted_ns = clock_now_ns();
    command->deadline_ns = device->on_timeout == OBD_ON_TIMEOUT_FREEZE
                               ? NEVER_NS
                               : command->submitted_ns + device->io_timeout_ms * NS_PER_MS;
    command->progress = 0;
    command->nr_pauses = 0;
    command->waited_in = COMMAND_QUEUED;
    command->state = COMMAND_RUNNING;
    command->doom = OBD_OK;
    command->is_woken = false;
}

/* Under the lock, so that device_fail_parked finds the command or is seen by it. */
static enum obd_status enter_flight(struct command *command)
{
    struct device *device = command->device;
    pthread_mutex_lock(&device->lock);
    enum obd_status refusal = atomic_load(&device->refusal);
    if (refusal == OBD_OK) {
        list_append(&device->in_flight, &command->in_flight);
        device->nr_in_flight++;
        if (command->kind != COMMAND_FLUSH)
            command_queue(command);
    }
    pthread_mutex_unlock(&device->lock);
    return refusal;
}

static void run_in_flight(struct command *command)
{
    struct core *core = command->device->core;
    init_command(command);
    uint64_t deadline_ns = command->deadline_ns;
    enum obd_status refusal = enter_flight(command);
    if (refusal != OBD_OK) {
        command_end_at_once(command, refuse_closing(refusal));
        return;
    }
    if (command->kind == COMMAND_FLUSH)
        flusher_append(command);
    timer_expect(&core->timer, deadline_ns);
}

void command_submit(struct device *device, struct command *command, bool may_run_inline)
{
    command->device = device;
    command->miscompare_offset = 0;
    command->provenance = (struct provenance){0};
    command->took_ns = 0;
    enum obd_status status = check_command(command);
    if (status != OBD_OK || is_nothing(command))
        command_end_at_once(command, status);
    else if (!may_run_inline || !run_inline(command))
        run_in_flight(command);
}
