/* The cached source over a fake cache and a real fetcher: misses, pins, transient
 * chunks, two origins, read-ahead.  Also for TSan.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cached_fixture.h"

#include "cache/read_ahead.h"

/* ---- misses ------------------------------------------------------------------------ */

TEST(a_cold_read_of_several_chunks_is_one_request_and_a_warm_one_none)
{
    struct source *source = open_cached(ALL_CHUNKS);
    struct obd_cached_source_stats stats;
    read_right(source, 5 * CHUNK + 3, CHUNK - 1);
    CHECK(fixture.peer.nr_requests == 1 && fixture.peer.ends[0] - fixture.peer.begins[0] == 7 * CHUNK);
    read_right(source, 5 * CHUNK + 3, CHUNK - 1);
    CHECK(fixture.peer.nr_requests == 1);
    CHECK_OK(cached_source_stats(source, &stats));
    CHECK(stats.fetched_bytes == 7 * CHUNK && stats.nr_requests == 1 && stats.cached_bytes == 5 * CHUNK + 3);
    CHECK(cache.blob.nr_misses == 7 && cache.blob.nr_hits == 7);
    close_cached(source);
}

TEST(the_last_chunk_is_short)
{
    struct source *source = open_cached(ALL_CHUNKS);
    read_right(source, 100, PEER_BLOB_SIZE - 100);
    CHECK(fixture.peer.ends[0] == PEER_BLOB_SIZE);
    close_cached(source);
}

static void *read_one_chunk(void *source)
{
    read_right(source, CHUNK, 9 * CHUNK);
    return NULL;
}

TEST(sixty_four_readers_of_a_cold_chunk_are_one_request)
{
    struct source *source = open_cached(ALL_CHUNKS);
    pthread_t threads[64];
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_WAIT});
    for (int i = 0; i < 64; i++)
        CHECK(pthread_create(&threads[i], NULL, read_one_chunk, source) == 0);
    peer_wait_for_requests(&fixture.peer, 1);
    peer_release(&fixture.peer);
    for (int i = 0; i < 64; i++)
        pthread_join(threads[i], NULL);
    CHECK(fixture.peer.nr_requests == 1);
    close_cached(source);
}

TEST(a_chunk_that_came_is_pinned_until_released)
{
    struct source *source = open_cached(ALL_CHUNKS);
    struct reader reader;
    reader_init(&reader);
    ask(&reader, source, 2 * CHUNK, 0);
    wait_for(&reader);
    fake_forget(&cache);
    CHECK_OK(try_read(&reader, source, 2 * CHUNK, 0));
    check_bytes(reader.buffer, 2 * CHUNK, 0);
    CHECK(reader.demand.provenance.has_missed && reader.demand.provenance.piece == OBD_FROM_REGISTRY);
    reader_destroy(&reader); /* and fake_cache_destroy sees that no pin is left */
    close_cached(source);
}

TEST(a_reader_that_gives_up_ends_the_fetch_that_only_it_wanted)
{
    struct source *source = open_cached(ALL_CHUNKS);
    struct reader first, second;
    reader_init(&first);
    reader_init(&second);
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_HANG});
    ask(&first, source, CHUNK, 0);
    ask(&second, source, CHUNK, 0);
    peer_wait_for_requests(&fixture.peer, 1);
    status_set(OBD_E_CANCELLED, "given up");
    CHECK(demand_hold(&first.demand));
    demand_cancel(&first.demand, OBD_E_CANCELLED);
    wait_for(&first);
    CHECK(peer_nr_requests(&fixture.peer) == 1 && sem_trywait(&second.is_ready) != 0);
    CHECK(demand_hold(&second.demand));
    demand_cancel(&second.demand, OBD_E_CANCELLED);
    wait_for(&second);
    demand_release(&second.demand);
    read_right(source, CHUNK, 0); /* by a request of its own */
    reader_destroy(&first);
    reader_destroy(&second);
    close_cached(source);
}

TEST(a_failure_has_its_reason_before_the_reader_gives_up)
{
    struct source *source = open_cached(ALL_CHUNKS);
    const struct act busy = {.kind = ACT_STATUS, .status = 503};
    PEER_SCRIPT(&fixture.peer, busy, busy, busy, busy, busy, busy, busy, busy, busy, busy, busy, busy, busy, busy);
    uint8_t byte;
    CHECK_FAILS(source_read_wait(source, &byte, 1, 0, SECONDS(1)), OBD_E_UNREACHABLE,
                "the blob: fetching 65536 bytes at 0: HTTP 503");
    struct obd_cached_source_stats stats;
    CHECK_OK(cached_source_stats(source, &stats));
    CHECK(stats.nr_errors[OBD_E_UNREACHABLE] == 1);
    close_cached(source);
}

