/* The log: records in order, losses counted, waiters woken.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>

#include "check.h"

#include "base/clock.h"
#include "base/log.h"

static struct obd_log_record record;

TEST(a_record_comes_out_as_it_went_in)
{
    log_write(OBD_LOG_WARNING, "layer %d is slow", 3);
    CHECK_OK(log_next(&record, 0));
    CHECK(record.level == OBD_LOG_WARNING && record.nr_dropped == 0 && record.realtime_ns > 0);
    CHECK(strcmp(record.text, "layer 3 is slow") == 0);
}

TEST(an_empty_log_times_out)
{
    CHECK(log_next(&record, clock_now_ns() + NS_PER_MS) == OBD_E_TIMEOUT);
    CHECK(obd_log_next(&record, 1) == OBD_E_TIMEOUT);
}

TEST(a_full_log_drops_and_says_how_many)
{
    for (int i = 0; i < 300; i++)
        log_write(OBD_LOG_INFO, "%d", i);
    int nr = 0;
    while (log_next(&record, 0) == OBD_OK)
        CHECK(atoi(record.text) == nr++ && record.nr_dropped == 0);
    CHECK(nr > 100 && nr < 300);
    log_write(OBD_LOG_INFO, "after");
    CHECK_OK(log_next(&record, 0));
    CHECK(record.nr_dropped == (uint32_t)(300 - nr));
}

TEST(a_long_text_is_cut)
{
    log_write(OBD_LOG_INFO, "%01000d", 1);
    CHECK_OK(log_next(&record, 0));
    CHECK(strlen(record.text) == sizeof record.text - 1);
}

static void *wait_for_next(void *out)
{
    *(enum obd_status *)out = log_next(&record, NEVER_NS);
    return NULL;
}

TEST(a_record_wakes_whoever_waits)
{
    pthread_t thread;
    enum obd_status status = OBD_E_IO;
    CHECK(pthread_create(&thread, NULL, wait_for_next, &status) == 0);
    log_write(OBD_LOG_ERROR, "wake up");
    pthread_join(thread, NULL);
    CHECK(status == OBD_OK && strcmp(record.text, "wake up") == 0);
}

TEST(close_wakes_whoever_waits_and_leaves_what_is_queued)
{
    pthread_t thread;
    enum obd_status status = OBD_E_IO;
    CHECK(pthread_create(&thread, NULL, wait_for_next, &status) == 0);
    obd_log_close();
    pthread_join(thread, NULL);
    CHECK(status == OBD_E_CLOSED);
    log_write(OBD_LOG_INFO, "the last words");
    CHECK_OK(log_next(&record, 0));
    CHECK(log_next(&record, NEVER_NS) == OBD_E_CLOSED);
}

TEST_MAIN(T(a_record_comes_out_as_it_went_in), T(an_empty_log_times_out), T(a_full_log_drops_and_says_how_many),
          T(a_long_text_is_cut), T(a_record_wakes_whoever_waits),
          T(close_wakes_whoever_waits_and_leaves_what_is_queued))
