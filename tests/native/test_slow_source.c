/* The slow source: late, forgetful, and closed while it works.  Also for TSan.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <semaphore.h>

#include "zfile_image.h"

#include "base/clock.h"
#include "source/demand_wait.h"

#define CHUNK      4096
#define NR_CHUNKS  32
#define SECONDS(n) (clock_now_ns() + (n)*NS_PER_SECOND)

static char path[] = "/tmp/obd-slow-XXXXXX";
static uint8_t plain[CHUNK * NR_CHUNKS - 100]; /* the last chunk is short */

static struct source *open_below(void)
{
    static bool is_made;
    struct source *file;
    if (!is_made) {
        fill_plain(plain, sizeof plain);
        int fd = mkstemp(path);
        CHECK(fd >= 0 && write(fd, plain, sizeof plain) == (ssize_t)sizeof plain);
        close(fd);
        is_made = true;
    }
    CHECK_OK(source_open_file(path, &file));
    return file;
}

static struct source *open_slow(uint32_t delay_ms, uint32_t keep_ms)
{
    struct source *file = open_below(), *slow;
    CHECK_OK(source_open_slow(file, CHUNK, delay_ms, keep_ms, &slow));
    source_unref(file);
    return slow;
}

/* A demand whose ready posts a semaphore. */
struct waiting {
    struct demand demand;
    sem_t is_ready;
};

static void post(struct demand *demand)
{
    sem_post(&LIST_ENTRY(demand, struct waiting, demand)->is_ready);
}

static void waiting_init(struct waiting *waiting)
{
    demand_init(&waiting->demand, post);
    sem_init(&waiting->is_ready, 0, 0);
}

static void waiting_destroy(struct waiting *waiting)
{
    demand_destroy(&waiting->demand);
    sem_destroy(&waiting->is_ready);
}

static enum obd_status read_once(struct source *source, struct waiting *waiting, void *buffer, size_t length,
                                 uint64_t offset)
{
    struct iovec iov = {.iov_base = buffer, .iov_len = length};
    struct iov_cursor cursor = iov_cursor_at(&iov, 1);
    struct read_context context = {.demand = &waiting->demand};
    return source_read(source, &context, &cursor, length, offset);
}

TEST(the_first_read_misses_every_chunk_of_its_range)
{
    struct source *slow = open_slow(0, OBD_SLOW_NEVER);
    struct waiting waiting;
    uint8_t buffer[3 * CHUNK];
    waiting_init(&waiting);
    CHECK(read_once(slow, &waiting, buffer, 2 * CHUNK, CHUNK / 2) == OBD_E_MISS);
    CHECK(waiting.demand.bytes == 3 * CHUNK);
    demand_start(&waiting.demand);
    sem_wait(&waiting.is_ready);
    CHECK_OK(read_once(slow, &waiting, buffer, 2 * CHUNK, CHUNK / 2));
    CHECK(memcmp(buffer, plain + CHUNK / 2, 2 * CHUNK) == 0);
    waiting_destroy(&waiting);
    source_unref(slow);
}

TEST(the_last_chunk_costs_what_it_holds)
{
    struct source *slow = open_slow(OBD_SLOW_NEVER, OBD_SLOW_NEVER);
    struct waiting waiting;
    uint8_t byte;
    waiting_init(&waiting);
    CHECK(read_once(slow, &waiting, &byte, 1, sizeof plain - 1) == OBD_E_MISS);
    CHECK(waiting.demand.bytes == CHUNK - 100);
    waiting_destroy(&waiting);
    source_unref(slow);
}