/* The fetcher's own pin of a chunk goes a moment after it has answered. */
static void wait_until_absent(struct source *source, uint64_t offset)
{
    struct reader reader;
    reader_init(&reader);
    for (int i = 0; i < 20000 && try_read(&reader, source, 1, offset) == OBD_OK; i++)
        usleep(1000);
    CHECK(try_read(&reader, source, 1, offset) == OBD_E_MISS);
    reader_destroy(&reader);
}

/* ---- what the cache cannot keep --------------------------------------------------------- */

TEST(chunks_that_the_cache_cannot_keep_are_read_all_the_same)
{
    struct source *source = open_cached(0);
    read_right(source, 20 * CHUNK, CHUNK / 2);
    CHECK(fixture.peer.nr_requests == 1);
    wait_until_absent(source, 20 * CHUNK);
    read_right(source, 20 * CHUNK, CHUNK / 2); /* not kept: again */
    CHECK(fixture.peer.nr_requests == 2);
    close_cached(source);
}

TEST(a_transient_chunk_serves_all_who_come_while_it_is_there)
{
    struct source *source = open_cached(0);
    struct reader first, second;
    reader_init(&first);
    reader_init(&second);
    ask(&first, source, CHUNK, 0);
    wait_for(&first);
    CHECK_OK(try_read(&second, source, 100, 50)); /* from the first one's buffer */
    check_bytes(second.buffer, 100, 50);
    demand_release(&first.demand);
    wait_until_absent(source, 0);
    CHECK(fixture.peer.nr_requests == 1);
    reader_destroy(&first);
    reader_destroy(&second);
    close_cached(source);
}

static void *read_long(void *source)
{
    static atomic_uint nr;
    for (unsigned i = 0; i < 3; i++)
        read_right(source, 16 * CHUNK, (atomic_fetch_add(&nr, 1) * 7 % 110) * CHUNK + 1000);
    return NULL;
}

static void read_from_many_threads(unsigned limit)
{
    struct source *source = open_cached(limit);
    pthread_t threads[32];
    for (int i = 0; i < 32; i++)
        CHECK(pthread_create(&threads[i], NULL, read_long, source) == 0);
    for (int i = 0; i < 32; i++)
        pthread_join(threads[i], NULL);
    CHECK(cache.blob.nr_kept <= limit);
    close_cached(source);
}

TEST(thirty_two_long_readers_of_a_tiny_cache_all_end_with_right_bytes)
{
    read_from_many_threads(16);
}

TEST(thirty_two_long_readers_of_a_full_disk_all_end_with_right_bytes)
{
    read_from_many_threads(0);
}

/* ---- damage ------------------------------------------------------------------------------- */

static void discard_and_read_again(unsigned limit)
{
    struct source *source = open_cached(limit);
    struct reader reader;
    reader_init(&reader);
    ask(&reader, source, CHUNK, 3 * CHUNK);
    wait_for(&reader);
    CHECK_OK(source_discard(source, 3 * CHUNK + 5, 10));
    CHECK(try_read(&reader, source, CHUNK, 3 * CHUNK) == OBD_E_MISS);
    demand_start(&reader.demand);
    wait_for(&reader);
    CHECK_OK(try_read(&reader, source, CHUNK, 3 * CHUNK));
    CHECK(fixture.peer.nr_requests == 2);
    reader_destroy(&reader);
    close_cached(source);
}

TEST(a_discarded_chunk_is_fetched_again)
{
    discard_and_read_again(ALL_CHUNKS);
}

TEST(a_discarded_transient_chunk_is_fetched_again)
{
    discard_and_read_again(0);
}

/* ---- two origins of one blob ----------------------------------------------------------------- */

TEST(a_dead_origin_delays_no_reader_of_the_other)
{
    struct source *source = open_cached(ALL_CHUNKS), *other;
    struct origin *dead;
    struct reader reader;
    struct obd_resolve question;
    /* Its question is taken and never answered. */
    resolve_close(fixture.fetcher);
    pthread_join(fixture.resolver, NULL);
    fetcher_close(fixture.fetcher);
    source_unref(source);
    origin_unref(fixture.origin);
    CHECK_OK(fetcher_open(&(struct obd_fetcher_params){.proxy = ""}, &fixture.fetcher));
    CHECK_OK(origin_open(fixture.fetcher, 1, PEER_BLOB_SIZE, "the dead one", &dead));
    CHECK_OK(source_open_cached(&cache, dead, digest, &other));
    reader_init(&reader);
    ask(&reader, other, CHUNK, 0);
    CHECK_OK(resolve_next(fixture.fetcher, &question, SECONDS(20)));

    CHECK_OK(origin_open(fixture.fetcher, 7, PEER_BLOB_SIZE, "the live one", &fixture.origin));
    CHECK_OK(source_open_cached(&cache, fixture.origin, digest, &source));
    CHECK(pthread_create(&fixture.resolver, NULL, fixture_resolve, &fixture) == 0);
    read_right(source, CHUNK, 0);
    wait_for(&reader); /* the other's bytes are its, too */
    CHECK_OK(demand_status(&reader.demand));
    CHECK_OK(try_read(&reader, other, CHUNK, 0));
    check_bytes(reader.buffer, CHUNK, 0);
    reader_destroy(&reader);
    source_unref(other);
    origin_unref(dead);
    close_cached(source);
}

