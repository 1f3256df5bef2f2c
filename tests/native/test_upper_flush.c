/* Tests of flushing: sharing syncs, the clock, a full journal, and racing writers. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>

#include "base/thread.h"
#include "check.h"

#include "upper_pair.h"

/* ---- a full journal ---- */

struct waiting {
    struct upper_waiter waiter;
    atomic_int nr_wakes;
};

static void count_wake(struct upper_waiter *waiter)
{
    atomic_fetch_add(&LIST_ENTRY(waiter, struct waiting, waiter)->nr_wakes, 1);
}

static void wait_for_wake(struct waiting *waiting)
{
    for (int i = 0; i < 10000 && atomic_load(&waiting->nr_wakes) == 0; i++)
        usleep(1000);
    CHECK(atomic_load(&waiting->nr_wakes) == 1);
}

/* An upper whose syncs of the index fail until no_faults(), with its journal full. */
static struct upper *open_full(void)
{
    new_pair();
    fail_file("/index", "write", 1, ENOSPC, 1);
    struct obd_upper_params p = params(0);
    p.journal_slots = 4;
    struct upper *upper;
    CHECK_OK(upper_open(&p, &upper));
    return upper;
}

TEST(upper_with_a_full_journal_wakes_its_waiters_when_there_is_room)
{
    new_pair();
    struct obd_upper_params p = params(0);
    struct upper *upper;
    struct waiting waiting = {.waiter.wake = count_wake};
    p.journal_slots = 4;
    CHECK_OK(upper_open(&p, &upper));
    for (int i = 0; i < 1000; i++) {
        enum obd_status status = write_fill(upper, 0, 512, i % 100 + 1);
        if (status == OBD_E_AGAIN && upper_wait(upper, &waiting.waiter)) {
            wait_for_wake(&waiting);
            atomic_store(&waiting.nr_wakes, 0);
        }
        CHECK(status == OBD_OK || status == OBD_E_AGAIN);
    }
    CHECK(!upper_cancel_wait(upper, &waiting.waiter));
    CHECK_OK(upper_close(upper));
}

TEST(upper_with_a_full_journal_that_cannot_be_flushed_says_so_instead_of_parking)
{
    struct upper *upper = open_full();
    enum obd_status status = OBD_OK;
    for (int i = 0; i < 5000 && (status == OBD_OK || status == OBD_E_AGAIN); i++) {
        status = write_fill(upper, 0, 512, 1);
        usleep(status == OBD_E_AGAIN ? 1000 : 0);
    }
    CHECK(status == OBD_E_NO_SPACE && strstr(status_text(), "journal is full") != NULL);
    no_faults();
    while ((status = write_fill(upper, 0, 512, 2)) != OBD_OK)
        usleep(1000); /* the flusher tries again */
    CHECK_OK(upper_close(upper));
}

TEST(upper_wait_can_be_cancelled_once)
{
    new_pair();
    struct upper *upper = open_upper(0);
    struct waiting waiting = {.waiter.wake = count_wake};
    CHECK(!upper_wait(upper, &waiting.waiter)); /* there is room */
    CHECK(!upper_cancel_wait(upper, &waiting.waiter));
    upper->slots_reserved = 64; /* as if writes were running that hold them all */
    CHECK(upper_wait(upper, &waiting.waiter));
    CHECK(upper_cancel_wait(upper, &waiting.waiter));
    CHECK(!upper_cancel_wait(upper, &waiting.waiter));
    upper->slots_reserved = 0;
    CHECK(atomic_load(&waiting.nr_wakes) == 0);
    CHECK_OK(upper_close(upper));
}

/* The only slot is promised to a write that then fails: no flush frees it. */
TEST(upper_wakes_a_waiter_when_a_failed_write_gives_its_slot_back)
{
    new_pair();
    struct upper *upper = open_upper(0);
    struct waiting waiting = {.waiter.wake = count_wake};
    upper->slots_reserved = 63;
    fail_file("/data", "write", 1, EIO, 0);
    pthread_mutex_lock(&upper->map_lock);
    upper->slots_reserved = 64;
    pthread_mutex_unlock(&upper->map_lock);
    CHECK(upper_wait(upper, &waiting.waiter));
    pthread_mutex_lock(&upper->map_lock);
    upper->slots_reserved = 63;
    pthread_mutex_unlock(&upper->map_lock);
    CHECK(write_fill(upper, 0, 512, 1) == OBD_E_IO);
    wait_for_wake(&waiting);
    no_faults();
    upper->slots_reserved = 0;
    CHECK_OK(upper_close(upper));
}

/* ---- flushes ---- */

