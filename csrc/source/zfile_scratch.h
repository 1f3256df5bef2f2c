/* zfile_scratch: the buffers one read of a ZFile needs.
 *
 * Kept by each thread and lent out, so that a read allocates nothing; a read
 * inside a read (a ZFile in a ZFile) gets another one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_SOURCE_ZFILE_SCRATCH_H
#define OBD_SOURCE_ZFILE_SCRATCH_H

#include <stdint.h>

#include "source/zfile.h"

/* Stored bytes read at once.  One block of any kind fits; more than this brought
 * nothing when measured, and less costs system calls. */
#define ZFILE_SPAN_SIZE (128u << 10)

struct zfile_scratch {
    struct zfile_scratch *next;          /* in the thread's list of those not lent out */
    uint8_t block[ZFILE_MAX_BLOCK_SIZE]; /* a block of which only a part is wanted */
    uint8_t span[ZFILE_SPAN_SIZE];       /* stored bytes of several blocks */
};

/* NULL when there is no memory.  Yours alone until it is given back, on the same
 * thread. */
struct zfile_scratch *zfile_scratch_take(void);
void zfile_scratch_give(struct zfile_scratch *scratch);

#endif
