/* fake_kernel: the kernel's side of a mailbox, in memory of the test.
 *
 * It lays out mailbox, ring and data area as target_core_user does, puts entries
 * on the ring with padding where one does not fit before the end, and reads the
 * answers behind a kick.  Command n has its data at kernel_data(n).  Nothing waits
 * for ever: a ring that does not answer fails the test.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FAKE_KERNEL_H
#define FAKE_KERNEL_H

#include "check.h"

#include <poll.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define __LINUX_UIO_H
#include <linux/target_core_user.h>

#include "base/checked.h"
#include "front/scsi_sense.h"
#include "obd.h"

#define KERNEL_IDS       64
#define KERNEL_DATA_ROOM (128u << 10) /* of one command */
#define KERNEL_WAIT_MS   30000

struct kernel {
    uint8_t *map;
    uint64_t size;
    uint32_t ring_size;
    uint32_t head;
    uint32_t cleaned; /* answers before here were read */
    int fd;           /* ours */
    int ring_fd;      /* what the ring is given */
    uint32_t piece;   /* buffers are so long, in descending order of place */
};

struct answer {
    uint16_t id;
    uint8_t status;
    uint8_t uflags;
    uint32_t sense;
    uint32_t read_length;
};

static inline struct tcmu_mailbox *kernel_mailbox(struct kernel *kernel)
{
    return (struct tcmu_mailbox *)kernel->map;
}

static inline uint32_t data_offset(const struct kernel *kernel, uint16_t id)
{
    return (uint32_t)sizeof(struct tcmu_mailbox) + kernel->ring_size + id * KERNEL_DATA_ROOM;
}

static inline uint8_t *kernel_data(struct kernel *kernel, uint16_t id)
{
    return kernel->map + data_offset(kernel, id);
}

