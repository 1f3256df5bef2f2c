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

struct demand_wait {
    struct demand demand;
    pthread_mutex_t lock; /* guards is_ready */
    pthread_cond_t changed;
    bool is_ready;
};

void demand_wait_init(struct demand_wait *wait);
void demand_wait_destroy(struct demand_wait *wait);

/* Asks for what is missing and waits for it; it is pinned afterwards.
 * OBD_E_TIMEOUT, with name in the sentence, when deadline_ns came first. */
enum obd_status demand_wait_for_misses(struct demand_wait *wait, const char *name, uint64_t deadline_ns);

#endif