/* ---- read-ahead -------------------------------------------------------------------------------- */

TEST(a_sequential_reader_makes_few_requests)
{
    struct source *source = open_cached(ALL_CHUNKS);
    source_unref(source);
    cache.limit_bytes = UINT64_C(1) << 30;
    CHECK_OK(source_open_cached(&cache, fixture.origin, digest, &source));
    for (uint64_t offset = 0; offset + CHUNK <= PEER_BLOB_SIZE; offset += CHUNK)
        read_right(source, CHUNK, offset);
    CHECK(fixture.peer.nr_requests < 20); /* of 321 chunks */
    close_cached(source);
}

TEST(a_prefetched_range_is_there_without_anybody_waiting)
{
    struct source *source = open_cached(ALL_CHUNKS);
    CHECK_OK(cached_source_prefetch(source, CHUNK + 1, 10 * CHUNK));
    CHECK_FAILS(cached_source_prefetch(source, PEER_BLOB_SIZE, 1), OBD_E_RANGE, "outside");
    for (int i = 0; i < 20000 && blob_first_absent(&cache.blob, 1, 11) >= 0; i++)
        usleep(1000);
    CHECK(blob_first_absent(&cache.blob, 1, 11) < 0);
    read_right(source, 10 * CHUNK, CHUNK + 1);
    CHECK(fixture.peer.nr_requests == 1);
    close_cached(source);
}

TEST(a_source_may_be_closed_while_it_is_prefetched)
{
    struct source *source = open_cached(ALL_CHUNKS);
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_HANG});
    CHECK_OK(cached_source_prefetch(source, 0, 10 * CHUNK));
    peer_wait_for_requests(&fixture.peer, 1);
    close_cached(source);
}

/* ---- all at once --------------------------------------------------------------------------------- */

static void *read_a_lot(void *argument)
{
    struct source *source = argument;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    uint8_t *buffer = malloc(5 * CHUNK);
    for (int i = 0; i < 60; i++) {
        size_t length = 1 + (size_t)rand_r(&seed) % (5 * CHUNK);
        uint64_t offset = (uint64_t)rand_r(&seed) % (PEER_BLOB_SIZE - length);
        bool is_hasty = i % 4 == 0;
        uint64_t deadline = is_hasty ? clock_now_ns() + NS_PER_MS : SECONDS(60);
        enum obd_status status = source_read_wait(source, buffer, length, offset, deadline);
        CHECK(status == OBD_OK || (is_hasty && status == OBD_E_TIMEOUT));
        if (status == OBD_OK)
            check_bytes(buffer, length, offset);
        if (i % 7 == 0)
            CHECK_OK(source_discard(source, offset, length));
        if (i % 11 == 0)
            CHECK_OK(cached_source_prefetch(source, offset, length));
    }
    free(buffer);
    return NULL;
}

TEST(many_threads_read_discard_prefetch_and_give_up)
{
    struct source *source = open_cached(20);
    pthread_t threads[6];
    for (int i = 0; i < 6; i++)
        CHECK(pthread_create(&threads[i], NULL, read_a_lot, source) == 0);
    for (int i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    close_cached(source);
}

TEST_MAIN(T(a_cold_read_of_several_chunks_is_one_request_and_a_warm_one_none), T(the_last_chunk_is_short),
          T(sixty_four_readers_of_a_cold_chunk_are_one_request), T(a_chunk_that_came_is_pinned_until_released),
          T(a_reader_that_gives_up_ends_the_fetch_that_only_it_wanted),
          T(a_failure_has_its_reason_before_the_reader_gives_up),
          T(chunks_that_the_cache_cannot_keep_are_read_all_the_same),
          T(a_transient_chunk_serves_all_who_come_while_it_is_there),
          T(thirty_two_long_readers_of_a_tiny_cache_all_end_with_right_bytes),
          T(thirty_two_long_readers_of_a_full_disk_all_end_with_right_bytes), T(a_discarded_chunk_is_fetched_again),
          T(a_discarded_transient_chunk_is_fetched_again), T(a_dead_origin_delays_no_reader_of_the_other),
          T(a_sequential_reader_makes_few_requests), T(a_prefetched_range_is_there_without_anybody_waiting),
          T(a_source_may_be_closed_while_it_is_prefetched), T(many_threads_read_discard_prefetch_and_give_up))
