/* demand: what one command still misses.
 *
 * A source that does not have bytes at hand does not wait for them.  It adds a
 * miss for *every* absent chunk of the request to the command's demand and says
 * OBD_E_MISS; the reader goes on to the other parts of the command, so that they
 * add theirs too.  The command core then (architecture, rule 3)
 *
 *   1. admits demand_bytes() against the device's budget, in order,
 *   2. calls demand_start(): every source is asked for its chunks,
 *   3. parks the command until demand.ready is called, exactly once, when the
 *      last chunk has come (or failed); each chunk that came is pinned,
 *   4. runs the command again from the start, and
 *   5. calls demand_release(): pins are given back, the demand is empty again.
 *
 *   collecting --start--> waiting --(last arrival, cancel)--> ready --release--> collecting
 *                   ^                                       |
 *                   +--------(ran again, missed again)------+
 *
 * A run that misses again adds to the same demand: the pins it has are kept, and
 * demand_start() asks only for what is new.
 *
 * A deadline: with its own lock held the owner takes a hold, which says "too
 * late" or keeps ready back; then, with no lock, demand_cancel() takes the open
 * requests back from their sources, and ready follows at once.
 *
 * Threads: collecting and release belong to whoever runs the command; arrivals
 * come from any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_SOURCE_DEMAND_H
#define OBD_SOURCE_DEMAND_H

#include <pthread.h>

#include "base/list.h"
#include "base/status.h"
#include "source/provenance.h"

struct source;
struct demand;

/* One absent chunk.  Owned by the demand; while it is requested the source may
 * keep it in a list of its own through source_link. */
struct miss {
    struct demand *demand;
    struct source *source; /* referenced, so that it outlives the request */
    uint64_t chunk;        /* the source's own number for it */
    uint32_t bytes;        /* what it costs the budget */
    bool is_asked;         /* source->request was called */
    bool is_answered;      /* demand_arrived was; guarded by demand->lock */
    bool is_pinned;        /* it came, and source->release must be called */
    struct list link;      /* in demand->misses */
    struct list source_link;
};

struct demand {
    struct list misses;
    uint64_t bytes;                       /* sum over misses */
    uint64_t deadline_ns;                 /* set by the owner: until when it waits; a source that fails sooner
                                             can still say why.  NEVER_NS from demand_init. */
    bool is_background;                   /* set by the owner: everybody else goes first */
    struct provenance provenance;         /* of what is read with it; the owner's, as misses are */
    void (*ready)(struct demand *demand); /* set by the owner; called with no lock held */

    pthread_mutex_t lock; /* guards what follows */
    unsigned nr_waiting;  /* misses requested and not yet answered, holds, and one while starting */
    bool is_starting;     /* demand_start() is still asking */
    bool is_cancelled;
    enum obd_status status; /* OBD_OK, or the first failure */
    char *text;             /* its sentence, or NULL; owned */
};

void demand_init(struct demand *demand, void (*ready)(struct demand *));
void demand_destroy(struct demand *demand); /* must not be waiting */

/* Called by a source while collecting; a chunk that is there and not yet asked
 * for is not added twice. OBD_E_MISS normally, OBD_E_NO_MEMORY when it cannot be added. */
enum obd_status demand_add(struct demand *demand, struct source *source, uint64_t chunk, uint32_t bytes);

/* Whether one of the chunks [first, last] of source was asked for and has come. */
bool demand_has_brought(const struct demand *demand, const struct source *source, uint64_t first, uint64_t last);

/* The owner is resolved to start: from here on demand_hold() works and ready is
 * sure to come.  demand_start() must follow, and begins by itself otherwise. */
void demand_begin(struct demand *demand);

/* Asks the sources for everything not asked for yet; ready may be called before it returns. */
void demand_start(struct demand *demand);

/* Called by a source, once for every request, with no lock of its own that
 * ready's work could need: the chunk is there and pinned (OBD_OK), or it is not
 * coming, for the reason that this thread's status_text() gives. */
void demand_arrived(struct miss *miss, enum obd_status status);

/* Keeps ready from being called until demand_cancel(); false when it has been
 * called or is just being called.  Takes no lock but the demand's. */
bool demand_hold(struct demand *demand);

/* Gives a hold back after taking back every request that is still open.  The
 * demand fails with status and this thread's status_text(), unless it has failed
 * already.  ready is called as ever, once, perhaps before this returns. */
void demand_cancel(struct demand *demand, enum obd_status status);

/* Gives the pins back and empties the demand.  Not while waiting. */
void demand_release(struct demand *demand);

/* After ready: the first failure, with its sentence set for this thread. */
enum obd_status demand_status(struct demand *demand);

#endif
