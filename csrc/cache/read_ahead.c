/* read_ahead: see read_ahead.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cache/read_ahead.h"

#include <string.h>

#include "base/checked.h"

void read_ahead_init(struct read_ahead *ahead, uint64_t size, uint64_t unit, uint64_t max_window)
{
    memset(ahead, 0, sizeof *ahead);
    pthread_mutex_init(&ahead->lock, NULL);
    atomic_init(&ahead->has_plan, false);
    ahead->size = size;
    ahead->unit = unit;
    ahead->max_window = max_window;
}

void read_ahead_destroy(struct read_ahead *ahead)
{
    pthread_mutex_destroy(&ahead->lock);
}

/* The run that the read belongs to: it begins inside, or a little behind the end (a
 * reader may leave out what it does not need of a chunk). */
static struct read_ahead_run *find_run(struct read_ahead *ahead, uint64_t offset)
{
    for (int i = 0; i < READ_AHEAD_NR_RUNS; i++) {
        struct read_ahead_run *run = &ahead->runs[i];
        if (run->end > 0 && offset >= run->begin && offset <= run->end + ahead->unit)
            return run;
    }
    return NULL;
}

static struct read_ahead_run *least_recent(struct read_ahead *ahead)
{
    struct read_ahead_run *run = &ahead->runs[0];
    for (int i = 1; i < READ_AHEAD_NR_RUNS; i++)
        if (ahead->runs[i].used < run->used)
            run = &ahead->runs[i];
    return run;
}

static void begin_run(struct read_ahead *ahead, uint64_t offset, uint64_t length)
{
    struct read_ahead_run *run = least_recent(ahead);
    *run = (struct read_ahead_run){
        .begin = offset,
        .end = offset + length,
        .ahead = offset + length,
        .window = max_u64(ahead->unit, run->window / 2),
        .used = ahead->nr_reads,
    };
}

/* Adds [begin, end) to what is planned; of two that do not touch the later counts. */
static void plan(struct read_ahead *ahead, uint64_t begin, uint64_t end)
{
    bool has_plan = atomic_load_explicit(&ahead->has_plan, memory_order_relaxed);
    if (!has_plan || begin > ahead->plan_end || end < ahead->plan_begin) {
        ahead->plan_begin = begin;
        ahead->plan_end = end;
    } else {
        ahead->plan_begin = min_u64(ahead->plan_begin, begin);
        ahead->plan_end = max_u64(ahead->plan_end, end);
    }
    atomic_store_explicit(&ahead->has_plan, true, memory_order_relaxed);
}

/* Doubled, and at least twice the read, because long reads are sequential ones; but not
 * longer than what was read in all, nor than the limit. */
static uint64_t next_window(const struct read_ahead *ahead, const struct read_ahead_run *run, uint64_t length)
{
    uint64_t read = round_up(run->end - run->begin, ahead->unit);
    return min_u64(min_u64(2 * max_u64(run->window, length), read), ahead->max_window);
}

static void grow_run(struct read_ahead *ahead, struct read_ahead_run *run, uint64_t length, uint64_t end)
{
    run->end = end;
    run->ahead = max_u64(run->ahead, end);
    if (run->ahead - end >= run->window / 2 || run->ahead >= ahead->size)
        return;
    run->window = next_window(ahead, run, length);
    uint64_t until = min_u64(ahead->size, round_up(end + run->window, ahead->unit));
    plan(ahead, run->ahead, until);
    run->ahead = until;
}

void read_ahead_note(struct read_ahead *ahead, uint64_t offset, uint64_t length)
{
    if (ahead->max_window < ahead->unit || pthread_mutex_trylock(&ahead->lock) != 0)
        return;
    ahead->nr_reads++;
    struct read_ahead_run *run = find_run(ahead, offset);
    if (run == NULL) {
        begin_run(ahead, offset, length);
    } else {
        run->used = ahead->nr_reads;
        if (offset + length > run->end)
            grow_run(ahead, run, length, offset + length);
    }
    pthread_mutex_unlock(&ahead->lock);
}

bool read_ahead_take(struct read_ahead *ahead, uint64_t *begin, uint64_t *end)
{
    if (!atomic_load_explicit(&ahead->has_plan, memory_order_relaxed))
        return false; /* the common case, without the lock */
    pthread_mutex_lock(&ahead->lock);
    bool has_plan = atomic_exchange_explicit(&ahead->has_plan, false, memory_order_relaxed);
    *begin = ahead->plan_begin;
    *end = ahead->plan_end;
    pthread_mutex_unlock(&ahead->lock);
    return has_plan;
}
