/* mailbox: the memory that the kernel's target_core_user and we share.
 *
 *   0             ring_offset                ring_offset + ring_size       size
 *   | head, tail  | entry entry PAD entry ... | data area: pieces of 4 KiB |
 *
 * The kernel appends entries at head; each is a command with its CDB and a list
 * of buffers in the data area, or padding up to the ring's end, or a notice of a
 * task management function.  We take them at position, in order, and give the
 * slots back at tail, also in order; but an answer names its command by an id, so
 * commands end in any order, each in whatever slot is at tail by then
 * (linux/target_core_user.h, "out-of-order completion").
 *
 *           tail          position            head
 *   ---------|----taken------|----to take------|----- free -----
 *
 * Invariants
 *   (1) tail <= position <= head, going round.  A head that is not there has gone
 *       back: the ring is broken for good.
 *   (2) An entry is copied out before it is used: answers overwrite slots, and
 *       nobody promises that the kernel's side stays as it was checked.
 *   (3) Nothing read from the memory is an offset or a length into it before it
 *       was checked.
 *
 * Owned by one thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_FRONT_MAILBOX_H
#define OBD_FRONT_MAILBOX_H

#include <stdbool.h>
#include <sys/uio.h>

#include "base/status.h"

#define MAILBOX_CDB_SIZE   16
#define MAILBOX_SENSE_SIZE 96

struct mailbox {
    uint8_t *map;
    uint64_t size;
    bool is_mapped_here; /* else the caller's memory */
    bool has_read_length;
    uint32_t ring_offset;
    uint32_t ring_size;
    uint32_t position;
    uint32_t tail;
};

/* A command's entry, copied, but for the list of buffers. */
struct mailbox_entry {
    uint16_t id;
    uint8_t cdb[MAILBOX_CDB_SIZE]; /* zero behind what the opcode uses */
    uint32_t nr_iov;
    uint64_t iov_offset; /* of the list, in the map */
};

struct mailbox_answer {
    uint16_t id;
    uint8_t scsi_status;
    uint32_t sense;       /* key << 16 | asc << 8 | ascq, with CHECK CONDITION */
    uint32_t read_length; /* 0: all of the buffer */
};

enum mailbox_take { MAILBOX_EMPTY, MAILBOX_COMMAND, MAILBOX_BROKEN };

/* Maps fd, in full (libtcmu has its own mapping), or takes memory as the map when
 * it is not NULL; checks what the kernel says about the layout. */
enum obd_status mailbox_open(struct mailbox *mailbox, int fd, void *memory, uint64_t size);
void mailbox_close(struct mailbox *mailbox);

/* Where the kernel has got to; false, with a sentence: it makes no sense. */
bool mailbox_head(const struct mailbox *mailbox, uint32_t *head);

/* The next command before head; padding and notices are passed over. */
enum mailbox_take mailbox_take(struct mailbox *mailbox, uint32_t head, struct mailbox_entry *entry);

/* Fills iov[entry->nr_iov] with the entry's buffers, as pointers; *length is what
 * they hold together.  False, with a sentence: one is outside the data area. */
bool mailbox_copy_iov(const struct mailbox *mailbox, const struct mailbox_entry *entry, struct iovec *iov,
                      uint64_t *length);

/* Writes an answer into the slot at tail and gives the slot back.  False, with a
 * sentence: the slots make no sense. */
bool mailbox_answer(struct mailbox *mailbox, const struct mailbox_answer *answer);

/* Gives back padding and notices at tail; true when there were some. */
bool mailbox_pass_padding(struct mailbox *mailbox);

#endif
