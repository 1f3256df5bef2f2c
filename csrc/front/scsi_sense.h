/* scsi_sense: how a status is said in SCSI.
 *
 * One number holds a sense key, an additional sense code and its qualifier:
 * key << 16 | asc << 8 | ascq.
 *
 * Every sense of the table is one after which Linux does not try again
 * (vm/README.md, section 7): an answer that is retried stalls the whole LUN while
 * another command is parked.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_FRONT_SCSI_SENSE_H
#define OBD_FRONT_SCSI_SENSE_H

#include <stdbool.h>
#include <stdint.h>

#include "obd.h"

#define SCSI_GOOD            0x00
#define SCSI_CHECK_CONDITION 0x02

#define SENSE(key, asc, ascq) ((uint32_t)(key) << 16 | (uint32_t)(asc) << 8 | (uint32_t)(ascq))

#define SENSE_NO_COMMUNICATION       SENSE(0x2, 0x08, 0x00) /* logical unit communication failure */
#define SENSE_READ_ERROR             SENSE(0x3, 0x11, 0x00) /* unrecovered read error */
#define SENSE_TARGET_FAILURE         SENSE(0x4, 0x44, 0x00) /* internal target failure */
#define SENSE_PARAMETER_LIST_LENGTH  SENSE(0x5, 0x1a, 0x00)
#define SENSE_INVALID_OPCODE         SENSE(0x5, 0x20, 0x00)
#define SENSE_LBA_OUT_OF_RANGE       SENSE(0x5, 0x21, 0x00)
#define SENSE_INVALID_CDB_FIELD      SENSE(0x5, 0x24, 0x00)
#define SENSE_INVALID_PARAMETER_LIST SENSE(0x5, 0x26, 0x00)
#define SENSE_WRITE_PROTECTED        SENSE(0x7, 0x27, 0x00)
#define SENSE_SPACE_ALLOCATION       SENSE(0x7, 0x27, 0x07) /* space allocation failed write protect */
#define SENSE_MISCOMPARE             SENSE(0xe, 0x1d, 0x00) /* miscompare during verify operation */

/* 0 for OBD_OK; a number that is no status is a target failure. */
uint32_t scsi_sense_of_status(enum obd_status status, bool is_write);

/* Fixed format, current: writes the first 18 bytes of buffer. */
void scsi_sense_write(uint8_t *buffer, uint32_t sense);

#endif