static inline struct kernel kernel_make(uint32_t ring_size)
{
    struct kernel kernel = {.ring_size = ring_size, .piece = 4096};
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    kernel.fd = fds[0];
    kernel.ring_fd = fds[1];
    kernel.size = data_offset(&kernel, KERNEL_IDS);
    kernel.map = mmap(NULL, kernel.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(kernel.map != MAP_FAILED);
    *kernel_mailbox(&kernel) = (struct tcmu_mailbox){
        .version = TCMU_MAILBOX_VERSION,
        .flags = TCMU_MAILBOX_FLAG_CAP_OOOC | TCMU_MAILBOX_FLAG_CAP_READ_LEN | TCMU_MAILBOX_FLAG_CAP_TMR,
        .cmdr_off = sizeof(struct tcmu_mailbox),
        .cmdr_size = ring_size,
    };
    return kernel;
}

static inline void kernel_drop(struct kernel *kernel)
{
    munmap(kernel->map, kernel->size);
    close(kernel->fd);
    close(kernel->ring_fd);
}

static inline struct tcmu_cmd_entry *entry_at(struct kernel *kernel, uint32_t position)
{
    return (struct tcmu_cmd_entry *)(kernel->map + sizeof(struct tcmu_mailbox) + position);
}

static inline uint32_t tail_of(struct kernel *kernel)
{
    uint32_t *tail = (uint32_t *)(kernel->map + offsetof(struct tcmu_mailbox, cmd_tail));
    return __atomic_load_n(tail, __ATOMIC_ACQUIRE);
}

static inline void publish_head(struct kernel *kernel, uint32_t head)
{
    uint32_t *word = (uint32_t *)(kernel->map + offsetof(struct tcmu_mailbox, cmd_head));
    __atomic_store_n(word, head, __ATOMIC_RELEASE);
}

static inline uint32_t room_left(struct kernel *kernel)
{
    uint32_t used = (kernel->head + kernel->ring_size - kernel->cleaned) % kernel->ring_size;
    return kernel->ring_size - used - 1;
}

/* Claims length bytes of the ring; the entry's header is there when this returns. */
static inline struct tcmu_cmd_entry *put_entry(struct kernel *kernel, enum tcmu_opcode operation, uint32_t length)
{
    uint32_t to_end = kernel->ring_size - kernel->head;
    if (length > to_end) {
        CHECK(room_left(kernel) >= to_end + length);
        entry_at(kernel, kernel->head)->hdr.len_op = to_end | TCMU_OP_PAD;
        kernel->head = 0;
    }
    CHECK(room_left(kernel) >= length);
    struct tcmu_cmd_entry *entry = entry_at(kernel, kernel->head);
    memset(entry, 0, length);
    entry->hdr.len_op = length | operation;
    kernel->head = (kernel->head + length) % kernel->ring_size;
    return entry;
}

static inline uint32_t entry_length(uint32_t nr_iov)
{
    uint32_t fixed = (uint32_t)(offsetof(struct tcmu_cmd_entry, req.iov) + nr_iov * sizeof(struct iovec));
    uint32_t least = sizeof(struct tcmu_cmd_entry);
    return (uint32_t)round_up((fixed > least ? fixed : least) + 16, 8);
}

/* The buffers of a command: pieces of its room, the last place first, so that
 * whoever takes them for one run of bytes is found out. */
static inline void lay_out(struct kernel *kernel, uint16_t id, uint32_t length, struct iovec *iov, uint32_t nr_iov)
{
    for (uint32_t i = 0; i < nr_iov; i++) {
        uint32_t skip = i * kernel->piece;
        uint32_t part = length - skip < kernel->piece ? length - skip : kernel->piece;
        iov[i] = (struct iovec){(void *)(uintptr_t)(data_offset(kernel, id) + (nr_iov - 1 - i) * kernel->piece), part};
    }
}

/* Puts a command with room for length bytes on the ring; nobody is told yet. */
static inline struct tcmu_cmd_entry *kernel_put(struct kernel *kernel, uint16_t id, const uint8_t *cdb, uint32_t length)
{
    uint32_t nr_iov = (length + kernel->piece - 1) / kernel->piece;
    uint32_t total = entry_length(nr_iov);
    CHECK(length <= KERNEL_DATA_ROOM && id < KERNEL_IDS);
    struct tcmu_cmd_entry *entry = put_entry(kernel, TCMU_OP_CMD, total);
    entry->hdr.cmd_id = id;
    entry->req.iov_cnt = nr_iov;
    entry->req.cdb_off = (uint64_t)((uint8_t *)entry - kernel->map) + total - 16;
    memcpy((uint8_t *)entry + total - 16, cdb, 16);
    lay_out(kernel, id, length, entry->req.iov, nr_iov);
    return entry;
}

static inline void kernel_tell(struct kernel *kernel)
{
    uint32_t one = 1;
    publish_head(kernel, kernel->head);
    CHECK(write(kernel->fd, &one, sizeof one) == sizeof one);
}

/* Copies between a command's scattered buffers and bytes in order. */
static inline void kernel_copy(struct kernel *kernel, uint16_t id, void *bytes, uint32_t length, bool is_to_kernel)
{
    uint32_t nr = (length + kernel->piece - 1) / kernel->piece;
    for (uint32_t i = 0; i < nr; i++) {
        uint32_t skip = i * kernel->piece;
        uint32_t part = length - skip < kernel->piece ? length - skip : kernel->piece;
        uint8_t *place = kernel_data(kernel, id) + (nr - 1 - i) * kernel->piece;
        if (is_to_kernel)
            memcpy(place, (uint8_t *)bytes + skip, part);
        else
            memcpy((uint8_t *)bytes + skip, place, part);
    }
}

/* The next answer that is on the ring already; false: there is none. */
static inline bool next_answer(struct kernel *kernel, struct answer *answer)
{
    while (kernel->cleaned != tail_of(kernel)) {
        struct tcmu_cmd_entry *entry = entry_at(kernel, kernel->cleaned);
        kernel->cleaned = (kernel->cleaned + tcmu_hdr_get_len(entry->hdr.len_op)) % kernel->ring_size;
        if (tcmu_hdr_get_op(entry->hdr.len_op) != TCMU_OP_CMD)
            continue;
        const uint8_t *sense = (const uint8_t *)entry->rsp.sense_buffer;
        *answer = (struct answer){.id = entry->hdr.cmd_id,
                                  .status = entry->rsp.scsi_status,
                                  .uflags = entry->hdr.uflags,
                                  .sense = (uint32_t)(sense[2] & 0xf) << 16 | (uint32_t)sense[12] << 8 | sense[13],
                                  .read_length = entry->rsp.read_len};
        return true;
    }
    return false;
}

/* Waits for a kick, at most timeout_ms. */
static inline bool wait_for_kick(struct kernel *kernel, int timeout_ms)
{
    uint32_t kicks[64];
    struct pollfd ready = {.fd = kernel->fd, .events = POLLIN};
    if (poll(&ready, 1, timeout_ms) != 1)
        return false;
    CHECK(read(kernel->fd, kicks, sizeof kicks) > 0);
    return true;
}

/* Waits for the next answer. */
static inline struct answer kernel_answer(struct kernel *kernel)
{
    struct answer answer;
    while (!next_answer(kernel, &answer))
        CHECK(wait_for_kick(kernel, KERNEL_WAIT_MS));
    return answer;
}

/* One command from beginning to end; returns its answer. */
static inline struct answer kernel_run(struct kernel *kernel, uint16_t id, const uint8_t *cdb, uint32_t length)
{
    kernel_put(kernel, id, cdb, length);
    kernel_tell(kernel);
    struct answer answer = kernel_answer(kernel);
    CHECK(answer.id == id);
    return answer;
}

/* Nothing is answered for a while. */
static inline void kernel_expect_silence(struct kernel *kernel, int ms)
{
    struct answer answer;
    wait_for_kick(kernel, ms);
    CHECK(!next_answer(kernel, &answer));
}

/* ---- CDBs ---- */

struct cdb {
    uint8_t bytes[16];
};

static inline void put_be32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* 16-byte CDBs with LBA and length: READ 88h, WRITE 8ah, VERIFY 8fh, SYNCHRONIZE
 * CACHE 91h, WRITE SAME 93h. */
static inline struct cdb cdb_16(uint8_t opcode, uint8_t flags, uint64_t lba, uint32_t nr)
{
    struct cdb cdb = {{opcode, flags}};
    put_be32(cdb.bytes + 2, (uint32_t)(lba >> 32));
    put_be32(cdb.bytes + 6, (uint32_t)lba);
    put_be32(cdb.bytes + 10, nr);
    return cdb;
}

static inline struct cdb cdb_10(uint8_t opcode, uint8_t flags, uint32_t lba, uint16_t nr)
{
    struct cdb cdb = {{opcode, flags}};
    put_be32(cdb.bytes + 2, lba);
    cdb.bytes[7] = (uint8_t)(nr >> 8);
    cdb.bytes[8] = (uint8_t)nr;
    return cdb;
}

#endif
