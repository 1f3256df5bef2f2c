/* read_ahead: what will probably be read next, from what was read so far.
 *
 * A run is a stretch that was read from its begin to its end, piece after piece;
 * some are kept, because several readers may walk through one blob.  Each has a
 * window: how far ahead of its end is fetched.
 *
 *   a read that goes on where a run ends      the run grows; when less than half of
 *                                             the window is left ahead of it, the
 *                                             window is doubled, at least to twice
 *                                             what is read at a time, and filled
 *   a read inside a run                       nothing: a command that missed runs again
 *   any other read                            begins a run of its own, in place of the
 *                                             least recent one, with half its window
 *
 * So a sequential reader soon has a long window, filled by few long requests, and
 * random reads fetch nothing but what they want.  A window is never longer than the
 * run (in chunks), so no more is fetched in vain than was used.
 *
 * Thread-safe.  Who meets the lock taken by another reader is not noted: a guess is
 * not worth a wait.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_READ_AHEAD_H
#define OBD_CACHE_READ_AHEAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define READ_AHEAD_MAX_WINDOW (64u << 20)
#define READ_AHEAD_NR_RUNS    4

struct read_ahead_run {
    uint64_t begin, end; /* read; end 0: the place is free */
    uint64_t ahead;      /* fetched, or being so, up to there */
    uint64_t window;     /* bytes */
    uint64_t used;       /* when, in reads */
};

struct read_ahead {
    pthread_mutex_t lock;
    uint64_t size; /* of the blob */
    uint64_t unit; /* smallest window: a chunk */
    uint64_t max_window;
    uint64_t nr_reads;
    struct read_ahead_run runs[READ_AHEAD_NR_RUNS];
    uint64_t plan_begin, plan_end; /* to be fetched */
    atomic_bool has_plan;
};

/* max_window less than unit: never anything. */
void read_ahead_init(struct read_ahead *ahead, uint64_t size, uint64_t unit, uint64_t max_window);
void read_ahead_destroy(struct read_ahead *ahead);

/* Somebody reads [offset, offset + length). */
void read_ahead_note(struct read_ahead *ahead, uint64_t offset, uint64_t length);

/* What is to be fetched now; false: nothing. */
bool read_ahead_take(struct read_ahead *ahead, uint64_t *begin, uint64_t *end);

#endif
