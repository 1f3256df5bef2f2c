/* nbd_peer: an NBD client that says exactly what a test wants.
 *
 * Every wait has a deadline: a server that does not answer fails the test.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef NBD_PEER_H
#define NBD_PEER_H

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "front/nbd_wire.h"

#define WAIT_MS 20000

struct peer {
    int fd;
    struct nbd *nbd;
    uint32_t flags;
};

static inline struct peer peer_connect(struct device *device, uint32_t flags)
{
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    struct peer peer = {.fd = fds[0], .flags = flags};
    struct obd_nbd_params params = {.fd = fds[1], .flags = flags};
    CHECK_OK(obd_nbd_start(device, &params, &peer.nbd));
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
