/* bare_handler: the least that can serve a disk through TCMU: one ring, one flat file.
 *
 *   bare_handler NAME FILE
 *
 * Waits for the UIO device of the backstore NAME, maps its ring, and answers every READ
 * with a preadv of FILE straight into the kernel's data area, every WRITE with a pwritev
 * of it.  No libtcmu, no netlink
 * (the backstore is made with nl_reply_supported=-1), one thread, commands completed in
 * order: what the physical limit of the transport is on this kernel.  What describes the
 * disk is answered as we answer it where it matters for speed: 1 MiB transfers.
 *
 * Ends with SIGTERM.  A benchmark, not an example: it believes what the kernel says.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define __LINUX_UIO_H /* its struct iovec is the C library's */
#include <linux/target_core_user.h>

#define SECTOR       512u
#define MAX_PIECES   256
#define MAX_TRANSFER 2048u /* sectors */
#define WAIT_TRIES   6000  /* of 5 ms, for the device to appear */

struct bare {
    int uio;
    int file;
    uint64_t nr_sectors;
    char *map;
    struct tcmu_mailbox *mailbox;
};

/* ---- the ring ------------------------------------------------------------- */

/* "uio3" of the backstore NAME: the name in sysfs is tcm-user/<hba>/NAME/<config>. */
static bool find_uio(const char *name, char uio[32])
{
    char part[128], path[300], text[512];
    snprintf(part, sizeof part, "/%s/", name);
    DIR *folder = opendir("/sys/class/uio");
    bool is_found = false;
    for (struct dirent *entry; folder != NULL && !is_found && (entry = readdir(folder)) != NULL;) {
        snprintf(path, sizeof path, "/sys/class/uio/%s/name", entry->d_name);
        FILE *file = fopen(path, "re");
        if (file != NULL && fgets(text, sizeof text, file) != NULL && strstr(text, part) != NULL) {
            snprintf(uio, 32, "%.31s", entry->d_name);
            is_found = true;
        }
        if (file != NULL)
            fclose(file);
    }
    if (folder != NULL)
        closedir(folder);
    return is_found;
}

static size_t map_size(const char *uio)
{
    char path[128];
    unsigned long long size = 0;
    snprintf(path, sizeof path, "/sys/class/uio/%s/maps/map0/size", uio);
    FILE *file = fopen(path, "re");
    if (file == NULL || fscanf(file, "%llx", &size) != 1)
        err(1, "%s", path);
    fclose(file);
    return size;
}

static void open_ring(struct bare *bare, const char *name)
{
    char uio[32], path[64];
    for (int i = 0; !find_uio(name, uio); i++) {
        if (i == WAIT_TRIES)
            errx(1, "no UIO device of a backstore %s", name);
        usleep(5000);
    }
    snprintf(path, sizeof path, "/dev/%s", uio);
    bare->uio = open(path, O_RDWR | O_CLOEXEC);
    if (bare->uio < 0)
        err(1, "%s", path);
    bare->map = mmap(NULL, map_size(uio), PROT_READ | PROT_WRITE, MAP_SHARED, bare->uio, 0);
    if (bare->map == MAP_FAILED)
        err(1, "%s: mmap", path);
    bare->mailbox = (struct tcmu_mailbox *)bare->map;
}

static struct tcmu_cmd_entry *entry_at(const struct bare *bare, uint32_t place)
{
    return (struct tcmu_cmd_entry *)(bare->map + bare->mailbox->cmdr_off + place);
}

/* ---- commands that describe the disk --------------------------------------- */

static void put_u32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

static uint64_t get_big_endian(const uint8_t *at, int length)
{
    uint64_t value = 0;
    for (int i = 0; i < length; i++)
        value = value << 8 | at[i];
    return value;
}

static size_t describe_inquiry(const uint8_t *cdb, uint8_t *answer)
{
    if (!(cdb[1] & 1)) {
        answer[2] = 5;
        answer[3] = 2;
        answer[4] = 31;
        answer[7] = 2;
        memcpy(answer + 8, "OVERLAYBBARE            0001", 28);
        return 36;
    }
    answer[1] = cdb[2];
    if (cdb[2] == 0x00) {
        memcpy(answer + 3, "\x03\x00\x83\xb0", 4);
        return 7;
    }
    if (cdb[2] == 0x83) {
        memcpy(answer + 3, "\x14\x02\x01\x00\x10OVERLAYBBARE0001", 21);
        return 24;
    }
    if (cdb[2] != 0xb0)
        return 0;
    answer[3] = 0x3c;
    put_u32(answer + 8, MAX_TRANSFER);
    put_u32(answer + 12, MAX_TRANSFER);
    return 64;
}

static size_t describe_capacity(const struct bare *bare, const uint8_t *cdb, uint8_t *answer)
{
    uint64_t last = bare->nr_sectors - 1;
    if (cdb[0] == 0x25) {
        put_u32(answer, last > UINT32_MAX ? UINT32_MAX : (uint32_t)last);
        put_u32(answer + 4, SECTOR);
        return 8;
    }
    put_u32(answer, (uint32_t)(last >> 32));
    put_u32(answer + 4, (uint32_t)last);
    put_u32(answer + 8, SECTOR);
    return 32;
}

