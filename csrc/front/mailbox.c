/* See mailbox.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "front/mailbox.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

/* The kernel's header wants its own struct iovec, which is glibc's under the same name. */
#define __LINUX_UIO_H
#include <linux/target_core_user.h>

#include "base/checked.h"
#include "front/scsi_sense.h"

_Static_assert(MAILBOX_SENSE_SIZE == TCMU_SENSE_BUFFERSIZE, "sense buffers of one size");

/* Copies bytes that somebody else may be changing; they are read once. */
static void copy_shared(void *to, const uint8_t *from, size_t length)
{
    memcpy(to, from, length);
    __asm__ volatile("" ::: "memory");
}

static uint32_t *head_word(const struct mailbox *mailbox)
{
    return (uint32_t *)(mailbox->map + offsetof(struct tcmu_mailbox, cmd_head));
}

static uint32_t *tail_word(const struct mailbox *mailbox)
{
    return (uint32_t *)(mailbox->map + offsetof(struct tcmu_mailbox, cmd_tail));
}

static uint8_t *slot_at(const struct mailbox *mailbox, uint32_t position)
{
    return mailbox->map + mailbox->ring_offset + position;
}

/* Bytes from one place of the ring to another, going forward. */
static uint32_t ring_distance(const struct mailbox *mailbox, uint32_t from, uint32_t to)
{
    return to >= from ? to - from : to + mailbox->ring_size - from;
}

static bool is_ring_place(const struct mailbox *mailbox, uint32_t place)
{
    return place < mailbox->ring_size && is_aligned(place, TCMU_OP_ALIGN_SIZE);
}

static enum obd_status check_layout(struct mailbox *mailbox, const struct tcmu_mailbox *shared)
{
    if (shared->version != TCMU_MAILBOX_VERSION)
        return status_set(OBD_E_UNSUPPORTED, "mailbox: version %u, we know %u", shared->version, TCMU_MAILBOX_VERSION);
    if (!(shared->flags & TCMU_MAILBOX_FLAG_CAP_OOOC))
        return status_set(OBD_E_UNSUPPORTED, "mailbox: flags %#x: the kernel wants answers in order", shared->flags);
    if (!is_aligned(shared->cmdr_off, TCMU_OP_ALIGN_SIZE) || !is_aligned(shared->cmdr_size, TCMU_OP_ALIGN_SIZE) ||
        shared->cmdr_off < sizeof *shared || shared->cmdr_size < sizeof(struct tcmu_cmd_entry) ||
        !range_is_inside(shared->cmdr_off, shared->cmdr_size, mailbox->size))
        return status_set(OBD_E_CORRUPT, "mailbox: a ring of %u bytes at %u in %llu bytes", shared->cmdr_size,
                          shared->cmdr_off, (unsigned long long)mailbox->size);
    mailbox->ring_offset = shared->cmdr_off;
    mailbox->ring_size = shared->cmdr_size;
    mailbox->has_read_length = shared->flags & TCMU_MAILBOX_FLAG_CAP_READ_LEN;
    if (!is_ring_place(mailbox, shared->cmd_tail))
        return status_set(OBD_E_CORRUPT, "mailbox: tail %u in a ring of %u bytes", shared->cmd_tail, shared->cmdr_size);
    mailbox->tail = mailbox->position = shared->cmd_tail;
    return OBD_OK;
}

enum obd_status mailbox_open(struct mailbox *mailbox, int fd, void *memory, uint64_t size)
{
    *mailbox = (struct mailbox){.map = memory, .size = size, .is_mapped_here = memory == NULL};
    if (size < sizeof(struct tcmu_mailbox))
        return status_set(OBD_E_INVALID, "mailbox: %llu bytes are too few", (unsigned long long)size);
    if (memory == NULL) {
        void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
            return status_set_errno(errno, "mailbox: map %llu bytes", (unsigned long long)size);
        mailbox->map = map;
    }
    struct tcmu_mailbox shared;
    copy_shared(&shared, mailbox->map, sizeof shared);
    enum obd_status status = check_layout(mailbox, &shared);
    if (status != OBD_OK)
        mailbox_close(mailbox);
    return status;
}

