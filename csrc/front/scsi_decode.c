/* See scsi_decode.h.  Numbers in CDBs and parameter lists are big-endian (SBC-3).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "front/scsi_decode.h"

#include <string.h>

#include "base/checked.h"
#include "front/scsi_sense.h"

/* Bits of byte 1. */
#define PROTECT_MASK 0xe0 /* RDPROTECT, WRPROTECT, VRPROTECT: there is no protection information */
#define FUA          0x08
#define ANCHOR       0x10 /* of WRITE SAME */
#define UNMAP_BIT    0x08 /* of WRITE SAME */
#define NDOB         0x01 /* of WRITE SAME(16): no data came along */
#define UNMAP_ANCHOR 0x01 /* of UNMAP */
#define BYTCHK_SHIFT 1

#define UNMAP_HEADER_SIZE     8
#define UNMAP_DESCRIPTOR_SIZE 16

#define WRITE_SAME_16 0x93

/* A CDB with what came with it, while it is being decoded. */
struct decoder {
    const uint8_t *cdb;
    struct iov_cursor data;
    uint64_t nr_sectors; /* of the disk */
    struct scsi_request *request;
};

struct extent { /* sectors */
    uint64_t lba;
    uint64_t length;
};

static uint32_t be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t be32(const uint8_t *p)
{
    return be16(p) << 16 | be16(p + 2);
}

static uint64_t be64(const uint8_t *p)
{
    return (uint64_t)be32(p) << 32 | be32(p + 4);
}

/* The four shapes of CDBs with an LBA and a transfer length. */
static struct extent extent_6(const uint8_t *cdb)
{
    return (struct extent){be32(cdb) & 0x1fffff, cdb[4] != 0 ? cdb[4] : 256};
}

static struct extent extent_10(const uint8_t *cdb)
{
    return (struct extent){be32(cdb + 2), be16(cdb + 7)};
}

static struct extent extent_12(const uint8_t *cdb)
{
    return (struct extent){be32(cdb + 2), be32(cdb + 6)};
}

static struct extent extent_16(const uint8_t *cdb)
{
    return (struct extent){be64(cdb + 2), be32(cdb + 10)};
}

static struct extent cdb_extent(const uint8_t *cdb)
{
    switch (cdb[0] >> 5) { /* the opcode's group */
    case 0:
        return extent_6(cdb);
    case 4:
        return extent_16(cdb);
    case 5:
        return extent_12(cdb);
    default:
        return extent_10(cdb);
    }
}

static bool has_protection(const uint8_t *cdb)
{
    return cdb[0] >> 5 != 0 && (cdb[1] & PROTECT_MASK) != 0;
}

static bool extent_is_inside(const struct decoder *decoder, struct extent extent)
{
    return range_is_inside(extent.lba, extent.length, decoder->nr_sectors);
}

/* extent lies inside the disk, so its bytes fit. */
static void add_range(struct decoder *decoder, struct extent extent)
{
    if (extent.length == 0)
        return;
    struct scsi_request *request = decoder->request;
    request->ranges[request->nr_ranges++] =
        (struct scsi_range){extent.lba << SECTOR_SHIFT, extent.length << SECTOR_SHIFT};
}

/* READ, WRITE, and VERIFY with data: all that is transferred must be there. */
static uint32_t add_transfer(struct decoder *decoder, bool uses_data)
{
    struct extent extent = cdb_extent(decoder->cdb);
    if (has_protection(decoder->cdb) || (uses_data && extent.length > OBD_MAX_TRANSFER_SECTORS))
        return SENSE_INVALID_CDB_FIELD;
    if (!extent_is_inside(decoder, extent))
        return SENSE_LBA_OUT_OF_RANGE;
    if (uses_data && iov_cursor_left(&decoder->data) < extent.length << SECTOR_SHIFT)
        return SENSE_INVALID_CDB_FIELD;
    decoder->request->uses_data = uses_data;
    add_range(decoder, extent);
    return 0;
}

static uint32_t decode_read(struct decoder *decoder)
{
    decoder->request->kind = COMMAND_READ;
    return add_transfer(decoder, true);
}

static uint32_t decode_write(struct decoder *decoder)
{
    decoder->request->kind = COMMAND_WRITE;
    decoder->request->fua = decoder->cdb[0] >> 5 != 0 && (decoder->cdb[1] & FUA) != 0;
    return add_transfer(decoder, true);
}

/* BYTCHK 0: can it be read?  1: does it equal the data?  (3 repeats one block.) */
static uint32_t decode_verify(struct decoder *decoder)
{
    unsigned bytchk = decoder->cdb[1] >> BYTCHK_SHIFT & 3;
    decoder->request->kind = COMMAND_VERIFY;
    return bytchk > 1 ? SENSE_INVALID_CDB_FIELD : add_transfer(decoder, bytchk == 1);
}

/* The whole disk is flushed, whatever the range (0 blocks: to the end); IMMED is
 * not made use of: the answer comes when it is done. */
static uint32_t decode_flush(struct decoder *decoder)
{
    if (!extent_is_inside(decoder, cdb_extent(decoder->cdb)))
        return SENSE_LBA_OUT_OF_RANGE;
    decoder->request->kind = COMMAND_FLUSH;
    decoder->request->ranges[0] = (struct scsi_range){0}; /* not what the last command left there */
    decoder->request->nr_ranges = 1;
    return 0;
}

/* Is the one block that came with WRITE SAME all zeros? */
static bool block_is_zero(struct iov_cursor data)
{
    static const uint8_t ZEROS[SECTOR_SIZE];
    uint8_t block[SECTOR_SIZE];
    if (iov_cursor_left(&data) < sizeof block)
        return false;
    iov_cursor_read(&data, block, sizeof block);
    return memcmp(block, ZEROS, sizeof block) == 0;
}

