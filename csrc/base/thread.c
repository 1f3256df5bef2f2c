/* thread: see thread.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>

#include "base/clock.h"

/* The kernel's limit, with the NUL. */
#define NAME_SIZE 16

enum obd_status thread_start(const char *name, void *(*run)(void *), void *argument, pthread_t *out)
{
    sigset_t all, before;
    sigfillset(&all);
    /* A new thread inherits the mask, so there is no moment at which a signal
     * could still reach it. */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(out, NULL, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        return status_set_errno(error, "cannot start a thread \"%s\"", name);
    char kept[NAME_SIZE];
    snprintf(kept, sizeof kept, "%s", name);
    pthread_setname_np(*out, kept);
    return OBD_OK;
}

void condition_init(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

bool condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, uint64_t deadline_ns)
{
    if (deadline_ns == NEVER_NS)
        return pthread_cond_wait(condition, lock) == 0;
    struct timespec deadline = clock_timespec(deadline_ns);
    return pthread_cond_timedwait(condition, lock, &deadline) != ETIMEDOUT;
}
