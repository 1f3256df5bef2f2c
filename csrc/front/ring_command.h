/* ring_command: one command of a ring, from the mailbox to its answer.
 *
 *   taken --+--> with the core ---------(done)---+
 *           +--> waiting for a device --+        |
 *           |      (set, broken, late)--+        +--> ended --> answered, and free again
 *           +--> with Python --(reply, late)-----+
 *           +--> refused at once ----------------+
 *
 * Used again and again, with room for buffers that only grows: in steady state
 * nothing is allocated, and the size of the kernel's ring bounds how many there are.
 *
 * Owned by the ring's thread, but for the time with the core (until done) or with
 * Python (until somebody takes it out of the control queue).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_FRONT_RING_COMMAND_H
#define OBD_FRONT_RING_COMMAND_H

#include "front/ring.h"
#include "front/scsi_decode.h"

struct ring_command {
    struct command command; /* the core's view */
    struct ring *ring;
    struct list link; /* in ring->free, ring->waiting or thread->finished */
    uint16_t id;      /* the kernel's */
    uint8_t cdb[MAILBOX_CDB_SIZE];
    struct iovec *iov; /* nr_iov pieces of the kernel's data area */
    uint32_t nr_iov;
    uint32_t iov_room;
    uint64_t data_length; /* of the buffers together */
    uint64_t deadline_ns; /* while waiting for a device */
    struct control_entry control;
    struct scsi_request request;
    unsigned nr_started;  /* ranges of request */
    uint32_t sense;       /* of the answer; 0: GOOD */
    uint32_t read_length; /* of the answer; 0: all of the buffers */
};

/* A command for the entry: its CDB and buffers copied.  OBD_E_CORRUPT: the entry
 * makes no sense; OBD_E_NO_MEMORY. */
enum obd_status ring_command_new(struct ring *ring, const struct mailbox_entry *entry, struct ring_command **out);
void ring_command_free(struct ring_command *command);

/* Sends it where it belongs in the ring's state; it may have been answered when
 * this returns.  may_run_inline: as of command_submit. */
void ring_command_start(struct ring_command *command, bool may_run_inline);

/* The command has ended elsewhere, with this sense (0: GOOD): gives it back to its
 * thread.  Any thread. */
void ring_command_end(struct ring_command *command, uint32_t sense);
/* What the thread then does: goes on with the next range, or answers. */
void ring_command_ended(struct ring_command *command);

/* Python's answer; the command was taken out of the control queue.  Any thread. */
void ring_command_reply(struct ring_command *command, const struct obd_control_reply *reply);

/* The command whose control entry this is. */
struct ring_command *ring_command_of_control(struct list *link);

#endif