void mailbox_close(struct mailbox *mailbox)
{
    if (mailbox->is_mapped_here)
        munmap(mailbox->map, mailbox->size);
    mailbox->map = NULL;
}

bool mailbox_head(const struct mailbox *mailbox, uint32_t *head)
{
    *head = __atomic_load_n(head_word(mailbox), __ATOMIC_ACQUIRE);
    uint32_t taken = ring_distance(mailbox, mailbox->tail, mailbox->position);
    if (is_ring_place(mailbox, *head) && ring_distance(mailbox, mailbox->tail, *head) >= taken)
        return true;
    status_set(OBD_E_CORRUPT, "mailbox: head %u, with tail %u and position %u in a ring of %u bytes", *head,
               mailbox->tail, mailbox->position, mailbox->ring_size);
    return false;
}

/* Reads the header of the entry at position, which must end before limit; false:
 * it does not, or is too short for what it is. */
static bool read_header(const struct mailbox *mailbox, uint32_t position, uint32_t limit,
                        struct tcmu_cmd_entry_hdr *header)
{
    copy_shared(header, slot_at(mailbox, position), sizeof *header);
    uint32_t length = tcmu_hdr_get_len(header->len_op);
    uint32_t least = tcmu_hdr_get_op(header->len_op) == TCMU_OP_CMD ? sizeof(struct tcmu_cmd_entry) : sizeof *header;
    uint32_t most = (uint32_t)min_u64(ring_distance(mailbox, position, limit), mailbox->ring_size - position);
    if (length >= least && length <= most)
        return true;
    status_set(OBD_E_CORRUPT, "mailbox: an entry of %u bytes (operation %u) at %u, where %u to %u fit", length,
               (unsigned)tcmu_hdr_get_op(header->len_op), position, least, most);
    return false;
}

static uint32_t place_behind(const struct mailbox *mailbox, uint32_t position, const struct tcmu_cmd_entry_hdr *header)
{
    return (position + tcmu_hdr_get_len(header->len_op)) % mailbox->ring_size;
}

static void give_back_slot(struct mailbox *mailbox, const struct tcmu_cmd_entry_hdr *header)
{
    mailbox->tail = place_behind(mailbox, mailbox->tail, header);
    __atomic_store_n(tail_word(mailbox), mailbox->tail, __ATOMIC_RELEASE);
}

/* By the opcode's group.  Those of group 3 and of vendors have no fixed length:
 * nobody here looks at more than their opcode. */
static unsigned cdb_length(uint8_t opcode)
{
    static const uint8_t LENGTHS[8] = {6, 10, 10, 16, 16, 12, 16, 16};
    return LENGTHS[opcode >> 5];
}

static bool copy_command(const struct mailbox *mailbox, uint32_t position, const struct tcmu_cmd_entry_hdr *header,
                         struct mailbox_entry *entry)
{
    struct tcmu_cmd_entry shared;
    copy_shared(&shared, slot_at(mailbox, position), sizeof shared);
    uint32_t room = tcmu_hdr_get_len(header->len_op) - (uint32_t)offsetof(struct tcmu_cmd_entry, req.iov);
    if (shared.req.iov_cnt > room / sizeof(struct iovec) ||
        !range_is_inside(shared.req.cdb_off, MAILBOX_CDB_SIZE, mailbox->size)) {
        status_set(OBD_E_CORRUPT, "mailbox: command %u at %u: %u buffers, CDB at %llu", header->cmd_id, position,
                   shared.req.iov_cnt, (unsigned long long)shared.req.cdb_off);
        return false;
    }
    *entry = (struct mailbox_entry){.id = header->cmd_id, .nr_iov = shared.req.iov_cnt};
    entry->iov_offset = (uint64_t)mailbox->ring_offset + position + offsetof(struct tcmu_cmd_entry, req.iov);
    copy_shared(entry->cdb, mailbox->map + shared.req.cdb_off, sizeof entry->cdb);
    unsigned length = cdb_length(entry->cdb[0]);
    memset(entry->cdb + length, 0, sizeof entry->cdb - length);
    return true;
}

/* An entry that is no command.  Padding and notices of task management need no
 * answer: what an ABORT TASK is about ends by itself, within its deadline. */
