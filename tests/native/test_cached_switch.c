/* A local file that takes over from the registry, and reads in the background, over a
 * fake cache and a real fetcher.  Also for TSan.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cached_fixture.h"

#include <unistd.h>

#include "base/log.h"
#include "source/background_reader.h"

static char path[64];

/* A file with the blob's bytes, or with shift added to each. */
static struct source *open_copy(uint8_t shift)
{
    struct source *copy;
    snprintf(path, sizeof path, "/tmp/obd-switch-XXXXXX");
    int fd = mkstemp(path);
    uint8_t *bytes = malloc(PEER_BLOB_SIZE);
    for (size_t i = 0; i < PEER_BLOB_SIZE; i++)
        bytes[i] = (uint8_t)(peer_byte(i) + shift);
    CHECK(fd >= 0 && write(fd, bytes, PEER_BLOB_SIZE) == (ssize_t)PEER_BLOB_SIZE);
    close(fd);
    free(bytes);
    CHECK_OK(source_open_file(path, &copy));
    return copy;
}

/* The test's own reference goes: the source has another. */
static void switch_to(struct source *source, struct source *copy)
{
    CHECK_OK(cached_source_switch_to(source, copy));
    source_unref(copy);
    unlink(path);
}

static bool is_local(struct source *source)
{
    struct obd_cached_source_stats stats;
    CHECK_OK(cached_source_stats(source, &stats));
    return stats.is_local;
}

static bool is_ready(struct reader *reader)
{
    return sem_trywait(&reader->is_ready) == 0;
}

/* ---- switching ------------------------------------------------------------------------ */

TEST(after_the_switch_nothing_is_fetched_any_more)
{
    struct source *source = open_cached(ALL_CHUNKS);
    read_right(source, 3 * CHUNK, CHUNK / 2);
    CHECK(!is_local(source));
    switch_to(source, open_copy(0));
    CHECK(is_local(source));
    read_right(source, PEER_BLOB_SIZE, 0);
    CHECK_OK(cached_source_prefetch(source, 0, PEER_BLOB_SIZE));
    CHECK(fixture.peer.nr_requests == 1);
    close_cached(source);
}

TEST(a_read_that_is_parked_goes_on_with_the_local_file)
{
    struct source *source = open_cached(ALL_CHUNKS);
    struct reader readers[2];
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_HANG});
    for (int i = 0; i < 2; i++) {
        reader_init(&readers[i]);
        ask(&readers[i], source, 3 * CHUNK, 5);
    }
    peer_wait_for_requests(&fixture.peer, 1);
    switch_to(source, open_copy(0));
    for (int i = 0; i < 2; i++) {
        CHECK(is_ready(&readers[i])); /* by now: no byte has come */
        CHECK_OK(demand_status(&readers[i].demand));
        CHECK_OK(try_read(&readers[i], source, 3 * CHUNK, 5));
        check_bytes(readers[i].buffer, 3 * CHUNK, 5);
        reader_destroy(&readers[i]);
    }
    close_cached(source);
}

TEST(a_miss_that_is_requested_after_the_switch_is_answered_at_once)
{
    struct source *source = open_cached(ALL_CHUNKS);
    struct reader reader;
    reader_init(&reader);
    CHECK(try_read(&reader, source, 2 * CHUNK, 0) == OBD_E_MISS);
    switch_to(source, open_copy(0));
    demand_start(&reader.demand);
    CHECK(is_ready(&reader));
    CHECK_OK(try_read(&reader, source, 2 * CHUNK, 0));
    check_bytes(reader.buffer, 2 * CHUNK, 0);
    reader_destroy(&reader);
    CHECK(fixture.peer.nr_requests == 0);
    close_cached(source);
}

TEST(a_reader_of_the_blob_from_elsewhere_goes_on_waiting_for_its_own)
{
    struct source *source = open_cached(ALL_CHUNKS), *other;
    struct reader reader;
    CHECK_OK(source_open_cached(&cache, fixture.origin, digest, &other));
    reader_init(&reader);
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_WAIT});
    ask(&reader, other, CHUNK, 0);
    peer_wait_for_requests(&fixture.peer, 1);
    switch_to(source, open_copy(0));
    CHECK(!is_ready(&reader) && !is_local(other));
    peer_release(&fixture.peer);
    wait_for(&reader);
    CHECK_OK(try_read(&reader, other, CHUNK, 0));
    check_bytes(reader.buffer, CHUNK, 0);
    reader_destroy(&reader);
    source_unref(other);
    close_cached(source);
}

