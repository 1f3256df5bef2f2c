/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>

#include "command/range_lock.h"

struct waiter {
    struct range_lock_holder holder; /* first */
    unsigned nr_granted;
};

static struct waiter *granted_order[16];
static unsigned nr_granted_in_all;

static void on_granted(struct range_lock_holder *holder)
{
    struct waiter *waiter = (struct waiter *)holder;
    waiter->nr_granted++;
    granted_order[nr_granted_in_all++] = waiter;
}

static struct waiter waiter_at(uint64_t offset, uint64_t length, bool is_exclusive)
{
    return (struct waiter){
        .holder = {.offset = offset, .length = length, .is_exclusive = is_exclusive, .granted = on_granted}};
}

TEST(test_range_lock_readers_of_one_range_go_together)
{
    struct range_lock ranges;
    range_lock_init(&ranges);
    struct waiter a = waiter_at(0, 100, false), b = waiter_at(50, 100, false);
    CHECK(range_lock_take(&ranges, &a.holder));
    CHECK(range_lock_take(&ranges, &b.holder));
    CHECK(range_lock_check(&ranges));
    range_lock_release(&ranges, &a.holder);
    range_lock_release(&ranges, &b.holder);
    range_lock_destroy(&ranges);
}

TEST(test_range_lock_neighbours_do_not_touch)
{
    struct range_lock ranges;
    range_lock_init(&ranges);
    struct waiter a = waiter_at(0, 512, true), b = waiter_at(512, 512, true);
    CHECK(range_lock_take(&ranges, &a.holder));
    CHECK(range_lock_take(&ranges, &b.holder));
    range_lock_release(&ranges, &b.holder);
    range_lock_release(&ranges, &a.holder);
    range_lock_destroy(&ranges);
}

TEST(test_range_lock_serves_those_that_overlap_in_order_of_arrival)
{
    struct range_lock ranges;
    range_lock_init(&ranges);
    nr_granted_in_all = 0;
    struct waiter writer = waiter_at(0, 100, true), reader = waiter_at(0, 10, false);
    struct waiter second = waiter_at(5, 10, true), late_reader = waiter_at(8, 1, false);
    CHECK(range_lock_take(&ranges, &writer.holder));
    CHECK(!range_lock_take(&ranges, &reader.holder));
    CHECK(!range_lock_take(&ranges, &second.holder));
    CHECK(!range_lock_take(&ranges, &late_reader.holder));
    CHECK(range_lock_check(&ranges));
    range_lock_release(&ranges, &writer.holder);
    /* The late reader could share with the first, but the writer between them came earlier. */
    CHECK(nr_granted_in_all == 1 && granted_order[0] == &reader);
    range_lock_release(&ranges, &reader.holder);
    CHECK(nr_granted_in_all == 2 && granted_order[1] == &second);
    range_lock_release(&ranges, &second.holder);
    CHECK(nr_granted_in_all == 3 && granted_order[2] == &late_reader);
    range_lock_release(&ranges, &late_reader.holder);
    CHECK(reader.nr_granted == 1 && second.nr_granted == 1 && late_reader.nr_granted == 1);
    range_lock_destroy(&ranges);
}

TEST(test_range_lock_cancel_lets_those_behind_go)
{
    struct range_lock ranges;
    range_lock_init(&ranges);
    nr_granted_in_all = 0;
    struct waiter reader = waiter_at(0, 100, false), writer = waiter_at(0, 100, true);
    struct waiter behind = waiter_at(0, 100, false);
    CHECK(range_lock_take(&ranges, &reader.holder));
    CHECK(!range_lock_take(&ranges, &writer.holder));
    CHECK(!range_lock_take(&ranges, &behind.holder));
    CHECK(range_lock_cancel(&ranges, &writer.holder));
    CHECK(writer.nr_granted == 0 && behind.nr_granted == 1);
    CHECK(!range_lock_cancel(&ranges, &behind.holder)); /* too late */
    range_lock_release(&ranges, &behind.holder);
    range_lock_release(&ranges, &reader.holder);
    range_lock_destroy(&ranges);
}

TEST(test_range_lock_try_leaves_nothing_behind)
{
    struct range_lock ranges;
    range_lock_init(&ranges);
    struct waiter a = waiter_at(0, 100, true), b = waiter_at(0, 100, false);
    CHECK(range_lock_take(&ranges, &a.holder));
    CHECK(!range_lock_try(&ranges, &b.holder));
    range_lock_release(&ranges, &a.holder);
    CHECK(b.nr_granted == 0);
    CHECK(range_lock_try(&ranges, &b.holder));
    range_lock_release(&ranges, &b.holder);
    range_lock_destroy(&ranges);
}