/* The bytes of the answer; 0: not supported. */
static size_t describe(const struct bare *bare, const uint8_t *cdb, uint8_t *answer)
{
    switch (cdb[0]) {
    case 0x12:
        return describe_inquiry(cdb, answer);
    case 0x1a: /* MODE SENSE: no page */
        answer[0] = 3;
        return 4;
    case 0x5a:
        answer[1] = 6;
        return 8;
    case 0x25:
    case 0x9e:
        return describe_capacity(bare, cdb, answer);
    default:
        return 0;
    }
}

/* ---- one command -------------------------------------------------------------- */

/* preadv or pwritev. */
typedef ssize_t transfer(int fd, const struct iovec *iov, int nr_iov, off_t offset);

static bool move(const struct bare *bare, const struct tcmu_cmd_entry *entry, transfer *transfer, uint64_t sector,
                 uint64_t nr)
{
    struct iovec iov[MAX_PIECES];
    int nr_iov = entry->req.iov_cnt < MAX_PIECES ? (int)entry->req.iov_cnt : MAX_PIECES;
    for (int i = 0; i < nr_iov; i++) {
        iov[i].iov_base = bare->map + (size_t)entry->req.iov[i].iov_base;
        iov[i].iov_len = entry->req.iov[i].iov_len;
    }
    return transfer(bare->file, iov, nr_iov, (off_t)(sector * SECTOR)) == (ssize_t)(nr * SECTOR);
}

static void copy_answer(const struct bare *bare, const struct tcmu_cmd_entry *entry, const uint8_t *answer, size_t left)
{
    for (uint32_t i = 0; i < entry->req.iov_cnt && left > 0; i++) {
        size_t length = entry->req.iov[i].iov_len < left ? entry->req.iov[i].iov_len : left;
        memcpy(bare->map + (size_t)entry->req.iov[i].iov_base, answer, length);
        answer += length;
        left -= length;
    }
}

static bool run_command(const struct bare *bare, const struct tcmu_cmd_entry *entry)
{
    const uint8_t *cdb = (const uint8_t *)bare->map + entry->req.cdb_off;
    uint8_t answer[256] = {0};
    size_t length;
    switch (cdb[0]) {
    case 0x28:
        return move(bare, entry, preadv, get_big_endian(cdb + 2, 4), get_big_endian(cdb + 7, 2));
    case 0x88:
        return move(bare, entry, preadv, get_big_endian(cdb + 2, 8), get_big_endian(cdb + 10, 4));
    case 0x2a:
        return move(bare, entry, pwritev, get_big_endian(cdb + 2, 4), get_big_endian(cdb + 7, 2));
    case 0x8a:
        return move(bare, entry, pwritev, get_big_endian(cdb + 2, 8), get_big_endian(cdb + 10, 4));
    case 0x00: /* TEST UNIT READY, START STOP UNIT, SYNCHRONIZE CACHE */
    case 0x1b:
    case 0x35:
    case 0x91:
        return true;
    default:
        length = describe(bare, cdb, answer);
        copy_answer(bare, entry, answer, length);
        return length > 0;
    }
}

static void complete(struct tcmu_cmd_entry *entry, bool is_good)
{
    entry->hdr.uflags = 0;
    memset(&entry->rsp, 0, sizeof entry->rsp);
    if (is_good)
        return;
    entry->rsp.scsi_status = 2; /* CHECK CONDITION: ILLEGAL REQUEST, invalid field in CDB */
    entry->rsp.sense_buffer[0] = 0x70;
    entry->rsp.sense_buffer[2] = 5;
    entry->rsp.sense_buffer[7] = 10;
    entry->rsp.sense_buffer[12] = 0x24;
}

/* Everything that is on the ring; false when nothing was. */
static bool walk(const struct bare *bare)
{
    struct tcmu_mailbox *mailbox = bare->mailbox;
    uint32_t tail = mailbox->cmd_tail, begin = tail;
    while (tail != __atomic_load_n(&mailbox->cmd_head, __ATOMIC_ACQUIRE)) {
        struct tcmu_cmd_entry *entry = entry_at(bare, tail);
        if (tcmu_hdr_get_op(entry->hdr.len_op) == TCMU_OP_CMD)
            complete(entry, run_command(bare, entry));
        tail = (tail + tcmu_hdr_get_len(entry->hdr.len_op)) % mailbox->cmdr_size;
        __atomic_store_n(&mailbox->cmd_tail, tail, __ATOMIC_RELEASE);
    }
    return tail != begin;
}

int main(int argc, char **argv)
{
    struct bare bare;
    struct stat st;
    if (argc != 3)
        errx(2, "usage: bare_handler NAME FILE");
    bare.file = open(argv[2], O_RDWR | O_CLOEXEC);
    if (bare.file < 0 || fstat(bare.file, &st) != 0)
        err(1, "%s", argv[2]);
    bare.nr_sectors = (uint64_t)st.st_size / SECTOR;
    open_ring(&bare, argv[1]);
    for (;;) {
        uint32_t word = 1;
        struct pollfd ready = {.fd = bare.uio, .events = POLLIN};
        if (walk(&bare) && write(bare.uio, &word, sizeof word) != sizeof word)
            err(1, "kick");
        if (poll(&ready, 1, -1) < 0 && errno != EINTR)
            err(1, "poll");
        if (read(bare.uio, &word, sizeof word) < 0 && errno != EAGAIN)
            err(1, "read");
    }
}