TEST(a_file_of_another_size_and_a_second_file_are_refused)
{
    struct source *source = open_cached(ALL_CHUNKS), *copy = open_copy(0), *small, *second;
    CHECK_OK(source_open_slice(copy, 0, PEER_BLOB_SIZE - 1, &small));
    CHECK_FAILS(cached_source_switch_to(source, small), OBD_E_INVALID, "bytes, /tmp/obd-switch-");
    CHECK_FAILS(cached_source_switch_to(copy, copy), OBD_E_INVALID, "is read as a file, not through a cache");
    source_unref(small);
    switch_to(source, copy);
    second = open_copy(0);
    CHECK_FAILS(cached_source_switch_to(source, second), OBD_E_INVALID, "has taken over already");
    source_unref(second);
    unlink(path);
    close_cached(source);
}

/* ---- a local file that fails --------------------------------------------------------------- */

TEST(a_local_file_that_was_cut_is_given_up_and_reads_are_right)
{
    struct source *source = open_cached(ALL_CHUNKS), *copy = open_copy(0);
    CHECK(truncate(path, CHUNK) == 0);
    switch_to(source, copy);
    read_right(source, CHUNK, 0);
    CHECK(is_local(source) && fixture.peer.nr_requests == 0);
    read_right(source, 3 * CHUNK, CHUNK / 2); /* a part of it came from the file */
    CHECK(!is_local(source) && fixture.peer.nr_requests == 1);
    close_cached(source);
}

TEST(a_local_file_whose_bytes_fail_a_check_is_given_up)
{
    struct source *source = open_cached(ALL_CHUNKS);
    uint8_t byte;
    switch_to(source, open_copy(1));
    CHECK_OK(source_read_wait(source, &byte, 1, 100, SECONDS(20)));
    CHECK(byte == (uint8_t)(peer_byte(100) + 1));
    CHECK_OK(source_discard(source, 0, CHUNK)); /* read again: it is another now */
    read_right(source, CHUNK, 0);
    CHECK(!is_local(source));
    close_cached(source);
}

/* ---- many threads ------------------------------------------------------------------------- */

static atomic_uint nr_reads;
static atomic_bool shall_end;

static void *read_until_the_end(void *source)
{
    unsigned seed = (unsigned)(uintptr_t)&source;
    while (!atomic_load(&shall_end)) {
        uint64_t offset = (uint64_t)rand_r(&seed) % (PEER_BLOB_SIZE - 3 * CHUNK);
        read_right(source, 1 + (size_t)rand_r(&seed) % (3 * CHUNK), offset);
        atomic_fetch_add(&nr_reads, 1);
    }
    return NULL;
}

static void wait_for_reads(unsigned nr)
{
    for (unsigned goal = atomic_load(&nr_reads) + nr; atomic_load(&nr_reads) < goal;)
        usleep(1000);
}

TEST(many_readers_meet_a_switch_and_a_file_that_is_given_up_again)
{
    for (unsigned round = 0; round < 4; round++) {
        struct source *source = open_cached(round % 2 == 0 ? ALL_CHUNKS : 10);
        pthread_t threads[6];
        atomic_store(&shall_end, false);
        for (int i = 0; i < 6; i++)
            CHECK(pthread_create(&threads[i], NULL, read_until_the_end, source) == 0);
        wait_for_reads(30);
        switch_to(source, open_copy(0));
        wait_for_reads(30);
        if (round >= 2)
            CHECK_OK(source_discard(source, 0, 1));
        wait_for_reads(30);
        CHECK(is_local(source) == (round < 2));
        atomic_store(&shall_end, true);
        for (int i = 0; i < 6; i++)
            pthread_join(threads[i], NULL);
        close_cached(source);
    }
}

/* ---- reads in the background ------------------------------------------------------------- */

static struct background_reader *open_reader(struct source *source)
{
    struct background_reader *reader;
    CHECK_OK(background_reader_open(source, &reader));
    return reader;
}

static void read_in_background(struct background_reader *reader, size_t length, uint64_t offset)
{
    uint8_t *buffer = malloc(length);
    CHECK_OK(background_reader_read(reader, buffer, length, offset, SECONDS(30)));
    check_bytes(buffer, length, offset);
    free(buffer);
}

TEST(a_background_reader_fetches_what_it_reads_and_nothing_ahead)
{
    struct source *source = open_cached(ALL_CHUNKS);
    cache.limit_bytes = UINT64_C(1) << 30;
    source_unref(source);
    CHECK_OK(source_open_cached(&cache, fixture.origin, digest, &source)); /* one that reads ahead */
    struct background_reader *reader = open_reader(source);
    struct obd_cached_source_stats stats;
    for (uint64_t offset = 0; offset < 16 * CHUNK; offset += 4 * CHUNK)
        read_in_background(reader, 4 * CHUNK, offset);
    CHECK_OK(cached_source_stats(source, &stats));
    CHECK(stats.nr_requests == 4 && stats.fetched_bytes == 16 * CHUNK && stats.cached_bytes == 0);
    background_reader_close(reader);
    close_cached(source);
}

