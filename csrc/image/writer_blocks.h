/* writer_blocks: blocks compressed by several threads, taken back in order.
 *
 * Jobs stand in a ring.  One owner fills a job's input, submits it, and later
 * takes the oldest submitted one back when it is compressed; between the two it
 * belongs to whichever worker picks it up.
 *
 *   free --fill, submit--> submitted --(worker)--> done --oldest, recycle--> free
 *
 * What a job becomes depends on its input alone, and they come back in the order
 * in which they were submitted: so the output is the same at any number of
 * threads.  With one thread there is no worker: submit compresses.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_IMAGE_WRITER_BLOCKS_H
#define OBD_IMAGE_WRITER_BLOCKS_H

#include <stddef.h>

#include "base/status.h"

/* Every stored block ends in the CRC of what is before it. */
#define BLOCK_CRC_SIZE 4u

struct block_job {
    uint8_t *input;
    size_t input_length;
    size_t input_room; /* a whole number of blocks */
    uint8_t *output;   /* stored blocks, one behind the other */
    size_t output_length;
    uint32_t *lengths; /* of the stored blocks, their CRC included */
    size_t nr_blocks;
    enum obd_status status;
    char text[STATUS_TEXT_SIZE]; /* its sentence */
};

struct block_pool;

enum obd_status block_pool_open(enum obd_codec codec, uint32_t block_size, uint32_t nr_threads,
                                struct block_pool **out);
void block_pool_close(struct block_pool *pool); /* stops its threads, whatever they do; NULL is fine */

/* The job to fill next; NULL while all are submitted: take back the oldest first. */
struct block_job *block_pool_free_job(struct block_pool *pool);

/* That job's input is filled (the last block of all may be short). */
void block_pool_submit(struct block_pool *pool);

/* Waits for the oldest submitted job; NULL when there is none. */
struct block_job *block_pool_oldest(struct block_pool *pool);

/* The oldest is free again. */
void block_pool_recycle(struct block_pool *pool);

#endif
