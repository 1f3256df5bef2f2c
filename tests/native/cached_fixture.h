/* cached_fixture: a cached source over a fake cache and a real fetcher, and readers of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef CACHED_FIXTURE_H
#define CACHED_FIXTURE_H

#include "fake_cache.h"
#include "fetch_fixture.h"

#include "cache/cached_source.h"

static struct fetch_fixture fixture;
static struct cache cache;
static const uint8_t digest[32];

#define ALL_CHUNKS FAKE_MAX_CHUNKS

static inline struct source *open_cached(unsigned limit)
{
    struct source *source;
    fixture_open(&fixture);
    fake_cache_init(&cache, CHUNK, limit);
    cache.limit_bytes = 0; /* no read-ahead, unless a test wants it */
    CHECK_OK(source_open_cached(&cache, fixture.origin, digest, &source));
    return source;
}

static inline void close_cached(struct source *source)
{
    source_unref(source);
    fixture_close(&fixture);
    fake_cache_destroy(&cache);
}

static inline void check_bytes(const uint8_t *bytes, size_t length, uint64_t offset)
{
    for (size_t i = 0; i < length; i++)
        CHECK(bytes[i] == peer_byte(offset + i));
}

static inline void read_right(struct source *source, size_t length, uint64_t offset)
{
    uint8_t *buffer = malloc(length);
    CHECK_OK(source_read_wait(source, buffer, length, offset, SECONDS(30)));
    check_bytes(buffer, length, offset);
    free(buffer);
}

/* A demand that a test drives by hand. */
struct reader {
    struct demand demand;
    sem_t is_ready;
    uint8_t buffer[4 * CHUNK];
};

static inline void post(struct demand *demand)
{
    sem_post(&LIST_ENTRY(demand, struct reader, demand)->is_ready);
}

static inline void reader_init(struct reader *reader)
{
    demand_init(&reader->demand, post);
    reader->demand.deadline_ns = SECONDS(30);
    sem_init(&reader->is_ready, 0, 0);
}

static inline void reader_destroy(struct reader *reader)
{
    demand_destroy(&reader->demand);
    sem_destroy(&reader->is_ready);
}

static inline enum obd_status try_read(struct reader *reader, struct source *source, size_t length, uint64_t offset)
{
    struct iovec iov = {reader->buffer, length};
    struct iov_cursor cursor = iov_cursor_at(&iov, 1);
    struct read_context context = {.demand = &reader->demand};
    return source_read(source, &context, &cursor, length, offset);
}

static inline void ask(struct reader *reader, struct source *source, size_t length, uint64_t offset)
{
    CHECK(try_read(reader, source, length, offset) == OBD_E_MISS);
    demand_start(&reader->demand);
}

static inline void wait_for(struct reader *reader)
{
    while (sem_wait(&reader->is_ready) != 0)
        ;
}

#endif
