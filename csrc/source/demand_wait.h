/* demand_wait: a thread that waits for what it misses, for tools and for opening.
 *
 * It does what the command core does for a parked command: it reads and collects
 * misses, asks, sleeps until all have come, and reads again from the start while
 * they are pinned.
 *
 *   demand_wait_init(&wait);
 *   while ((status = read with &wait.demand) == OBD_E_MISS)
 *       if ((status = demand_wait_for_misses(&wait, name, deadline)) != OBD_OK)
 *           break;
 *   demand_wait_destroy(&wait);
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_SOURCE_DEMAND_WAIT_H
#define OBD_SOURCE_DEMAND_WAIT_H

#include "source/demand.h"

struct source;

struct demand_wait {
    struct demand demand;
    pthread_mutex_t lock; /* guards the three that follow changed */
    pthread_cond_t changed;
    bool is_ready;
    bool is_interrupted;
    bool is_stopped;
    struct list link; /* while it sleeps, in a list of all that do */
};

void demand_wait_init(struct demand_wait *wait);
void demand_wait_destroy(struct demand_wait *wait);

/* Asks for what is missing and waits for it; it is pinned afterwards.
 * OBD_E_TIMEOUT, with name in the sentence, when deadline_ns came first,
 * OBD_E_CANCELLED when it was interrupted, or stopped before its end. */
enum obd_status demand_wait_for_misses(struct demand_wait *wait, const char *name, uint64_t deadline_ns);

/* The loop above, for length bytes at offset; read_wait.c. */
enum obd_status source_read_with_wait(struct source *source, struct demand_wait *wait, void *buffer, size_t length,
                                      uint64_t offset, uint64_t deadline_ns);

/* Wanted: every wait of the process, and every later one, ends at once, until it is
 * wanted no longer.  For a tool whose user has pressed Ctrl-C. */
void demand_wait_interrupt(bool wanted);

/* This one ends, and every later one of it; from any thread. */
void demand_wait_stop(struct demand_wait *wait);

#endif