/* ---- many threads ------------------------------------------------------------ */

#define NR_THREADS 4
#define NR_CELLS   16

static struct range_lock shared;
static atomic_int cells[NR_CELLS]; /* writers: -1, readers: how many */

struct blocked {
    struct range_lock_holder holder; /* first */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_granted;
};

static void unblock(struct range_lock_holder *holder)
{
    struct blocked *blocked = (struct blocked *)holder;
    pthread_mutex_lock(&blocked->lock);
    blocked->is_granted = true;
    pthread_cond_signal(&blocked->changed);
    pthread_mutex_unlock(&blocked->lock);
}

static void take_and_wait(struct blocked *blocked)
{
    blocked->is_granted = false;
    if (range_lock_take(&shared, &blocked->holder))
        return;
    pthread_mutex_lock(&blocked->lock);
    while (!blocked->is_granted)
        pthread_cond_wait(&blocked->changed, &blocked->lock);
    pthread_mutex_unlock(&blocked->lock);
}

static void use_cells(const struct range_lock_holder *holder)
{
    for (uint64_t i = holder->offset; i < holder->offset + holder->length; i++) {
        if (holder->is_exclusive)
            CHECK(atomic_exchange(&cells[i], -1) == 0);
        else
            CHECK(atomic_fetch_add(&cells[i], 1) >= 0);
    }
    for (uint64_t i = holder->offset; i < holder->offset + holder->length; i++) {
        if (holder->is_exclusive)
            CHECK(atomic_exchange(&cells[i], 0) == -1);
        else
            CHECK(atomic_fetch_sub(&cells[i], 1) > 0);
    }
}

static void *fight(void *argument)
{
    unsigned seed = (unsigned)(size_t)argument + 1;
    struct blocked blocked = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    for (int i = 0; i < 5000; i++) {
        uint64_t offset = (uint64_t)rand_r(&seed) % NR_CELLS;
        blocked.holder = (struct range_lock_holder){.offset = offset,
                                                    .length = 1 + (uint64_t)rand_r(&seed) % (NR_CELLS - offset),
                                                    .is_exclusive = rand_r(&seed) % 3 == 0,
                                                    .granted = unblock};
        take_and_wait(&blocked);
        use_cells(&blocked.holder);
        range_lock_release(&shared, &blocked.holder);
        if (i % 64 == 0)
            CHECK(range_lock_check(&shared));
    }
    return NULL;
}

TEST(test_range_lock_keeps_threads_apart)
{
    pthread_t threads[NR_THREADS];
    range_lock_init(&shared);
    for (size_t i = 0; i < NR_THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, fight, (void *)i) == 0);
    for (size_t i = 0; i < NR_THREADS; i++)
        pthread_join(threads[i], NULL);
    range_lock_destroy(&shared);
}

TEST(test_range_lock_a_barrier_waits_for_all_before_it_and_keeps_nobody_waiting)
{
    struct range_lock ranges;
    range_lock_init(&ranges);
    struct waiter reader = waiter_at(0, 10, false), writer = waiter_at(100, 10, true);
    struct waiter barrier = waiter_at(0, 0, false), later = waiter_at(0, 200, true), last = waiter_at(300, 10, true);
    barrier.holder.is_barrier = true;
    CHECK(range_lock_take(&ranges, &reader.holder));
    CHECK(range_lock_take(&ranges, &writer.holder));
    CHECK(!range_lock_take(&ranges, &barrier.holder));
    CHECK(!range_lock_take(&ranges, &later.holder)); /* for the reader and the writer, that is */
    CHECK(range_lock_take(&ranges, &last.holder));
    CHECK(range_lock_check(&ranges));
    range_lock_release(&ranges, &reader.holder);
    CHECK(barrier.nr_granted == 0);
    range_lock_release(&ranges, &writer.holder);
    CHECK(barrier.nr_granted == 1 && later.nr_granted == 1);
    CHECK(range_lock_check(&ranges));
    range_lock_release(&ranges, &barrier.holder);
    range_lock_release(&ranges, &later.holder);
    range_lock_release(&ranges, &last.holder);
    range_lock_destroy(&ranges);
}

TEST_MAIN(T(test_range_lock_a_barrier_waits_for_all_before_it_and_keeps_nobody_waiting),
          T(test_range_lock_readers_of_one_range_go_together), T(test_range_lock_neighbours_do_not_touch),
          T(test_range_lock_serves_those_that_overlap_in_order_of_arrival),
          T(test_range_lock_cancel_lets_those_behind_go), T(test_range_lock_try_leaves_nothing_behind),
          T(test_range_lock_keeps_threads_apart))
