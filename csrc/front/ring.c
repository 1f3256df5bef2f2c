/* See ring.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "front/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "front/ring_command.h"
#include "front/scsi_sense.h"

#define DEFAULT_OPEN_TIMEOUT_MS 20000

static void init_ring(struct ring *ring, struct ring_thread *thread, const struct obd_ring_params *params, uint64_t id)
{
    uint32_t timeout_ms = params->open_timeout_ms != 0 ? params->open_timeout_ms : DEFAULT_OPEN_TIMEOUT_MS;
    ring->id = id;
    ring->thread = thread;
    ring->open_timeout_ns = timeout_ms * NS_PER_MS;
    ring->state = RING_OPENING;
    snprintf(ring->name, sizeof ring->name, "%s", params->name);
    list_init(&ring->free);
    list_init(&ring->waiting);
    list_init(&ring->link);
    list_init(&ring->kick_link);
}

static enum obd_status open_memory(struct ring *ring, const struct obd_ring_params *params)
{
    ring->fd = fcntl(params->fd, F_DUPFD_CLOEXEC, 0);
    if (ring->fd < 0)
        return status_set_errno(errno, "ring %s: duplicate descriptor %d", ring->name, params->fd);
    enum obd_status status = mailbox_open(&ring->mailbox, ring->fd, params->map, params->map_size);
    if (status != OBD_OK) {
        close(ring->fd);
        return status_prefix(status, "ring %s", ring->name);
    }
    return OBD_OK;
}

enum obd_status ring_open(struct ring_thread *thread, const struct obd_ring_params *params, uint64_t id,
                          struct ring **out)
{
    struct ring *ring = calloc(1, sizeof *ring);
    if (ring == NULL)
        return status_set(OBD_E_NO_MEMORY, "ring %s: no memory", params->name);
    init_ring(ring, thread, params, id);
    enum obd_status status = open_memory(ring, params);
    if (status != OBD_OK)
        free(ring);
    else
        *out = ring;
    return status;
}

void ring_close(struct ring *ring)
{
    struct list *link;
    while ((link = list_pop(&ring->free)) != NULL)
        ring_command_free(LIST_ENTRY(link, struct ring_command, link));
    mailbox_close(&ring->mailbox);
    close(ring->fd);
    free(ring);
}

static void stop_walking(struct ring *ring)
{
    if (!ring->is_stopped)
        ring_thread_unwatch(ring->thread, ring->fd);
    ring->is_stopped = true;
}

void ring_break(struct ring *ring)
{
    if (!ring->is_broken)
        log_write(OBD_LOG_ERROR, "ring %s: %s; it is not served any more", ring->name, status_text());
    ring->is_broken = true;
    stop_walking(ring);
}

/* The count of events is of no use to us; reading it makes the descriptor quiet.
 * Done before the head is looked at, so that no entry is missed.  EIO is how UIO says
 * that the device is gone, which the hub may hear later. */
static bool read_events(struct ring *ring)
{
    uint32_t nr_events;
    if (read(ring->fd, &nr_events, sizeof nr_events) >= 0 || errno == EAGAIN || errno == EINTR)
        return true;
    if (errno == EIO)
        stop_walking(ring);
    status_set_errno(errno, "read the events of the device");
    return false;
}

static void mark_for_kick(struct ring *ring)
{
    if (ring->must_kick)
        return;
    ring->must_kick = true;
    list_append(&ring->thread->to_kick, &ring->kick_link);
}

/* An entry for which there is no memory is answered out of the stack. */
static void refuse(struct ring *ring, const struct mailbox_entry *entry)
{
    struct mailbox_answer answer = {
        .id = entry->id, .scsi_status = SCSI_CHECK_CONDITION, .sense = SENSE_TARGET_FAILURE};
    if (mailbox_answer(&ring->mailbox, &answer))
        mark_for_kick(ring);
    else
        ring_break(ring);
}

/* May the command run on this thread?  Small ones: handing one over costs more than
 * a warm read of its bytes.  Of large ones only the last of the turn: those before
 * it are with the workers by then, and nothing more urgent is left to do here. */
static bool may_run_inline(struct ring *ring, uint64_t length, bool is_last)
{
    struct ring_thread *thread = ring->thread;
    if (is_last && thread->is_last_ring)
        return true;
    if (length > thread->inline_left)
        return false;
    thread->inline_left -= length;
    return true;
}

static void accept_entry(struct ring *ring, const struct mailbox_entry *entry, bool is_last)
{
    struct ring_command *command;
    enum obd_status status = ring_command_new(ring, entry, &command);
    ring->nr_commands++;
    if (status == OBD_E_NO_MEMORY) {
        refuse(ring, entry);
    } else if (status != OBD_OK) {
        ring_break(ring);
    } else {
        ring->nr_in_flight++;
        ring_command_start(command, may_run_inline(ring, command->data_length, is_last));
    }
}

static void take_entries(struct ring *ring, uint32_t head)
{
    struct mailbox_entry entry;
    enum mailbox_take taken = MAILBOX_EMPTY;
    while (!ring->is_broken && (taken = mailbox_take(&ring->mailbox, head, &entry)) == MAILBOX_COMMAND)
        accept_entry(ring, &entry, ring->mailbox.position == head);
    if (taken == MAILBOX_BROKEN)
        ring_break(ring);
}

