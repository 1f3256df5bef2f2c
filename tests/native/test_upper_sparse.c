/* Tests of a sparse upper: in place, with its side index, by many threads and killed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "upper_pair.h"

#include <errno.h>
#include <pthread.h>

#include "image/upper_sparse.h"

static char sectors_path[80];

/* A fresh pair; the file is as long as its disk, its header is Python's business. */
static struct upper *new_sparse(void)
{
    snprintf(sectors_path, sizeof sectors_path, "%s.sectors", index_path);
    new_pair();
    remove(sectors_path);
    CHECK(truncate(data_path, (off_t)(UPPER_HEADER_SIZE + DISK_SIZE)) == 0);
    return open_upper(OBD_UPPER_SPARSE);
}

static uint64_t nr_index_bytes(void)
{
    return size_of(sectors_path) - UPPER_HEADER_SIZE;
}

TEST(sparse_write_lies_in_place_and_is_found_again)
{
    struct upper *upper = new_sparse();
    char byte = 0;
    CHECK_OK(write_fill(upper, 8192, 4096, 7));
    CHECK_OK(write_fill(upper, 8704, 512, 8));
    CHECK_OK(upper_discard(upper, 512, 9216));
    CHECK_OK(upper_close(upper));
    int fd = open(data_path, O_RDONLY);
    CHECK(pread(fd, &byte, 1, UPPER_HEADER_SIZE + 8704) == 1 && byte == 8);
    close(fd);
    upper = open_upper(OBD_UPPER_SPARSE);
    CHECK(sector_byte(upper, 8192) == 7 && sector_byte(upper, 8704) == 8 && sector_byte(upper, 9216) == 0);
    CHECK(sector_byte(upper, 9728) == 7 && sector_byte(upper, 4096) == -1);
    CHECK_OK(upper_close(upper));
}

static struct upper *killed(void (*work)(struct upper *))
{
    CHECK_OK(upper_close(new_sparse()));
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        work(open_upper(OBD_UPPER_SPARSE));
        kill(getpid(), SIGKILL);
    }
    int how;
    CHECK(waitpid(pid, &how, 0) == pid && WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    return open_upper(OBD_UPPER_SPARSE);
}

TEST(sparse_acknowledged_writes_survive_a_kill)
{
    struct upper *upper = killed(write_ten);
    CHECK(shows_ten(upper));
    CHECK_OK(upper_close(upper));
    upper = killed(flush_half);
    CHECK(shows_ten(upper));
    CHECK_OK(upper_close(upper));
}

TEST(sparse_rewrite_needs_a_flush_and_no_entry)
{
    struct upper *upper = new_sparse();
    struct obd_upper_stats stats;
    CHECK_OK(write_fill(upper, 0, 65536, 1));
    CHECK_OK(upper_flush(upper));
    uint64_t length = nr_index_bytes();
    for (uint64_t at = 0; at < 65536; at += 4096)
        CHECK_OK(write_fill(upper, at, 4096, 2));
    upper_stats(upper, &stats);
    CHECK(stats.unflushed_bytes == 65536 && upper->entries_owed == 0);
    CHECK_OK(upper_flush(upper));
    upper_stats(upper, &stats);
    CHECK(stats.unflushed_bytes == 0 && nr_index_bytes() == length);
    CHECK_OK(write_fill(upper, 61440, 8192, 3)); /* half of it is new */
    CHECK_OK(upper_flush(upper));
    CHECK(nr_index_bytes() == length + UPPER_ENTRY_SIZE);
    CHECK_OK(upper_close(upper));
}

TEST(sparse_frozen_map_is_joined_and_cut_as_extents_are)
{
    struct upper *upper = new_sparse();
    struct segment_array frozen;
    for (int i = 9; i >= 0; i--)
        CHECK_OK(write_fill(upper, (uint64_t)i << 20, 1 << 20, 1));
    CHECK_OK(upper_discard(upper, 1 << 20, 10 << 20));
    CHECK_OK(upper_freeze(upper, &frozen));
    CHECK(frozen.nr == 3 && frozen.segments[0].length == SEGMENT_MAX_LENGTH);
    CHECK(frozen.segments[1].offset == SEGMENT_MAX_LENGTH && segment_end(frozen.segments[1]) == 20480);
    CHECK(frozen.segments[1].moffset == frozen.segments[1].offset + 8);
    CHECK(frozen.segments[2].zeroed && frozen.segments[2].length == 2048);
    CHECK(segment_array_check(&frozen));
    segment_array_free(&frozen);
    CHECK_OK(upper_close(upper));
}

static enum obd_status try_fill(struct upper *upper, uint64_t offset, size_t length)
{
    static char buffer[8192];
    struct iovec iov = {.iov_base = buffer, .iov_len = length};
    struct iov_cursor cursor = iov_cursor_at(&iov, 1);
    return upper_try_write(upper, &cursor, length, offset);
}

TEST(sparse_tried_write_is_of_whole_pages_or_given_up)
{
    struct upper *upper = new_sparse();
    CHECK_OK(write_fill(upper, 0, 4096, 1)); /* so that there is room in the index */
    CHECK(try_fill(upper, 4096, 512) == OBD_E_AGAIN && try_fill(upper, 4608, 4096) == OBD_E_AGAIN);
    CHECK(upper->slots_reserved == 0);
    enum obd_status status;
    while ((status = try_fill(upper, 4096, 8192)) == OBD_E_AGAIN)
        usleep(1000); /* a busy machine looks like a slow disk */
    CHECK_OK(status);
    CHECK_OK(upper_close(upper));
}