TEST(what_is_cached_is_not_fetched_again_in_the_background)
{
    struct source *source = open_cached(ALL_CHUNKS);
    struct background_reader *reader = open_reader(source);
    read_right(source, 4 * CHUNK, 0);
    read_in_background(reader, 4 * CHUNK, 0);
    CHECK(fixture.peer.nr_requests == 1);
    read_in_background(reader, 8 * CHUNK, 0);
    CHECK(fixture.peer.nr_requests == 2 && fixture.peer.begins[1] == 4 * CHUNK);
    background_reader_close(reader);
    close_cached(source);
}

TEST(a_background_read_fills_the_room_that_is_free_and_takes_no_other)
{
    struct source *source = open_cached(6);
    struct background_reader *reader = open_reader(source);
    read_right(source, 4 * CHUNK, 0);
    read_in_background(reader, 8 * CHUNK, 4 * CHUNK);
    CHECK(cache.blob.nr_kept == 6);
    for (unsigned i = 0; i < 4; i++)
        CHECK(cache.blob.is_present[i]);
    background_reader_close(reader);
    close_cached(source);
}

TEST(a_background_read_that_is_stopped_ends_at_once_and_so_does_every_later_one)
{
    struct source *source = open_cached(ALL_CHUNKS);
    struct background_reader *reader = open_reader(source);
    uint8_t byte;
    background_reader_stop(reader);
    CHECK_FAILS(background_reader_read(reader, &byte, 1, 0, NEVER_NS), OBD_E_CANCELLED, "the blob: stopped");
    CHECK_FAILS(background_reader_read(reader, &byte, 1, CHUNK, NEVER_NS), OBD_E_CANCELLED, "the blob: stopped");
    background_reader_close(reader);
    close_cached(source);
}

struct stopped_read {
    struct background_reader *reader;
    enum obd_status status;
};

static void *read_for_ever(void *argument)
{
    struct stopped_read *read = argument;
    uint8_t byte;
    read->status = background_reader_read(read->reader, &byte, 1, 0, NEVER_NS);
    return NULL;
}

TEST(a_background_read_that_waits_is_stopped_from_another_thread)
{
    struct source *source = open_cached(ALL_CHUNKS);
    struct stopped_read read = {.reader = open_reader(source)};
    pthread_t thread;
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_HANG});
    CHECK(pthread_create(&thread, NULL, read_for_ever, &read) == 0);
    peer_wait_for_requests(&fixture.peer, 1);
    background_reader_stop(read.reader);
    pthread_join(thread, NULL);
    CHECK(read.status == OBD_E_CANCELLED);
    background_reader_close(read.reader);
    close_cached(source);
}

static void *read_first_chunk_in_background(void *reader)
{
    read_in_background(reader, CHUNK, 0);
    return NULL;
}

TEST(a_command_that_wants_what_the_background_waits_for_goes_first_with_it)
{
    struct source *source = open_cached(0);
    struct background_reader *reader = open_reader(source);
    struct noted_job other;
    struct reader wanting;
    pthread_t thread;
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_WAIT});
    fetch_chunks(&fixture, &other, 100, 1, FETCH_DEMAND); /* as long as this runs, no background job begins */
    peer_wait_for_requests(&fixture.peer, 1);
    CHECK(pthread_create(&thread, NULL, read_first_chunk_in_background, reader) == 0);
    usleep(50000);
    CHECK(peer_nr_requests(&fixture.peer) == 1);
    reader_init(&wanting);
    ask(&wanting, source, CHUNK, 0);
    wait_for(&wanting);
    CHECK_OK(try_read(&wanting, source, CHUNK, 0));
    pthread_join(thread, NULL); /* the same request has served it */
    CHECK(peer_nr_requests(&fixture.peer) == 2);
    peer_release(&fixture.peer);
    all_came_right(&other, 1);
    reader_destroy(&wanting);
    background_reader_close(reader);
    close_cached(source);
}

TEST_MAIN(T(after_the_switch_nothing_is_fetched_any_more), T(a_read_that_is_parked_goes_on_with_the_local_file),
          T(a_miss_that_is_requested_after_the_switch_is_answered_at_once),
          T(a_reader_of_the_blob_from_elsewhere_goes_on_waiting_for_its_own),
          T(a_file_of_another_size_and_a_second_file_are_refused),
          T(a_local_file_that_was_cut_is_given_up_and_reads_are_right),
          T(a_local_file_whose_bytes_fail_a_check_is_given_up),
          T(many_readers_meet_a_switch_and_a_file_that_is_given_up_again),
          T(a_background_reader_fetches_what_it_reads_and_nothing_ahead),
          T(what_is_cached_is_not_fetched_again_in_the_background),
          T(a_background_read_fills_the_room_that_is_free_and_takes_no_other),
          T(a_background_read_that_is_stopped_ends_at_once_and_so_does_every_later_one),
          T(a_background_read_that_waits_is_stopped_from_another_thread),
          T(a_command_that_wants_what_the_background_waits_for_goes_first_with_it))
