/* See scsi_sense.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "front/scsi_sense.h"

#include <string.h>

struct sense_row {
    uint32_t on_read;
    uint32_t on_write; /* WRITE, UNMAP, WRITE SAME, SYNCHRONIZE CACHE */
};

#define BOTH(sense)                                                                                                    \
    {                                                                                                                  \
        sense, sense                                                                                                   \
    }

static const struct sense_row ROWS[OBD_NR_STATUS] = {
    [OBD_OK] = BOTH(0),
    [OBD_E_AGAIN] = BOTH(SENSE_TARGET_FAILURE), /* these two never leave the core */
    [OBD_E_MISS] = BOTH(SENSE_TARGET_FAILURE),
    [OBD_E_INVALID] = BOTH(SENSE_INVALID_CDB_FIELD),
    [OBD_E_RANGE] = BOTH(SENSE_LBA_OUT_OF_RANGE),
    [OBD_E_READ_ONLY] = BOTH(SENSE_WRITE_PROTECTED),
    [OBD_E_NO_SPACE] = BOTH(SENSE_SPACE_ALLOCATION),
    [OBD_E_NO_MEMORY] = BOTH(SENSE_TARGET_FAILURE),
    [OBD_E_LIMIT] = BOTH(SENSE_SPACE_ALLOCATION),
    [OBD_E_NOT_FOUND] = BOTH(SENSE_TARGET_FAILURE),
    [OBD_E_IO] = BOTH(SENSE_TARGET_FAILURE),
    [OBD_E_CORRUPT] = {SENSE_READ_ERROR, SENSE_TARGET_FAILURE},
    [OBD_E_UNSUPPORTED] = BOTH(SENSE_TARGET_FAILURE),
    [OBD_E_UNREACHABLE] = BOTH(SENSE_NO_COMMUNICATION),
    [OBD_E_TIMEOUT] = BOTH(SENSE_NO_COMMUNICATION),
    [OBD_E_CANCELLED] = BOTH(SENSE_NO_COMMUNICATION),
    [OBD_E_BUSY] = BOTH(SENSE_NO_COMMUNICATION),
    [OBD_E_JOURNAL] = BOTH(SENSE_TARGET_FAILURE),
    [OBD_E_MISCOMPARE] = BOTH(SENSE_MISCOMPARE),
    [OBD_E_CLOSED] = BOTH(SENSE_NO_COMMUNICATION),
};

uint32_t scsi_sense_of_status(enum obd_status status, bool is_write)
{
    if ((unsigned)status >= OBD_NR_STATUS)
        return SENSE_TARGET_FAILURE;
    const struct sense_row *row = &ROWS[status];
    return is_write ? row->on_write : row->on_read;
}

void scsi_sense_write(uint8_t *buffer, uint32_t sense)
{
    memset(buffer, 0, 18);
    buffer[0] = 0x70; /* current, fixed format */
    buffer[2] = (uint8_t)(sense >> 16);
    buffer[7] = 10; /* bytes that follow */
    buffer[12] = (uint8_t)(sense >> 8);
    buffer[13] = (uint8_t)sense;
}