TEST(sparse_failed_sync_leaves_it_read_only)
{
    struct upper *upper = new_sparse();
    CHECK_OK(write_fill(upper, 0, 4096, 1));
    CHECK_OK(upper_flush(upper));
    CHECK_OK(write_fill(upper, 4096, 4096, 2));
    fail_file("/data", "sync", 1, EIO, 0);
    CHECK(upper_flush(upper) == OBD_E_IO);
    no_faults();
    CHECK(write_fill(upper, 0, 512, 3) == OBD_E_READ_ONLY);
    CHECK(sector_byte(upper, 0) == 1 && sector_byte(upper, 4096) == -1);
    upper_close(upper);
    upper = open_upper(OBD_UPPER_SPARSE | OBD_UPPER_DROP_UNFLUSHED);
    CHECK(sector_byte(upper, 0) == 1 && sector_byte(upper, 4096) == -1);
    CHECK_OK(upper_close(upper));
}

TEST(sparse_close_that_cannot_sync_keeps_the_journal)
{
    struct upper *upper = new_sparse();
    CHECK_OK(write_fill(upper, 0, 4096, 1));
    CHECK_OK(upper_flush(upper));
    fail_file("/data", "sync", 1, EIO, 0);
    CHECK(upper_close(upper) == OBD_E_IO);
    no_faults();
    CHECK(access(journal_path, F_OK) == 0);
    upper = open_upper(OBD_UPPER_SPARSE);
    CHECK(sector_byte(upper, 0) == 1);
    CHECK_OK(upper_close(upper));
}

/* ---- many threads ---- */

#define NR_THREADS 4
#define AREA       (UINT64_C(256) << 10) /* of each thread, so that it knows what it will find */

struct worker {
    pthread_t thread;
    struct upper *upper;
    uint64_t begin;
    int sectors[AREA / 512]; /* the byte of each; -1: not in the upper */
};

static void set_range(struct worker *worker, uint64_t first, uint64_t nr, int byte)
{
    for (uint64_t i = first; i < first + nr; i++)
        worker->sectors[i] = byte;
}

static void *write_at_random(void *argument)
{
    struct worker *worker = argument;
    unsigned seed = (unsigned)worker->begin + 1;
    for (int i = 1; i < 300; i++) {
        uint64_t first = (uint64_t)rand_r(&seed) % 400, nr = 1 + (uint64_t)rand_r(&seed) % 100;
        uint64_t offset = worker->begin + first * 512;
        bool is_discard = rand_r(&seed) % 4 == 0;
        enum obd_status status = OBD_E_AGAIN;
        while (status == OBD_E_AGAIN) { /* the journal is full now and then */
            status = is_discard ? upper_discard(worker->upper, nr * 512, offset)
                                : write_fill(worker->upper, offset, nr * 512, i % 127 + 1);
            if (status == OBD_E_AGAIN)
                CHECK_OK(upper_flush(worker->upper));
        }
        CHECK_OK(status);
        set_range(worker, first, nr, is_discard ? 0 : i % 127 + 1);
        if (i % 50 == 0)
            CHECK_OK(upper_flush(worker->upper));
    }
    return NULL;
}

static void check_area(struct upper *upper, const struct worker *worker)
{
    for (uint64_t i = 0; i < AREA / 512; i++)
        CHECK(sector_byte(upper, worker->begin + i * 512) == worker->sectors[i]);
}

TEST(sparse_writes_of_many_threads_are_all_there_also_when_reopened)
{
    static struct worker workers[NR_THREADS];
    struct upper *upper = new_sparse();
    for (int i = 0; i < NR_THREADS; i++) {
        workers[i] = (struct worker){.upper = upper, .begin = (uint64_t)i * AREA};
        set_range(&workers[i], 0, AREA / 512, -1);
        CHECK(pthread_create(&workers[i].thread, NULL, write_at_random, &workers[i]) == 0);
    }
    for (int i = 0; i < NR_THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < NR_THREADS; i++)
            check_area(upper, &workers[i]);
        CHECK_OK(upper_close(upper));
        upper = open_upper(OBD_UPPER_SPARSE);
    }
    CHECK_OK(upper_close(upper));
}

TEST(sparse_leaves_no_side_index_in_the_folder)
{
    CHECK(remove(sectors_path) == 0);
}

TEST_MAIN(T(upper_has_a_folder), T(sparse_write_lies_in_place_and_is_found_again),
          T(sparse_acknowledged_writes_survive_a_kill), T(sparse_rewrite_needs_a_flush_and_no_entry),
          T(sparse_frozen_map_is_joined_and_cut_as_extents_are), T(sparse_tried_write_is_of_whole_pages_or_given_up),
          T(sparse_failed_sync_leaves_it_read_only), T(sparse_close_that_cannot_sync_keeps_the_journal),
          T(sparse_writes_of_many_threads_are_all_there_also_when_reopened),
          T(sparse_leaves_no_side_index_in_the_folder), T(upper_left_nothing_in_the_folder))
