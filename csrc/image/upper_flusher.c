/* upper_flusher: the thread that flushes by the clock, when the journal fills, and when
 * a writer waits.  It sleeps without a deadline while nothing is unflushed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "image/upper_state.h"

/* How long the flusher leaves a disk alone that has refused a flush. */
#define RETRY_NS NS_PER_SECOND

void upper_want_flush(struct upper *upper)
{
    if (upper->is_flush_wanted)
        return;
    upper->is_flush_wanted = true;
    pthread_cond_signal(&upper->flusher_wake);
}

/* Under map_lock: when the next flush is due, NEVER_NS while nothing is unflushed. */
static uint64_t due_ns(const struct upper *upper)
{
    if (upper->seal_state == UPPER_SEALED)
        return NEVER_NS; /* the seal has made all of it durable */
    if (upper->is_flush_wanted)
        return 0;
    if (upper->dirty_since_ns == 0 || upper->flush_interval_ns == 0)
        return NEVER_NS;
    return upper->dirty_since_ns + upper->flush_interval_ns;
}

/* Under map_lock: a flush has failed; tries again later, not at once. */
static void pause_after_failure(struct upper *upper)
{
    uint64_t until = clock_now_ns() + RETRY_NS;
    while (!upper->is_closing && clock_now_ns() < until)
        condition_wait(&upper->flusher_wake, &upper->map_lock, until);
}

/* Under map_lock, which is given up while it flushes. */
static void flush_in_background(struct upper *upper)
{
    upper->is_flush_wanted = false;
    pthread_mutex_unlock(&upper->map_lock);
    enum obd_status status = upper_flush(upper);
    if (status != OBD_OK)
        log_write(OBD_LOG_WARNING, "timed flush: %s", status_text());
    pthread_mutex_lock(&upper->map_lock);
    if (status != OBD_OK)
        pause_after_failure(upper);
}

static void *run_flusher(void *argument)
{
    struct upper *upper = argument;
    pthread_mutex_lock(&upper->map_lock);
    while (!upper->is_closing && !upper->is_failed) {
        uint64_t due = due_ns(upper);
        if (due <= clock_now_ns())
            flush_in_background(upper);
        else
            condition_wait(&upper->flusher_wake, &upper->map_lock, due); /* woken at close */
    }
    pthread_mutex_unlock(&upper->map_lock);
    return NULL;
}

enum obd_status upper_start_flusher(struct upper *upper)
{
    enum obd_status status = thread_start("obd-flush", run_flusher, upper, &upper->flusher);
    upper->has_flusher = status == OBD_OK;
    return status;
}

void upper_stop_flusher(struct upper *upper)
{
    if (!upper->has_flusher)
        return;
    pthread_mutex_lock(&upper->map_lock);
    upper->is_closing = true;
    pthread_cond_signal(&upper->flusher_wake);
    pthread_mutex_unlock(&upper->map_lock);
    pthread_join(upper->flusher, NULL);
    upper->has_flusher = false;
}