void ring_walk(struct ring *ring)
{
    uint32_t head;
    if (ring->is_stopped)
        return;
    if (!read_events(ring) || !mailbox_head(&ring->mailbox, &head)) {
        if (!ring->is_stopped)
            ring_break(ring);
        return;
    }
    take_entries(ring, head);
    if (!ring->is_broken && mailbox_pass_padding(&ring->mailbox))
        mark_for_kick(ring);
}

static void take_back(struct ring *ring, struct ring_command *command)
{
    ring->nr_in_flight--;
    list_append(&ring->free, &command->link);
    if (ring->is_detached && ring->nr_in_flight == 0) {
        list_remove(&ring->link);
        ring_close(ring);
    }
}

void ring_answer(struct ring *ring, struct ring_command *command)
{
    if (ring->is_broken || ring->is_detached) {
        take_back(ring, command);
        return;
    }
    struct mailbox_answer answer = {.id = command->id, .sense = command->sense, .read_length = command->read_length};
    answer.scsi_status = command->sense == 0 ? SCSI_GOOD : SCSI_CHECK_CONDITION;
    if (mailbox_answer(&ring->mailbox, &answer))
        mark_for_kick(ring);
    else
        ring_break(ring);
    if (command->sense == 0 && (command->request.kind == COMMAND_FLUSH || command->request.fua))
        ring->kick_carries_flush = true;
    take_back(ring, command);
}

void ring_forget(struct ring *ring, struct ring_command *command)
{
    take_back(ring, command);
}

/* In the test build a kick that says "flushed" is preceded by a system call that
 * fails and does nothing, so that strace shows what was synced before it. */
static void show_flush(struct ring *ring)
{
#ifdef OBD_TEST_BUILD
    static const char MARK[] = "tcmu.flush_kick";
    if (ring->kick_carries_flush && write(-1, MARK, sizeof MARK - 1) >= 0)
        log_fatal("ring %s: descriptor -1 can be written", ring->name);
#endif
    ring->kick_carries_flush = false;
}

void ring_kick(struct ring *ring)
{
    uint32_t one = 1;
    ring->must_kick = false;
    show_flush(ring);
    if (ring->is_broken)
        return;
    ring->nr_batches++;
    if (write(ring->fd, &one, sizeof one) < 0 && errno != EAGAIN && errno != EINTR) {
        status_set_errno(errno, "tell the kernel of answers");
        ring_break(ring);
    }
}

static void restart_waiting(struct ring *ring)
{
    struct list waiting;
    list_init(&waiting);
    struct list *link;
    while ((link = list_pop(&ring->waiting)) != NULL)
        list_append(&waiting, link);
    ring->nr_waiting = 0;
    while ((link = list_pop(&waiting)) != NULL)
        ring_command_start(LIST_ENTRY(link, struct ring_command, link), false);
}

void ring_set_device(struct ring *ring, struct device *device)
{
    ring->device = device;
    ring->state = device != NULL ? RING_SERVING : RING_OPENING;
    if (device != NULL)
        restart_waiting(ring);
}

void ring_set_failing(struct ring *ring, enum obd_status status)
{
    ring->device = NULL;
    ring->broken_status = status;
    ring->state = RING_FAILING;
    restart_waiting(ring);
}

/* Ends the longest waiting command; false: nothing waits, or not so long. */
static bool expire_first(struct ring *ring, uint64_t now_ns)
{
    if (list_is_empty(&ring->waiting))
        return false;
    struct ring_command *command = LIST_ENTRY(ring->waiting.next, struct ring_command, link);
    if (command->deadline_ns > now_ns)
        return false;
    list_remove(&command->link);
    ring->nr_waiting--;
    command->sense = scsi_sense_of_status(OBD_E_TIMEOUT, scsi_is_write(command->cdb));
    ring_answer(ring, command);
    return true;
}

bool ring_expire(struct ring *ring, uint64_t now_ns)
{
    uint64_t nr = 0;
    while (expire_first(ring, now_ns))
        nr++;
    if (nr > 0)
        log_write(OBD_LOG_WARNING, "ring %s: %llu commands found no device in %llu ms", ring->name,
                  (unsigned long long)nr, (unsigned long long)(ring->open_timeout_ns / NS_PER_MS));
    return ring->nr_waiting > 0;
}

static void end_idle_command(struct ring *ring, struct ring_command *command, bool leave_parked)
{
    command->sense = scsi_sense_of_status(OBD_E_CANCELLED, scsi_is_write(command->cdb));
    if (leave_parked)
        ring_forget(ring, command);
    else
        ring_answer(ring, command);
}

void ring_stop(struct ring *ring, bool leave_parked)
{
    struct list controls, *link;
    stop_walking(ring);
    list_init(&controls);
    control_cancel(ring->thread->controls, ring->id, &controls);
    while ((link = list_pop(&controls)) != NULL)
        end_idle_command(ring, ring_command_of_control(link), leave_parked);
    while ((link = list_pop(&ring->waiting)) != NULL)
        end_idle_command(ring, LIST_ENTRY(link, struct ring_command, link), leave_parked);
    ring->nr_waiting = 0;
}

uint64_t ring_nr_running(const struct ring *ring)
{
    if (ring->device == NULL)
        return ring->nr_in_flight;
    struct obd_device_stats stats;
    device_stats(ring->device, &stats);
    bool only_parked = stats.nr_in_flight == stats.nr_parked && ring->nr_in_flight <= stats.nr_parked;
    return only_parked ? 0 : ring->nr_in_flight;
}
