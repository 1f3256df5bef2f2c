/* crc32c: the checksum of ZFile and of everything of our own.
 *
 * Polynomial 0x1EDC6F41, reflected, with neither the first nor the last
 * inversion of the usual CRC-32C (spec/zfile.md section 4): a plain register
 * update from a seed.  crc32c_raw("123456789", 0) is 0x58E3FA20.
 *
 * Uses the SSE 4.2 instruction where the processor has it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CODEC_CRC32C_H
#define OBD_CODEC_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The seed of a ZFile block's checksum. */
#define CRC32C_BLOCK_SEED 100007u

uint32_t crc32c_raw(const void *data, size_t length, uint32_t seed);

/* The table version, whatever the processor has; for tests. */
uint32_t crc32c_raw_portable(const void *data, size_t length, uint32_t seed);

#endif
