/* nbd_wire: the transmission phase of the NBD protocol as bytes.
 *
 * All numbers are big-endian.  A request is 28 bytes, a WRITE's payload follows it:
 *
 *   offset  size
 *        0     4  magic 0x25609513
 *        4     2  command flags
 *        6     2  type
 *        8     8  cookie: the client's, given back in the reply
 *       16     8  offset, bytes
 *       24     4  length, bytes
 *
 * A simple reply is 16 bytes (magic 0x67446698, errno 4, cookie 8) and, for a
 * READ that went well, the data.  A structured one is a chunk of 20 bytes (magic
 * 0x668e33ef, flags 2, type 2, cookie 8, length 4) and length bytes.  We send
 * every reply as one chunk, so it always has the flag DONE.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_FRONT_NBD_WIRE_H
#define OBD_FRONT_NBD_WIRE_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_SIMPLE_MAGIC  0x67446698u
#define NBD_CHUNK_MAGIC   0x668e33efu

#define NBD_REQUEST_SIZE 28
#define NBD_SIMPLE_SIZE  16
#define NBD_CHUNK_SIZE   20
#define NBD_EXTENT_SIZE  8 /* of a block status descriptor: length 4, flags 4 */

/* The longest READ or WRITE, as NBD_INFO_BLOCK_SIZE told the client. */
#define NBD_MAX_PAYLOAD (32u << 20)

enum nbd_type {
    NBD_READ = 0,
    NBD_WRITE = 1,
    NBD_DISCONNECT = 2,
    NBD_FLUSH = 3,
    NBD_TRIM = 4,
    NBD_CACHE = 5,
    NBD_WRITE_ZEROES = 6,
    NBD_BLOCK_STATUS = 7,
};

enum nbd_flag {
    NBD_FLAG_FUA = 1 << 0,
    NBD_FLAG_NO_HOLE = 1 << 1,
    NBD_FLAG_DF = 1 << 2,
    NBD_FLAG_REQ_ONE = 1 << 3,
    NBD_FLAG_FAST_ZERO = 1 << 4,
};

enum nbd_chunk_type {
    NBD_CHUNK_OFFSET_DATA = 1,
    NBD_CHUNK_OFFSET_HOLE = 2,
    NBD_CHUNK_BLOCK_STATUS = 5,
    NBD_CHUNK_ERROR = (1 << 15) + 1,
};
#define NBD_CHUNK_DONE 1

#define NBD_BASE_ALLOCATION 1 /* the context id that the handshake gives to base:allocation */
enum nbd_extent_flag { NBD_EXTENT_HOLE = 1, NBD_EXTENT_ZERO = 2 };

enum nbd_errno {
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_ENOMEM = 12,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_ENOTSUP = 95,
    NBD_ESHUTDOWN = 108,
};

struct nbd_header { /* of a request, in our byte order */
    uint32_t magic;
    uint16_t flags;
    uint16_t type;
    uint64_t cookie;
    uint64_t offset;
    uint32_t length;
};

static inline uint16_t wire_get16(const unsigned char *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return be16toh(value);
}

static inline uint32_t wire_get32(const unsigned char *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

static inline uint64_t wire_get64(const unsigned char *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return be64toh(value);
}

/* Each puts value at the place and returns the place behind it. */
static inline unsigned char *wire_put16(unsigned char *at, uint16_t value)
{
    value = htobe16(value);
    memcpy(at, &value, sizeof value);
    return at + sizeof value;
}

static inline unsigned char *wire_put32(unsigned char *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof value);
    return at + sizeof value;
}

static inline unsigned char *wire_put64(unsigned char *at, uint64_t value)
{
    value = htobe64(value);
    memcpy(at, &value, sizeof value);
    return at + sizeof value;
}

static inline struct nbd_header nbd_header_parse(const unsigned char *at)
{
    return (struct nbd_header){
        .magic = wire_get32(at),
        .flags = wire_get16(at + 4),
        .type = wire_get16(at + 6),
        .cookie = wire_get64(at + 8),
        .offset = wire_get64(at + 16),
        .length = wire_get32(at + 24),
    };
}

#endif