TEST(an_unpinned_chunk_is_forgotten_and_a_pinned_one_is_not)
{
    struct source *slow = open_slow(1, 0);
    struct waiting first, second;
    uint8_t buffer[CHUNK];
    waiting_init(&first);
    waiting_init(&second);
    CHECK(read_once(slow, &first, buffer, CHUNK, 0) == OBD_E_MISS);
    demand_start(&first.demand);
    sem_wait(&first.is_ready);
    usleep(20000);
    CHECK_OK(read_once(slow, &second, buffer, CHUNK, 0)); /* the first one's pin */
    demand_release(&first.demand);
    for (int i = 0; i < 5000 && read_once(slow, &second, buffer, CHUNK, 0) == OBD_OK; i++)
        usleep(1000);
    CHECK(read_once(slow, &second, buffer, CHUNK, 0) == OBD_E_MISS);
    waiting_destroy(&first);
    waiting_destroy(&second);
    source_unref(slow);
}

TEST(read_wait_waits_for_all_chunks)
{
    struct source *slow = open_slow(2, 0);
    static uint8_t buffer[sizeof plain];
    CHECK_OK(source_read_wait(slow, buffer, sizeof buffer, 0, SECONDS(20)));
    CHECK(memcmp(buffer, plain, sizeof plain) == 0);
    source_unref(slow);
}

TEST(read_wait_times_out_when_the_data_never_arrives_and_leaves_nothing)
{
    struct source *slow = open_slow(OBD_SLOW_NEVER, 0);
    uint8_t buffer[CHUNK];
    CHECK_FAILS(source_read_wait(slow, buffer, CHUNK, 0, clock_now_ns() + 10 * NS_PER_MS), OBD_E_TIMEOUT,
                "did not arrive in time");
    CHECK(atomic_load(&slow->nr_references) == 1);
    source_unref(slow);
}

static void *read_and_be_interrupted(void *argument)
{
    struct source *slow = argument;
    uint8_t buffer[CHUNK];
    CHECK_FAILS(source_read_wait(slow, buffer, CHUNK, 0, SECONDS(60)), OBD_E_CANCELLED, "interrupted while waiting");
    return NULL;
}

TEST(an_interrupt_ends_the_waits_of_now_and_of_later_until_it_is_taken_back)
{
    enum { NR_THREADS = 8 };
    struct source *slow = open_slow(OBD_SLOW_NEVER, 0);
    pthread_t threads[NR_THREADS];
    uint8_t buffer[CHUNK];
    for (int i = 0; i < NR_THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, read_and_be_interrupted, slow) == 0);
    usleep(20000); /* some wait by now, some may come later: both hear of it */
    demand_wait_interrupt(true);
    for (int i = 0; i < NR_THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    demand_wait_interrupt(false);
    CHECK_FAILS(source_read_wait(slow, buffer, CHUNK, 0, clock_now_ns() + NS_PER_MS), OBD_E_TIMEOUT, "in time");
    CHECK(atomic_load(&slow->nr_references) == 1);
    source_unref(slow);
}

TEST(a_read_past_the_end_is_corrupt_not_short)
{
    struct source *slow = open_slow(0, 0);
    uint8_t buffer[CHUNK];
    CHECK_FAILS(source_read_wait(slow, buffer, CHUNK, sizeof plain - 10, SECONDS(1)), OBD_E_CORRUPT, "shorter than");
    source_unref(slow);
}

/* ---- the last reference goes on the source's own thread --------------------- */

struct letting_go {
    struct demand demand;
    struct source *source;
    sem_t is_done;
};

static void let_go(struct demand *demand)
{
    struct letting_go *self = LIST_ENTRY(demand, struct letting_go, demand);
    demand_release(demand); /* the miss's reference */
    source_unref(self->source);
    sem_post(&self->is_done);
}

TEST(the_last_reference_may_go_when_the_data_arrives)
{
    for (int i = 0; i < 20; i++) {
        struct letting_go self = {.source = open_slow(1, 0)};
        uint8_t buffer[CHUNK];
        struct iovec iov = {buffer, CHUNK};
        struct iov_cursor cursor = iov_cursor_at(&iov, 1);
        struct read_context context = {.demand = &self.demand};
        sem_init(&self.is_done, 0, 0);
        demand_init(&self.demand, let_go);
        CHECK(source_read(self.source, &context, &cursor, CHUNK, 0) == OBD_E_MISS);
        demand_start(&self.demand);
        sem_wait(&self.is_done);
        demand_destroy(&self.demand);
        sem_destroy(&self.is_done);
    }
}

