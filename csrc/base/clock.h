/* clock: time that only goes forward.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_BASE_CLOCK_H
#define OBD_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_MS     UINT64_C(1000000)
#define NS_PER_SECOND UINT64_C(1000000000)
#define NEVER_NS      UINT64_MAX

/* CLOCK_MONOTONIC in nanoseconds: what deadlines are measured in. */
static inline uint64_t clock_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

/* The deadline of a call that may take timeout_ms from now. */
static inline uint64_t clock_deadline_ns(uint32_t timeout_ms)
{
    return clock_now_ns() + timeout_ms * NS_PER_MS;
}

static inline struct timespec clock_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_SECOND), .tv_nsec = (long)(ns % NS_PER_SECOND)};
}

#endif