TEST(upper_flushes_by_the_clock)
{
    new_pair();
    struct obd_upper_params p = params(0);
    struct upper *upper;
    struct obd_upper_stats stats = {.unflushed_bytes = 1};
    p.flush_interval_ms = 20;
    CHECK_OK(upper_open(&p, &upper));
    write_ten(upper);
    for (int i = 0; i < 5000 && stats.unflushed_bytes > 0; i++) {
        usleep(2000);
        upper_stats(upper, &stats);
    }
    CHECK(stats.unflushed_bytes == 0 && stats.nr_flushes >= 1 && size_of(index_path) == 4096 + 11 * 16);
    CHECK_OK(upper_close(upper));
}

TEST(upper_flush_of_nothing_new_syncs_nothing)
{
    new_pair();
    struct upper *upper = open_upper(0);
    struct obd_upper_stats stats;
    write_ten(upper);
    for (int i = 0; i < 5; i++)
        CHECK_OK(upper_flush(upper));
    upper_stats(upper, &stats);
    CHECK(stats.nr_flushes == 1 && stats.nr_flush_calls == 5);
    CHECK_OK(upper_close(upper));
}

#define NR_THREADS 8
#define NR_ROUNDS  100

static void *write_and_flush(void *argument)
{
    struct upper *upper = argument;
    for (int i = 0; i < NR_ROUNDS; i++) {
        while (write_fill(upper, (uint64_t)(rand() % 64) * 512, 4096, i % 100 + 1) == OBD_E_AGAIN)
            CHECK_OK(upper_flush(upper));
        if (i % 4 == 0)
            CHECK_OK(upper_flush(upper));
        if (i % 7 == 0)
            CHECK(upper_discard(upper, 1024, (uint64_t)(rand() % 64) * 512) != OBD_E_IO);
    }
    return NULL;
}

static void run_threads(struct upper *upper)
{
    pthread_t threads[NR_THREADS];
    for (int i = 0; i < NR_THREADS; i++)
        CHECK_OK(thread_start("test", write_and_flush, upper, &threads[i]));
    for (int i = 0; i < NR_THREADS; i++)
        pthread_join(threads[i], NULL);
}

TEST(upper_flushes_of_many_threads_share_their_syncs)
{
    new_pair();
    struct upper *upper = open_upper(0);
    struct obd_upper_stats stats;
    run_threads(upper);
    upper_stats(upper, &stats);
    CHECK(stats.nr_flushes < stats.nr_flush_calls);
    CHECK_OK(upper_close(upper));
}

/* What the upper shows of the first 80 sectors: the places, in order. */
static size_t snapshot(struct upper *upper, struct segment *out)
{
    return upper_lookup(upper, 0, 80, out, 200);
}

static int snapshot_pipe[2];

static void race_and_tell(struct upper *upper)
{
    struct segment seen[200] = {{0}};
    size_t nr = snapshot(upper, seen);
    run_threads(upper);
    nr = snapshot(upper, seen);
    CHECK(write(snapshot_pipe[1], &nr, sizeof nr) == sizeof nr);
    CHECK(write(snapshot_pipe[1], seen, sizeof seen) == sizeof seen);
}

/* Overlapping writes of several threads: memory, journal and index agree on who was last. */
TEST(upper_replays_racing_writes_in_the_order_in_which_they_were_seen)
{
    struct segment seen[200], replayed[200];
    size_t nr;
    new_pair();
    CHECK(pipe(snapshot_pipe) == 0);
    in_killed_process(race_and_tell);
    CHECK(read(snapshot_pipe[0], &nr, sizeof nr) == sizeof nr);
    CHECK(read(snapshot_pipe[0], seen, sizeof seen) == sizeof seen);
    struct upper *upper = open_upper(0);
    CHECK(snapshot(upper, replayed) == nr && nr > 10);
    CHECK(memcmp(seen, replayed, nr * sizeof seen[0]) == 0);
    CHECK_OK(upper_close(upper));
    upper = open_upper(OBD_UPPER_READ_ONLY);
    CHECK(snapshot(upper, replayed) == nr && memcmp(seen, replayed, nr * sizeof seen[0]) == 0);
    CHECK_OK(upper_close(upper));
    close(snapshot_pipe[0]);
    close(snapshot_pipe[1]);
}

TEST_MAIN(T(upper_has_a_folder), T(upper_with_a_full_journal_wakes_its_waiters_when_there_is_room),
          T(upper_with_a_full_journal_that_cannot_be_flushed_says_so_instead_of_parking),
          T(upper_wait_can_be_cancelled_once), T(upper_wakes_a_waiter_when_a_failed_write_gives_its_slot_back),
          T(upper_flushes_by_the_clock), T(upper_flush_of_nothing_new_syncs_nothing),
          T(upper_flushes_of_many_threads_share_their_syncs),
          T(upper_replays_racing_writes_in_the_order_in_which_they_were_seen), T(upper_left_nothing_in_the_folder))
