/* log: a ring of records between C's threads and the one in Python that pulls.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/status.h"

/* 128 KiB: a burst that Python needs a second to pull. */
#define NR_RECORDS 256

static struct {
    pthread_mutex_t lock; /* guards all */
    pthread_cond_t changed;
    struct obd_log_record records[NR_RECORDS];
    size_t first; /* place of the oldest */
    size_t nr;
    uint32_t nr_dropped; /* since the last one that found room */
    bool is_closed;
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static uint64_t realtime_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

static void push(struct obd_log_record *record)
{
    pthread_mutex_lock(&queue.lock);
    if (queue.nr == NR_RECORDS) {
        queue.nr_dropped++;
    } else {
        record->nr_dropped = queue.nr_dropped;
        queue.nr_dropped = 0;
        queue.records[(queue.first + queue.nr++) % NR_RECORDS] = *record;
        pthread_cond_signal(&queue.changed);
    }
    pthread_mutex_unlock(&queue.lock);
}

void log_write(enum obd_log_level level, const char *format, ...)
{
    struct obd_log_record record = {.realtime_ns = realtime_ns(), .level = level};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(record.text, sizeof record.text, format, arguments);
    va_end(arguments);
    push(&record);
}

/* Under the lock; returns with a record queued, or says why not. */
static enum obd_status wait_for_record(uint64_t deadline_ns)
{
    struct timespec deadline = clock_timespec(deadline_ns);
    while (queue.nr == 0) {
        if (queue.is_closed)
            return status_set(OBD_E_CLOSED, "the log is closed");
        if (pthread_cond_clockwait(&queue.changed, &queue.lock, CLOCK_MONOTONIC, &deadline) == ETIMEDOUT)
            return status_set(OBD_E_TIMEOUT, "nothing was logged in time");
    }
    return OBD_OK;
}

enum obd_status log_next(struct obd_log_record *record, uint64_t deadline_ns)
{
    pthread_mutex_lock(&queue.lock);
    enum obd_status status = wait_for_record(deadline_ns);
    if (status == OBD_OK) {
        *record = queue.records[queue.first];
        queue.first = (queue.first + 1) % NR_RECORDS;
        queue.nr--;
    }
    pthread_mutex_unlock(&queue.lock);
    return status;
}

void log_close(void)
{
    pthread_mutex_lock(&queue.lock);
    queue.is_closed = true;
    pthread_cond_broadcast(&queue.changed);
    pthread_mutex_unlock(&queue.lock);
}

void log_fatal(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("tcmu-overlaybd: fatal: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}
