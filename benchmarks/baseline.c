/* baseline: what the same bytes cost without us.
 *
 *   plain   pread of a block of the layer file
 *   zfile   pread of a stored block, CRC, LZ4_decompress_safe
 *
 * Nothing else: no index, no range check, no command.  A loop shares its reads among
 * threads as obd_mem_read_loop does, and is timed as that is: from before the first
 * thread is started until the last has ended.  The CRC is our own (codec/crc32c.c), so
 * that the ratio does not measure two implementations of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <lz4.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "codec/crc32c.h"

#define CRC_SIZE 4u

/* One loop; filled by Python (benchmarks/baseline.py has the same layout). */
struct baseline_loop {
    int fd;
    uint32_t length;         /* bytes of one read, as its reader sees it */
    const uint64_t *places;  /* where each read is in the file */
    const uint32_t *lengths; /* and how long, CRC included; NULL: a plain read of length */
    size_t nr;
    uint32_t nr_threads;
    uint64_t elapsed_ns;
};

struct worker {
    const struct baseline_loop *loop;
    size_t begin, end;
    pthread_t thread;
    int is_good;
};

static int read_plain(const struct baseline_loop *loop, size_t i, char *buffer)
{
    return pread(loop->fd, buffer, loop->length, (off_t)loop->places[i]) == (ssize_t)loop->length;
}

static int read_zfile(const struct baseline_loop *loop, size_t i, char *stored, char *buffer)
{
    uint32_t length = loop->lengths[i], expected;
    if (pread(loop->fd, stored, length, (off_t)loop->places[i]) != (ssize_t)length)
        return 0;
    length -= CRC_SIZE;
    memcpy(&expected, stored + length, CRC_SIZE);
    return crc32c_raw(stored, length, CRC32C_BLOCK_SEED) == expected &&
           LZ4_decompress_safe(stored, buffer, (int)length, (int)loop->length) == (int)loop->length;
}

static void *worker_run(void *argument)
{
    struct worker *worker = argument;
    const struct baseline_loop *loop = worker->loop;
    char *buffer = malloc(loop->length), *stored = malloc(2 * (size_t)loop->length + 1024);
    worker->is_good = buffer != NULL && stored != NULL;
    for (size_t i = worker->begin; i < worker->end && worker->is_good; i++)
        worker->is_good = loop->lengths == NULL ? read_plain(loop, i, buffer) : read_zfile(loop, i, stored, buffer);
    free(stored);
    free(buffer);
    return NULL;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* 1 when every read gave what it should. */
int baseline_run(struct baseline_loop *loop)
{
    struct worker *workers = calloc(loop->nr_threads, sizeof *workers);
    uint32_t nr_started = 0;
    int is_good = workers != NULL;
    uint64_t begin_ns = now_ns();
    for (; nr_started < loop->nr_threads && is_good; nr_started += (uint32_t)is_good) {
        struct worker *worker = &workers[nr_started];
        worker->loop = loop;
        worker->begin = loop->nr * nr_started / loop->nr_threads;
        worker->end = loop->nr * (nr_started + 1) / loop->nr_threads;
        is_good = pthread_create(&worker->thread, NULL, worker_run, worker) == 0;
    }
    for (uint32_t i = 0; i < nr_started; i++) {
        pthread_join(workers[i].thread, NULL);
        is_good = is_good && workers[i].is_good;
    }
    loop->elapsed_ns = now_ns() - begin_ns;
    free(workers);
    return is_good;
}
