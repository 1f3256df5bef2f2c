/* suspects: blocks that failed a check and were asked for again.
 *
 * A block that fails is discarded below and read again, SUSPECT_MAX_DISCARDS
 * times.  The new reading may miss, and the command start over from nothing, so
 * how often a block was discarded is remembered here, by whoever reads it.
 *
 * A block leaves when it has been read well, when it failed for good (a later
 * read then tries anew), or after SUSPECT_AGE_NS, if nobody came back for it.
 * There are few places, and a block that finds none is not tried again: so many
 * at once mean that the data is bad, not the way here.
 *
 * Thread-safe.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_SOURCE_SUSPECTS_H
#define OBD_SOURCE_SUSPECTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

#define NR_SUSPECTS          16
#define SUSPECT_MAX_DISCARDS 2
#define SUSPECT_AGE_NS       (60 * NS_PER_SECOND)

struct suspects {
    atomic_uint nr; /* places taken, for a look without the lock */
    pthread_mutex_t lock;
    struct suspect {
        uint64_t block;
        uint64_t since_ns;    /* first discard */
        unsigned nr_discards; /* 0: the place is free */
    } places[NR_SUSPECTS];
};

void suspects_init(struct suspects *suspects);
void suspects_destroy(struct suspects *suspects);

/* True when block, which has just failed, may be discarded (once more). */
bool suspects_accuse(struct suspects *suspects, uint64_t block, uint64_t now_ns);

/* block is as it should be.  Costs one load when nobody is suspected. */
void suspects_clear(struct suspects *suspects, uint64_t block);

#endif
