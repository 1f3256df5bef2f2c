/* transfer: one ranged GET, as its two files see it.
 *
 *   transfer.c          begins it, ends it, looks whether it still goes on
 *   transfer_receive.c  what curl calls while it runs: head and body
 *
 * The head is judged before a byte of the body is used (response.h).  The body runs
 * over the jobs of the range in order: bytes gather in chunk until a job has all of
 * its own, and then go to its done at once.  Bytes of a job that was cancelled are
 * skipped.  When the last job is served or gone, the rest is not waited for.
 *
 * What a cut transfer leaves in chunk goes to its job as "partial", and the next
 * transfer begins behind it.
 *
 * The transfer is the thread's own; its list of jobs is guarded by the fetcher's
 * lock, because jobs may be cancelled and expire at any time.  A transfer counts as
 * a reference to its origin.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_TRANSFER_H
#define OBD_CACHE_TRANSFER_H

#include "cache/fetch_state.h"

struct transfer {
    CURL *easy;
    struct fetcher *fetcher;
    struct origin *origin;         /* counted */
    struct resolution *resolution; /* counted */
    struct list jobs;              /* what is still wanted, by offset; guarded by the lock */
    struct list link;              /* in fetcher->running */
    enum fetch_class class;        /* the range's */
    uint64_t began_pauses;         /* origin->nr_pauses at the start */

    uint64_t begin, end; /* of the range asked for */
    uint64_t at;         /* of the next byte to come */
    uint8_t *chunk;      /* what has come of the job at chunk_offset, or NULL */
    uint64_t chunk_offset;
    uint32_t chunk_length;

    struct response response;
    bool is_judged;
    enum response_verdict verdict;
    uint64_t nr_ignored; /* bytes of a body that is no data */
    uint64_t progress_ns;
    uint64_t data_at, data_ns; /* the first bytes of data ended there, and came then; 0: none yet */
    bool is_sent;              /* connected, and the request is out */
    bool is_stalled;
    char error[CURL_ERROR_SIZE];
};

/* With the fetcher's lock not held: is any of its bytes still wanted? */
bool transfer_is_wanted(struct transfer *transfer);
void transfer_drop_chunk(struct transfer *transfer);

/* Has curl call transfer_receive.c for head and body. */
CURLcode transfer_receive(struct transfer *transfer);

#endif