static void pass_entry(struct mailbox *mailbox, const struct tcmu_cmd_entry_hdr *header)
{
    enum tcmu_opcode operation = tcmu_hdr_get_op(header->len_op);
    if (operation != TCMU_OP_PAD && operation != TCMU_OP_TMR)
        slot_at(mailbox, mailbox->position)[offsetof(struct tcmu_cmd_entry_hdr, uflags)] = TCMU_UFLAG_UNKNOWN_OP;
}

enum mailbox_take mailbox_take(struct mailbox *mailbox, uint32_t head, struct mailbox_entry *entry)
{
    while (mailbox->position != head) { /* each turn goes on by 8 bytes at least */
        struct tcmu_cmd_entry_hdr header;
        if (!read_header(mailbox, mailbox->position, head, &header))
            return MAILBOX_BROKEN;
        bool is_command = tcmu_hdr_get_op(header.len_op) == TCMU_OP_CMD;
        if (is_command && !copy_command(mailbox, mailbox->position, &header, entry))
            return MAILBOX_BROKEN;
        if (!is_command)
            pass_entry(mailbox, &header);
        mailbox->position = place_behind(mailbox, mailbox->position, &header);
        if (is_command)
            return MAILBOX_COMMAND;
    }
    return MAILBOX_EMPTY;
}

bool mailbox_copy_iov(const struct mailbox *mailbox, const struct mailbox_entry *entry, struct iovec *iov,
                      uint64_t *length)
{
    uint64_t data_offset = (uint64_t)mailbox->ring_offset + mailbox->ring_size;
    *length = 0;
    copy_shared(iov, mailbox->map + entry->iov_offset, entry->nr_iov * sizeof *iov);
    for (uint32_t i = 0; i < entry->nr_iov; i++) {
        uint64_t offset = (uintptr_t)iov[i].iov_base;
        if (offset < data_offset || !range_is_inside(offset, iov[i].iov_len, mailbox->size) ||
            !checked_add(*length, iov[i].iov_len, length)) {
            status_set(OBD_E_CORRUPT, "mailbox: command %u: buffer %u: %zu bytes at %llu, outside the data area",
                       entry->id, i, iov[i].iov_len, (unsigned long long)offset);
            return false;
        }
        iov[i].iov_base = mailbox->map + offset;
    }
    return true;
}

bool mailbox_pass_padding(struct mailbox *mailbox)
{
    uint32_t before = mailbox->tail;
    struct tcmu_cmd_entry_hdr header;
    while (mailbox->tail != mailbox->position && read_header(mailbox, mailbox->tail, mailbox->position, &header) &&
           tcmu_hdr_get_op(header.len_op) != TCMU_OP_CMD)
        give_back_slot(mailbox, &header);
    return mailbox->tail != before;
}

/* The whole fixed part is written: what the kernel put there, or an earlier
 * answer, must not show through. */
static void write_answer(const struct mailbox *mailbox, struct tcmu_cmd_entry_hdr header,
                         const struct mailbox_answer *answer)
{
    uint32_t read_length = mailbox->has_read_length ? answer->read_length : 0;
    struct tcmu_cmd_entry entry = {.hdr = header};
    entry.hdr.cmd_id = answer->id;
    entry.hdr.kflags = 0;
    entry.hdr.uflags = read_length != 0 ? TCMU_UFLAG_READ_LEN : 0;
    entry.rsp.scsi_status = answer->scsi_status;
    entry.rsp.read_len = read_length;
    if (answer->sense != 0)
        scsi_sense_write((uint8_t *)entry.rsp.sense_buffer, answer->sense);
    memcpy(slot_at(mailbox, mailbox->tail), &entry, sizeof entry);
}

bool mailbox_answer(struct mailbox *mailbox, const struct mailbox_answer *answer)
{
    mailbox_pass_padding(mailbox);
    if (mailbox->tail == mailbox->position) {
        status_set(OBD_E_CORRUPT, "mailbox: no slot at tail %u for the answer to command %u", mailbox->tail,
                   answer->id);
        return false;
    }
    struct tcmu_cmd_entry_hdr header;
    if (!read_header(mailbox, mailbox->tail, mailbox->position, &header))
        return false;
    write_answer(mailbox, header, answer);
    give_back_slot(mailbox, &header);
    return true;
}