/* ---- many threads ------------------------------------------------------------- */

static void *read_a_lot(void *argument)
{
    struct source *slow = argument;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    uint8_t buffer[5 * CHUNK];
    for (int i = 0; i < 60; i++) {
        uint64_t offset = (uint64_t)rand_r(&seed) % (sizeof plain - sizeof buffer);
        size_t length = 1 + (size_t)rand_r(&seed) % sizeof buffer;
        bool is_hasty = i % 4 == 0;
        uint64_t deadline = is_hasty ? clock_now_ns() + NS_PER_MS : SECONDS(60);
        enum obd_status status = source_read_wait(slow, buffer, length, offset, deadline);
        CHECK(status == OBD_OK || (is_hasty && status == OBD_E_TIMEOUT));
        CHECK(status != OBD_OK || memcmp(buffer, plain + offset, length) == 0);
    }
    return NULL;
}

TEST(many_threads_read_while_chunks_come_and_go_and_deadlines_pass)
{
    struct source *slow = open_slow(1, 0);
    pthread_t threads[6];
    for (int i = 0; i < 6; i++)
        CHECK(pthread_create(&threads[i], NULL, read_a_lot, slow) == 0);
    for (int i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    CHECK(atomic_load(&slow->nr_references) == 1);
    source_unref(slow);
}

/* A demand cancelled by one thread while another is still starting it. */
struct race {
    struct waiting waiting;
    sem_t go;
};

static void *cancel_it(void *argument)
{
    struct race *race = argument;
    sem_wait(&race->go);
    while (!demand_hold(&race->waiting.demand)) /* not yet started */
        ;
    status_set(OBD_E_CANCELLED, "cancelled by the test");
    demand_cancel(&race->waiting.demand, OBD_E_CANCELLED);
    return NULL;
}

TEST(cancel_races_with_start)
{
    struct source *never = open_slow(OBD_SLOW_NEVER, 0);
    for (int i = 0; i < 300; i++) {
        struct race race;
        pthread_t thread;
        uint8_t buffer[sizeof plain];
        waiting_init(&race.waiting);
        sem_init(&race.go, 0, 0);
        CHECK(read_once(never, &race.waiting, buffer, sizeof plain, 0) == OBD_E_MISS);
        CHECK(pthread_create(&thread, NULL, cancel_it, &race) == 0);
        sem_post(&race.go);
        demand_start(&race.waiting.demand);
        sem_wait(&race.waiting.is_ready); /* the cancel is all that can bring this */
        CHECK_FAILS(demand_status(&race.waiting.demand), OBD_E_CANCELLED, "cancelled by the test");
        pthread_join(thread, NULL);
        CHECK(sem_trywait(&race.waiting.is_ready) != 0);
        waiting_destroy(&race.waiting);
        sem_destroy(&race.go);
    }
    source_unref(never);
}

/* ---- a zfile above it ------------------------------------------------------------ */

static struct source *open_slow_zfile(const struct zfile_image *image, struct source **slow)
{
    struct source *file, *zfile;
    CHECK_OK(source_open_file(image->path, &file));
    CHECK_OK(source_open_slow(file, CHUNK, 1, OBD_SLOW_NEVER, slow));
    CHECK_OK(source_open_zfile(*slow, &image->params, SECONDS(20), &zfile));
    source_unref(file);
    return zfile;
}

TEST(a_zfile_notes_all_absent_chunks_of_a_long_read_at_once)
{
    struct zfile_image image;
    struct source *slow, *zfile;
    struct waiting waiting;
    const size_t size = 1 << 20;
    zfile_image_make(&image, size, 4096, OBD_CODEC_LZ4, true);
    zfile = open_slow_zfile(&image, &slow);
    uint8_t *buffer = malloc(size);
    waiting_init(&waiting);
    CHECK(read_once(zfile, &waiting, buffer, size, 0) == OBD_E_MISS);
    demand_start(&waiting.demand);
    sem_wait(&waiting.is_ready);
    CHECK_OK(read_once(zfile, &waiting, buffer, size, 0)); /* a second miss would show here */
    CHECK(memcmp(buffer, image.plain, size) == 0);
    free(buffer);
    waiting_destroy(&waiting);
    source_unref(zfile);
    source_unref(slow);
    zfile_image_free(&image);
}

TEST(a_damaged_block_is_fetched_again_and_then_read)
{
    struct zfile_image image;
    struct source *slow, *zfile;
    uint8_t buffer[4096];
    zfile_image_make(&image, 100000, 4096, OBD_CODEC_LZ4, true);
    zfile = open_slow_zfile(&image, &slow);
    size_t place = zfile_image_block_offset(&image, 9) + 3;
    image.file[place] ^= 1;
    zfile_image_store(&image);
    struct waiting waiting;
    waiting_init(&waiting);
    CHECK(read_once(zfile, &waiting, buffer, 4096, 9 * 4096) == OBD_E_MISS);
    demand_start(&waiting.demand);
    sem_wait(&waiting.is_ready);
    CHECK(read_once(zfile, &waiting, buffer, 4096, 9 * 4096) == OBD_E_MISS); /* damaged: discarded */
    image.file[place] ^= 1;
    zfile_image_store(&image);
    demand_start(&waiting.demand);
    sem_wait(&waiting.is_ready);
    CHECK_OK(read_once(zfile, &waiting, buffer, 4096, 9 * 4096));
    CHECK(memcmp(buffer, image.plain + 9 * 4096, 4096) == 0);
    waiting_destroy(&waiting);
    source_unref(zfile);
    source_unref(slow);
    zfile_image_free(&image);
}

TEST(a_block_that_stays_damaged_ends_as_corrupt)
{
    struct zfile_image image;
    struct source *slow, *zfile;
    uint8_t buffer[4096];
    zfile_image_make(&image, 100000, 4096, OBD_CODEC_LZ4, true);
    image.file[zfile_image_block_offset(&image, 9) + 3] ^= 1;
    zfile_image_store(&image);
    zfile = open_slow_zfile(&image, &slow);
    for (int i = 0; i < 3; i++) /* and it may be tried again */
        CHECK_FAILS(source_read_wait(zfile, buffer, 4096, 9 * 4096, SECONDS(20)), OBD_E_CORRUPT, "block 9 of 25");
    source_unref(zfile);
    source_unref(slow);
    zfile_image_free(&image);
}

TEST(remove_the_file)
{
    unlink(path);
}

TEST_MAIN(T(the_first_read_misses_every_chunk_of_its_range), T(the_last_chunk_costs_what_it_holds),
          T(an_unpinned_chunk_is_forgotten_and_a_pinned_one_is_not), T(read_wait_waits_for_all_chunks),
          T(read_wait_times_out_when_the_data_never_arrives_and_leaves_nothing),
          T(an_interrupt_ends_the_waits_of_now_and_of_later_until_it_is_taken_back),
          T(a_read_past_the_end_is_corrupt_not_short), T(the_last_reference_may_go_when_the_data_arrives),
          T(many_threads_read_while_chunks_come_and_go_and_deadlines_pass), T(cancel_races_with_start),
          T(a_zfile_notes_all_absent_chunks_of_a_long_read_at_once), T(a_damaged_block_is_fetched_again_and_then_read),
          T(a_block_that_stays_damaged_ends_as_corrupt), T(remove_the_file))
