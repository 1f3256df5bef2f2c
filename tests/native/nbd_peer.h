/* nbd_peer: a disk to serve and a client that says exactly what a test wants.
 *
 * Every wait has a deadline: a server that does not answer fails the test.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef NBD_PEER_H
#define NBD_PEER_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"
#include "front/nbd_wire.h"

#define DISK_SIZE (64u << 20)
#define WAIT_MS   20000

/* ---- a disk: an empty append upper in a folder of its own ---- */

struct disk {
    char folder[64];
    struct core *core;
    struct image *image;
    struct device *device;
};

static inline void put_le(unsigned char *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (unsigned char)(value >> (8 * i));
}

/* spec/lsmt.md section 2; flags 3 for the data file, 1 for the index file. */
static inline void write_header(const char *path, uint32_t flags, uint64_t index_offset)
{
    static const unsigned char magic[24] = {'L',  'S',  'M',  'T',  0,    1,    2,    0,    0x65, 0x7e, 0x63, 0xd2,
                                            0x94, 0x44, 0x08, 0x4c, 0xa2, 0xd2, 0xc8, 0xec, 0x4f, 0xcf, 0xae, 0x8a};
    unsigned char block[4096] = {0};
    memcpy(block, magic, sizeof magic);
    put_le(block + 24, 390, 4);
    put_le(block + 28, flags, 4);
    put_le(block + 32, index_offset, 8);
    put_le(block + 48, DISK_SIZE, 8);
    memcpy(block + 56, "00000000-0000-4000-8000-000000000001", 36);
    memcpy(block + 93, "00000000-0000-0000-0000-000000000000", 36);
    block[132] = block[133] = 1;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, block, sizeof block) == sizeof block);
    close(fd);
}

static inline struct upper *open_upper(const char *folder)
{
    char data[96], index[96];
    snprintf(data, sizeof data, "%s/data", folder);
    snprintf(index, sizeof index, "%s/index", folder);
    write_header(data, 3, 0);
    write_header(index, 1, 4096);
    struct obd_upper_params params = {.data_path = data,
                                      .index_path = index,
                                      .uuid = "00000000-0000-4000-8000-000000000001",
                                      .holder = "test_nbd",
                                      .virtual_size = DISK_SIZE};
    struct upper *upper = NULL;
    CHECK_OK(obd_upper_open(&params, &upper));
    return upper;
}

static inline struct disk disk_open(void)
{
    struct disk disk = {.folder = "/tmp/test_nbd.XXXXXX"};
    CHECK(mkdtemp(disk.folder));
    struct obd_core_params core = {.nr_workers = 2};
    struct obd_device_params device = {.name = "disk"};
    CHECK_OK(obd_core_open(&core, &disk.core));
    CHECK_OK(obd_image_open(NULL, 0, open_upper(disk.folder), DISK_SIZE, "disk", &disk.image));
    CHECK_OK(obd_device_open(disk.core, disk.image, &device, &disk.device));
    return disk;
}

static inline void disk_close(struct disk *disk)
{
    CHECK_OK(obd_device_close(disk->device, WAIT_MS));
    CHECK_OK(obd_image_close(disk->image));
    obd_core_close(disk->core);
    static const char *const names[] = {"data", "index", "index.journal"};
    for (int i = 0; i < 3; i++) {
        char path[96];
        snprintf(path, sizeof path, "%s/%s", disk->folder, names[i]);
        unlink(path);
    }
    rmdir(disk->folder);
}

/* ---- a client ---- */

struct peer {
    int fd;
    struct nbd *nbd;
    uint32_t flags;
};

static inline struct peer peer_connect(struct disk *disk, uint32_t flags)
{
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    struct peer peer = {.fd = fds[0], .flags = flags};
    struct obd_nbd_params params = {.fd = fds[1], .flags = flags};
    CHECK_OK(obd_nbd_start(disk->device, &params, &peer.nbd));
    return peer;
}

static inline void peer_send(struct peer *peer, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        ssize_t nr = send(peer->fd, at, length, MSG_NOSIGNAL);
        CHECK(nr > 0);
        at += nr;
        length -= (size_t)nr;
    }
}

