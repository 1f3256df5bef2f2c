/* thread: how this library starts its threads.
 *
 * Every one blocks all signals: they belong to Python's main thread, which waits
 * for them on its wake-up fd, and a signal taken here would be lost to it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_BASE_THREAD_H
#define OBD_BASE_THREAD_H

#include <pthread.h>

#include "base/status.h"

/* Starts run(argument); name (at most 15 characters are kept) is what top and a
 * debugger show. */
enum obd_status thread_start(const char *name, void *(*run)(void *), void *argument, pthread_t *out);

#endif