/* Only with UNMAP, of zeros: then it is a discard, which reads as zeros. */
static uint32_t decode_write_same(struct decoder *decoder)
{
    const uint8_t *cdb = decoder->cdb;
    struct extent extent = cdb_extent(cdb);
    bool has_block = !(cdb[0] == WRITE_SAME_16 && (cdb[1] & NDOB));
    if (!(cdb[1] & UNMAP_BIT) || (cdb[1] & (PROTECT_MASK | ANCHOR)) || extent.length == 0)
        return SENSE_INVALID_CDB_FIELD;
    if (!extent_is_inside(decoder, extent))
        return SENSE_LBA_OUT_OF_RANGE;
    if (has_block && !block_is_zero(decoder->data))
        return SENSE_INVALID_CDB_FIELD;
    decoder->request->kind = COMMAND_DISCARD;
    add_range(decoder, extent);
    return 0;
}

static uint32_t decode_unmap_descriptors(struct decoder *decoder, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        uint8_t descriptor[UNMAP_DESCRIPTOR_SIZE];
        iov_cursor_read(&decoder->data, descriptor, sizeof descriptor);
        struct extent extent = {be64(descriptor), be32(descriptor + 8)};
        if (!extent_is_inside(decoder, extent))
            return SENSE_LBA_OUT_OF_RANGE;
        add_range(decoder, extent);
    }
    return 0;
}

/* Nothing is discarded unless every descriptor makes sense.  A last one that is
 * not whole is ignored, as the standard says. */
static uint32_t decode_unmap(struct decoder *decoder)
{
    uint32_t length = be16(decoder->cdb + 7);
    decoder->request->kind = COMMAND_DISCARD;
    if (decoder->cdb[1] & UNMAP_ANCHOR)
        return SENSE_INVALID_CDB_FIELD;
    if (length == 0)
        return 0;
    if (length < UNMAP_HEADER_SIZE || iov_cursor_left(&decoder->data) < length)
        return SENSE_PARAMETER_LIST_LENGTH;
    uint8_t header[UNMAP_HEADER_SIZE];
    iov_cursor_read(&decoder->data, header, sizeof header);
    uint32_t descriptors_length = be16(header + 2);
    if (descriptors_length > length - UNMAP_HEADER_SIZE)
        return SENSE_PARAMETER_LIST_LENGTH;
    unsigned nr = descriptors_length / UNMAP_DESCRIPTOR_SIZE;
    return nr > OBD_MAX_UNMAP_DESCRIPTORS ? SENSE_INVALID_PARAMETER_LIST : decode_unmap_descriptors(decoder, nr);
}

struct opcode {
    enum obd_scsi_class class;
    bool is_write;
    uint32_t (*decode)(struct decoder *decoder);
};

#define DATA(is_write, function)                                                                                       \
    {                                                                                                                  \
        OBD_SCSI_DATA, is_write, function                                                                              \
    }
#define CONTROL                                                                                                        \
    {                                                                                                                  \
        OBD_SCSI_CONTROL, false, NULL                                                                                  \
    }

static const struct opcode OPCODES[256] = {
    [0x00] = CONTROL, /* TEST UNIT READY */
    [0x03] = CONTROL, /* REQUEST SENSE */
    [0x08] = DATA(false, decode_read),
    [0x0a] = DATA(true, decode_write),
    [0x12] = CONTROL, /* INQUIRY */
    [0x15] = CONTROL, /* MODE SELECT(6) */
    [0x1a] = CONTROL, /* MODE SENSE(6) */
    [0x1b] = CONTROL, /* START STOP UNIT */
    [0x25] = CONTROL, /* READ CAPACITY(10) */
    [0x28] = DATA(false, decode_read),
    [0x2a] = DATA(true, decode_write),
    [0x2f] = DATA(false, decode_verify),
    [0x35] = DATA(true, decode_flush),
    [0x41] = DATA(true, decode_write_same),
    [0x42] = DATA(true, decode_unmap),
    [0x55] = CONTROL, /* MODE SELECT(10) */
    [0x5a] = CONTROL, /* MODE SENSE(10) */
    [0x88] = DATA(false, decode_read),
    [0x8a] = DATA(true, decode_write),
    [0x8f] = DATA(false, decode_verify),
    [0x91] = DATA(true, decode_flush),
    [WRITE_SAME_16] = DATA(true, decode_write_same),
    [0x9e] = CONTROL, /* SERVICE ACTION IN(16): READ CAPACITY(16) */
    [0xa3] = CONTROL, /* MAINTENANCE IN: REPORT SUPPORTED OPERATION CODES */
    [0xa8] = DATA(false, decode_read),
    [0xaa] = DATA(true, decode_write),
    [0xaf] = DATA(false, decode_verify),
};

enum obd_scsi_class scsi_class(uint8_t opcode)
{
    return OPCODES[opcode].class;
}

bool scsi_is_write(const uint8_t *cdb)
{
    return OPCODES[cdb[0]].is_write;
}

uint32_t scsi_decode(const uint8_t *cdb, struct iov_cursor data, uint64_t disk_size, struct scsi_request *request)
{
    struct decoder decoder = {.cdb = cdb, .data = data, .nr_sectors = disk_size >> SECTOR_SHIFT, .request = request};
    request->fua = request->uses_data = false;
    request->nr_ranges = 0;
    return OPCODES[cdb[0]].decode(&decoder);
}