static inline size_t put_request(unsigned char *at, uint16_t type, uint16_t flags, uint64_t cookie, uint64_t offset,
                                 uint32_t length)
{
    unsigned char *end = wire_put32(at, NBD_REQUEST_MAGIC);
    end = wire_put16(end, flags);
    end = wire_put16(end, type);
    end = wire_put64(end, cookie);
    end = wire_put64(end, offset);
    return (size_t)(wire_put32(end, length) - at);
}

static inline void peer_ask(struct peer *peer, uint16_t type, uint16_t flags, uint64_t cookie, uint64_t offset,
                            uint32_t length)
{
    unsigned char bytes[NBD_REQUEST_SIZE];
    peer_send(peer, bytes, put_request(bytes, type, flags, cookie, offset, length));
}

/* False at the end of the connection. */
static inline bool peer_receive(struct peer *peer, void *bytes, size_t length)
{
    char *at = bytes;
    while (length > 0) {
        struct pollfd fd = {.fd = peer->fd, .events = POLLIN};
        CHECK(poll(&fd, 1, WAIT_MS) == 1);
        ssize_t nr = recv(peer->fd, at, length, 0);
        if (nr == 0 || (nr < 0 && errno == ECONNRESET))
            return false;
        CHECK(nr > 0);
        at += nr;
        length -= (size_t)nr;
    }
    return true;
}

/* A simple reply's errno; the cookie is what was asked with. */
static inline uint32_t peer_answer(struct peer *peer, uint64_t cookie)
{
    unsigned char head[NBD_SIMPLE_SIZE];
    CHECK(peer_receive(peer, head, sizeof head));
    CHECK(wire_get32(head) == NBD_SIMPLE_MAGIC);
    CHECK(wire_get64(head + 8) == cookie);
    return wire_get32(head + 4);
}

struct chunk {
    uint16_t type;
    uint32_t length;
    unsigned char payload[256 << 10];
};

static inline void peer_chunk(struct peer *peer, uint64_t cookie, struct chunk *chunk)
{
    unsigned char head[NBD_CHUNK_SIZE];
    CHECK(peer_receive(peer, head, sizeof head));
    CHECK(wire_get32(head) == NBD_CHUNK_MAGIC);
    CHECK(wire_get16(head + 4) == NBD_CHUNK_DONE);
    CHECK(wire_get64(head + 8) == cookie);
    chunk->type = wire_get16(head + 6);
    chunk->length = wire_get32(head + 16);
    CHECK(chunk->length <= sizeof chunk->payload);
    CHECK(peer_receive(peer, chunk->payload, chunk->length));
}

/* The errno of an error chunk whose sentence has part in it. */
static inline uint32_t peer_error(struct peer *peer, uint64_t cookie, const char *part)
{
    struct chunk chunk;
    peer_chunk(peer, cookie, &chunk);
    CHECK(chunk.type == NBD_CHUNK_ERROR);
    CHECK(wire_get16(chunk.payload + 4) == chunk.length - 6);
    chunk.payload[chunk.length] = '\0';
    CHECK(strstr((char *)chunk.payload + 6, part));
    return wire_get32(chunk.payload);
}

static inline uint32_t peer_write(struct peer *peer, uint16_t flags, uint64_t offset, const void *bytes,
                                  uint32_t length)
{
    peer_ask(peer, NBD_WRITE, flags, offset, offset, length);
    peer_send(peer, bytes, length);
    return peer_answer(peer, offset);
}

static inline uint32_t peer_read(struct peer *peer, uint64_t offset, void *bytes, uint32_t length)
{
    peer_ask(peer, NBD_READ, 0, offset, offset, length);
    uint32_t error = peer_answer(peer, offset);
    if (error == 0)
        CHECK(peer_receive(peer, bytes, length));
    return error;
}

/* The server has hung up; returns how it says that it ended. */
static inline int peer_ended(struct peer *peer)
{
    char byte;
    CHECK(!peer_receive(peer, &byte, 1));
    int status = obd_nbd_wait(peer->nbd, WAIT_MS);
    obd_nbd_close(peer->nbd);
    close(peer->fd);
    return status;
}

static inline void peer_goodbye(struct peer *peer)
{
    peer_ask(peer, NBD_DISCONNECT, 0, 0, 0, 0);
    CHECK_OK(peer_ended(peer));
}

static inline void fill_pattern(unsigned char *bytes, size_t length, uint64_t seed)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = (unsigned char)((seed + i) * 2654435761u >> 13 | 1);
}

#endif
