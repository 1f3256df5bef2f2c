/* Tests of upper_try_write: what a front's own thread may do, and when it must not.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <errno.h>

#include "check.h"

#include "base/clock.h"
#include "upper_pair.h"

static enum obd_status try_fill(struct upper *upper, uint64_t offset, size_t length, int byte)
{
    char buffer[4096];
    CHECK(length <= sizeof buffer);
    memset(buffer, byte, length);
    struct iovec iov = {.iov_base = buffer, .iov_len = length};
    struct iov_cursor cursor = iov_cursor_at(&iov, 1);
    return upper_try_write(upper, &cursor, length, offset);
}

/* The same until it is not given up: the flusher has the map's lock now and then, and a
 * busy machine looks like a slow disk for a while. */
static enum obd_status try_soon(struct upper *upper, uint64_t offset, size_t length, int byte)
{
    enum obd_status status;
    while ((status = try_fill(upper, offset, length, byte)) == OBD_E_AGAIN)
        usleep(1000);
    return status;
}

/* An upper that has disk space, because it was written to. */
static struct upper *open_written(struct obd_upper_params p)
{
    struct upper *upper;
    new_pair();
    CHECK_OK(upper_open(&p, &upper));
    CHECK_OK(write_fill(upper, 0, 512, 1));
    return upper;
}

struct promises {
    uint64_t slots, inserts, entries, log_end;
};

static struct promises promises_of(struct upper *upper)
{
    return (struct promises){upper->slots_reserved, upper->inserts_owed, upper->entries_owed, upper->log_end};
}

static void gives_up_and_changes_nothing(struct upper *upper)
{
    struct promises before = promises_of(upper);
    CHECK(try_fill(upper, 0, 512, 9) == OBD_E_AGAIN);
    struct promises after = promises_of(upper);
    CHECK(memcmp(&before, &after, sizeof before) == 0);
    CHECK(sector_byte(upper, 0) == 1);
}

TEST(upper_tried_write_is_as_good_as_a_write)
{
    struct upper *upper = open_written(params(0));
    CHECK_OK(try_soon(upper, 0, 4096, 2));
    CHECK_OK(try_soon(upper, 512, 512, 3));
    CHECK_OK(upper_close(upper));
    upper = open_upper(0);
    CHECK(sector_byte(upper, 0) == 2 && sector_byte(upper, 512) == 3 && sector_byte(upper, 1024) == 2);
    CHECK_OK(upper_close(upper));
}

static void try_ten(struct upper *upper)
{
    CHECK_OK(write_fill(upper, 0, 512, 1));
    for (int i = 0; i < 10; i++)
        CHECK_OK(try_soon(upper, (uint64_t)i * 4096, 4096, i + 1));
    CHECK_OK(upper_discard(upper, 4096, 4096));
}

TEST(upper_tried_write_survives_a_kill)
{
    new_pair();
    in_killed_process(try_ten);
    struct upper *upper = open_upper(0);
    CHECK(shows_ten(upper));
    CHECK_OK(upper_close(upper));
}

TEST(upper_tried_write_gives_up_where_disk_space_must_be_asked_for)
{
    struct upper *upper;
    struct obd_upper_params p = params(0);
    new_pair();
    CHECK_OK(upper_open(&p, &upper));
    CHECK(try_fill(upper, 0, 512, 9) == OBD_E_AGAIN);
    CHECK(sector_byte(upper, 0) == -1 && promises_of(upper).slots == 0);
    CHECK_OK(write_fill(upper, 0, 512, 1));
    upper->log_room = upper->log_end + 511;
    gives_up_and_changes_nothing(upper);
    CHECK_OK(upper_close(upper));
}

TEST(upper_tried_write_waits_for_no_lock)
{
    struct upper *upper = open_written(params(0));
    pthread_mutex_lock(&upper->reserve_lock);
    gives_up_and_changes_nothing(upper);
    pthread_mutex_lock(&upper->map_lock);
    pthread_mutex_unlock(&upper->reserve_lock);
    CHECK(try_fill(upper, 0, 512, 9) == OBD_E_AGAIN);
    pthread_mutex_unlock(&upper->map_lock);
    CHECK_OK(try_soon(upper, 0, 512, 2));
    CHECK_OK(upper_close(upper));
}

