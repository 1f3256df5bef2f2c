/* thread: how this library starts its threads, and how they wait.
 *
 * Every one blocks all signals: they belong to Python's main thread, which waits
 * for them on its wake-up fd, and a signal taken here would be lost to it.
 *
 * Conditions measure in CLOCK_MONOTONIC, as all deadlines do.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_BASE_THREAD_H
#define OBD_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>

#include "base/status.h"

/* Starts run(argument); name (at most 15 characters are kept) is what top and a
 * debugger show. */
enum obd_status thread_start(const char *name, void *(*run)(void *), void *argument, pthread_t *out);

void condition_init(pthread_cond_t *condition);

/* Waits for a signal until deadline_ns (NEVER_NS: for ever); false when that has
 * passed.  As always with conditions, the caller looks at what it waits for again. */
bool condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, uint64_t deadline_ns);

#endif
