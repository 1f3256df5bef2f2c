/* scsi_decode: what a CDB asks of the disk's data.
 *
 * Commands are of three classes: those that touch data are decoded here into
 * ranges of bytes for the command core; those that only describe the disk are
 * Python's (tcmu_overlaybd/scsi/); all others do not exist.  The table of
 * scsi_decode.c is compared with Python's by a test.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_FRONT_SCSI_DECODE_H
#define OBD_FRONT_SCSI_DECODE_H

#include "base/iov.h"
#include "command/command.h"

struct scsi_range { /* bytes */
    uint64_t offset;
    uint64_t length;
};

struct scsi_request {
    enum command_kind kind;
    bool fua;
    bool uses_data;     /* the command's buffers are what is read, written or compared */
    unsigned nr_ranges; /* 0: nothing is to be done; more than 1: UNMAP */
    struct scsi_range ranges[OBD_MAX_UNMAP_DESCRIPTORS];
};

enum obd_scsi_class scsi_class(uint8_t opcode);

/* Is cdb's command one that changes the disk?  For the choice of sense. */
bool scsi_is_write(const uint8_t *cdb);

/* Decodes a CDB of class OBD_SCSI_DATA for a disk of disk_size bytes; data are the
 * buffers that came with it.  0, or the sense that says why it cannot be done. */
uint32_t scsi_decode(const uint8_t *cdb, struct iov_cursor data, uint64_t disk_size, struct scsi_request *request);

#endif