static void *flush_there(void *argument)
{
    CHECK_OK(upper_flush(argument));
    return NULL;
}

TEST(upper_tried_write_gives_up_while_a_sync_is_under_way)
{
    char stalled[sizeof data_path + sizeof ".stall"];
    pthread_t thread;
    struct upper *upper = open_written(params(0));
    snprintf(stalled, sizeof stalled, "%s.stall", data_path);
    write_file(stalled, "", 0);
    fail_file("/data", "stall", 1, EIO, 1);
    CHECK(pthread_create(&thread, NULL, flush_there, upper) == 0);
    while (!atomic_load(&upper->is_syncing))
        usleep(1000);
    gives_up_and_changes_nothing(upper);
    CHECK_OK(write_fill(upper, 8192, 512, 3)); /* a worker may: it has the page cache */
    remove(stalled);
    pthread_join(thread, NULL);
    CHECK_OK(try_soon(upper, 0, 512, 4));
    no_faults();
    CHECK_OK(upper_close(upper));
}

TEST(upper_whose_disk_has_kept_a_writer_waiting_is_not_tried_for_a_while)
{
    struct upper *upper = open_written(params(0));
    atomic_store(&upper->trusted_from_ns, clock_now_ns() + 60 * NS_PER_SECOND);
    gives_up_and_changes_nothing(upper);
    atomic_store(&upper->trusted_from_ns, clock_now_ns());
    CHECK_OK(try_soon(upper, 0, 512, 2));
    CHECK_OK(upper_close(upper));
}

TEST(upper_tried_write_meets_a_full_journal_as_a_write_does)
{
    struct obd_upper_params p = params(0);
    p.journal_slots = 4;
    struct upper *upper = open_written(p);
    unsigned nr_given_up = 0;
    for (int i = 0; i < 1000; i++)
        nr_given_up += try_fill(upper, 4096, 512, i % 100 + 1) == OBD_E_AGAIN;
    CHECK(nr_given_up > 0 && promises_of(upper).slots == 0);
    CHECK_OK(upper_close(upper));
}

TEST(upper_that_has_failed_or_cannot_be_written_refuses_a_tried_write)
{
    struct upper *upper = open_written(params(0));
    CHECK_OK(upper_flush(upper));
    CHECK_OK(write_fill(upper, 0, 512, 2));
    fail_file("/data", "sync", 1, EIO, 0);
    CHECK(upper_flush(upper) != OBD_OK);
    CHECK(try_soon(upper, 0, 512, 3) == OBD_E_READ_ONLY && status_text()[0] != '\0');
    no_faults();
    CHECK_FAILS(upper_close(upper), OBD_E_READ_ONLY, "flushed last");
    upper = open_written(params(0));
    fail_file("/data", "write", 1, ENOSPC, 0);
    CHECK_FAILS(try_soon(upper, 0, 512, 3), OBD_E_NO_SPACE, data_path);
    CHECK(promises_of(upper).slots == 0 && sector_byte(upper, 0) == 1);
    no_faults();
    CHECK_OK(upper_close(upper));
}

TEST_MAIN(T(upper_has_a_folder), T(upper_tried_write_is_as_good_as_a_write), T(upper_tried_write_survives_a_kill),
          T(upper_tried_write_gives_up_where_disk_space_must_be_asked_for), T(upper_tried_write_waits_for_no_lock),
          T(upper_tried_write_gives_up_while_a_sync_is_under_way),
          T(upper_whose_disk_has_kept_a_writer_waiting_is_not_tried_for_a_while),
          T(upper_tried_write_meets_a_full_journal_as_a_write_does),
          T(upper_that_has_failed_or_cannot_be_written_refuses_a_tried_write), T(upper_left_nothing_in_the_folder))
