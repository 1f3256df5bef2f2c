/* See ring_command.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "front/ring_command.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/log.h"
#include "front/scsi_sense.h"

/* So many buffers a new command has room for: transfers up to 128 KiB. */
#define MIN_IOV_ROOM 32

static bool make_room(struct ring_command *command, uint32_t nr_iov)
{
    if (command->iov != NULL && nr_iov <= command->iov_room)
        return true;
    uint32_t room = (uint32_t)max_u64(nr_iov, MIN_IOV_ROOM);
    struct iovec *iov = realloc(command->iov, room * sizeof *iov);
    if (iov == NULL)
        return false;
    command->iov = iov;
    command->iov_room = room;
    return true;
}

/* One from the free list, else a new one; NULL: no memory. */
static struct ring_command *take_free(struct ring *ring)
{
    struct list *link = list_pop(&ring->free);
    struct ring_command *command =
        link != NULL ? LIST_ENTRY(link, struct ring_command, link) : calloc(1, sizeof *command);
    if (command != NULL)
        command->ring = ring;
    return command;
}

enum obd_status ring_command_new(struct ring *ring, const struct mailbox_entry *entry, struct ring_command **out)
{
    struct ring_command *command = take_free(ring);
    if (command == NULL || !make_room(command, entry->nr_iov)) {
        if (command != NULL)
            list_append(&ring->free, &command->link);
        return status_set(OBD_E_NO_MEMORY, "ring %s: no memory for %u buffers", ring->name, entry->nr_iov);
    }
    if (!mailbox_copy_iov(&ring->mailbox, entry, command->iov, &command->data_length)) {
        list_append(&ring->free, &command->link);
        return OBD_E_CORRUPT;
    }
    command->id = entry->id;
    command->nr_iov = entry->nr_iov;
    command->sense = command->read_length = 0;
    command->request.kind = COMMAND_READ;
    command->request.fua = false;
    memcpy(command->cdb, entry->cdb, sizeof command->cdb);
    *out = command;
    return OBD_OK;
}

void ring_command_free(struct ring_command *command)
{
    free(command->iov);
    free(command);
}

static void answer_with(struct ring_command *command, uint32_t sense)
{
    command->sense = sense;
    ring_answer(command->ring, command);
}

/* ---- with the core ---- */

void ring_command_end(struct ring_command *command, uint32_t sense)
{
    command->sense = sense;
    ring_thread_finish(command->ring->thread, &command->link);
}

static void core_done(struct command *done)
{
    struct ring_command *command = LIST_ENTRY(done, struct ring_command, command);
    ring_command_end(command, scsi_sense_of_status(done->status, scsi_is_write(command->cdb)));
}

/* The first pieces of the buffers that hold length bytes, the last one cut: the
 * initiator may have sent more room than its CDB asks for. */
static int cut_iov(struct iovec *iov, uint32_t nr_iov, uint64_t length)
{
    uint32_t i = 0;
    for (; i < nr_iov && length > 0; i++) {
        if (iov[i].iov_len > length)
            iov[i].iov_len = length;
        length -= iov[i].iov_len;
    }
    return (int)i;
}

/* Submits the next range of the request. */
static void submit_range(struct ring_command *command, bool may_run_inline)
{
    const struct scsi_request *request = &command->request;
    struct scsi_range range = request->ranges[command->nr_started++];
    struct command *core = &command->command;
    core->kind = request->kind;
    core->fua = request->fua;
    core->offset = range.offset;
    core->length = range.length;
    core->iov = request->uses_data ? command->iov : NULL;
    core->nr_iov = request->uses_data ? cut_iov(command->iov, command->nr_iov, range.length) : 0;
    core->done = core_done;
    command_submit(command->ring->device, core, may_run_inline);
}

void ring_command_ended(struct ring_command *command)
{
    struct ring *ring = command->ring;
    bool is_data = scsi_class(command->cdb[0]) == OBD_SCSI_DATA;
    if (!is_data || command->sense != 0 || command->nr_started == command->request.nr_ranges)
        ring_answer(ring, command);
    else if (ring->state == RING_SERVING && !ring->is_broken)
        submit_range(command, false);
    else
        answer_with(command, SENSE_NO_COMMUNICATION);
}

static void serve(struct ring_command *command, bool may_run_inline)
{
    struct iov_cursor data = iov_cursor_at(command->iov, (int)command->nr_iov);
    uint32_t sense = scsi_decode(command->cdb, data, device_size(command->ring->device), &command->request);
    command->nr_started = 0;
    if (sense != 0 || command->request.nr_ranges == 0)
        answer_with(command, sense);
    else
        submit_range(command, may_run_inline);
}

/* ---- without a device ---- */

static void wait_for_device(struct ring_command *command)
{
    struct ring *ring = command->ring;
    command->deadline_ns = clock_now_ns() + ring->open_timeout_ns;
    list_append(&ring->waiting, &command->link);
    ring->nr_waiting++;
    ring_thread_has_deadline(ring->thread);
}

static void start_data(struct ring_command *command, bool may_run_inline)
{
    struct ring *ring = command->ring;
    switch (ring->state) {
    case RING_OPENING:
        wait_for_device(command);
        break;
    case RING_SERVING:
        serve(command, may_run_inline);
        break;
    case RING_FAILING:
        answer_with(command, scsi_sense_of_status(ring->broken_status, scsi_is_write(command->cdb)));
        break;
    }
}

/* ---- with Python ---- */

static void ask_python(struct ring_command *command)
{
    struct ring *ring = command->ring;
    command->control.ring_id = ring->id;
    command->control.cdb = command->cdb;
    command->control.data = iov_cursor_at(command->iov, (int)command->nr_iov);
    if (control_put(ring->thread->controls, &command->control)) {
        ring_thread_has_deadline(ring->thread);
    } else {
        log_write(OBD_LOG_WARNING, "ring %s: opcode %02x: %u commands wait for Python already", ring->name,
                  command->cdb[0], CONTROL_MAX_PENDING);
        answer_with(command, SENSE_NO_COMMUNICATION);
    }
}

struct ring_command *ring_command_of_control(struct list *link)
{
    struct control_entry *entry = LIST_ENTRY(link, struct control_entry, link);
    return LIST_ENTRY(entry, struct ring_command, control);
}

/* The rest of the buffer is cleared: it holds what an earlier command left there. */
static uint32_t copy_reply(struct ring_command *command, const void *data, uint32_t length)
{
    struct iov_cursor cursor = iov_cursor_at(command->iov, (int)command->nr_iov);
    uint32_t copied = (uint32_t)min_u64(length, iov_cursor_left(&cursor));
    if (copied > 0)
        iov_cursor_write(&cursor, data, copied);
    iov_cursor_zero(&cursor, iov_cursor_left(&cursor));
    return copied;
}

void ring_command_reply(struct ring_command *command, const struct obd_control_reply *reply)
{
    uint32_t sense = reply->scsi_status == SCSI_GOOD ? 0 : reply->sense;
    if (sense == 0 && reply->length > 0)
        command->read_length = copy_reply(command, reply->data, reply->length);
    ring_command_end(command, sense);
}

void ring_command_start(struct ring_command *command, bool may_run_inline)
{
    switch (scsi_class(command->cdb[0])) {
    case OBD_SCSI_DATA:
        start_data(command, may_run_inline);
        break;
    case OBD_SCSI_CONTROL:
        ask_python(command);
        break;
    case OBD_SCSI_UNKNOWN:
        answer_with(command, SENSE_INVALID_OPCODE);
        break;
    }
}
