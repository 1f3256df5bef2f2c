/* cache_fixture: a cache in a folder of its own, and blobs whose bytes are known.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef CACHE_FIXTURE_H
#define CACHE_FIXTURE_H

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

#include "base/file_calls.h"
#include "cache/cache.h"

#define CHUNK (64u << 10)
#define PAGE  4096u
/* What the map of a blob of up to 102 chunks takes. */
#define MAP_ROOM (2 * PAGE)

struct cache_fixture {
    char folder[64];
    struct obd_cache_params params;
    struct cache *cache;
};

static inline void fixture_reopen(struct cache_fixture *fixture)
{
    CHECK_OK(cache_open(&fixture->params, &fixture->cache));
}

/* A new folder; limit in bytes. */
static inline void fixture_init(struct cache_fixture *fixture, uint64_t limit)
{
    snprintf(fixture->folder, sizeof fixture->folder, "/tmp/obd-cache-XXXXXX");
    CHECK(mkdtemp(fixture->folder) != NULL);
    fixture->params = (struct obd_cache_params){.folder = fixture->folder, .limit_bytes = limit, .chunk_size = CHUNK};
}

static inline void fixture_open(struct cache_fixture *fixture, uint64_t limit)
{
    fixture_init(fixture, limit);
    fixture_reopen(fixture);
}

static inline void fixture_remove(struct cache_fixture *fixture)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", fixture->folder);
    CHECK(system(command) == 0);
}

/* Gives the folder to another user, and becomes that user until seteuid(0). */
static inline void fixture_become_owner(struct cache_fixture *fixture, uid_t uid)
{
    char command[128];
    snprintf(command, sizeof command, "chown -R %u '%s'", (unsigned)uid, fixture->folder);
    CHECK(system(command) == 0);
    CHECK(seteuid(uid) == 0);
}

static inline void fixture_close(struct cache_fixture *fixture)
{
    cache_close(fixture->cache);
    fixture_remove(fixture);
}

static inline struct obd_cache_stats fixture_stats(struct cache_fixture *fixture)
{
    struct obd_cache_stats stats;
    cache_stats(fixture->cache, &stats);
    return stats;
}

/* Blob n has the digest n n n ...; its byte i is this. */
static inline uint8_t byte_of(unsigned n, uint64_t i)
{
    return (uint8_t)(1 + (i * 7 + i / CHUNK * 13 + n * 31) % 251); /* never 0, as a hole is */
}

static inline struct blob *fixture_blob(struct cache_fixture *fixture, unsigned n, uint64_t size)
{
    uint8_t digest[32];
    struct blob *blob;
    memset(digest, (int)n, sizeof digest);
    CHECK_OK(blob_open(fixture->cache, digest, size, &blob));
    return blob;
}

static inline void fill_bytes(unsigned n, uint8_t *bytes, uint64_t offset, size_t length)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = byte_of(n, offset + i);
}

/* Whether it was kept; without a pin. */
static inline bool store(struct blob *blob, unsigned n, uint64_t chunk)
{
    bool is_kept;
    uint8_t *bytes = malloc(CHUNK);
    fill_bytes(n, bytes, chunk * CHUNK, blob_chunk_bytes(blob, chunk));
    CHECK_OK(blob_store(blob, chunk, bytes, &is_kept));
    free(bytes);
    if (is_kept)
        blob_unpin(blob, chunk);
    return is_kept;
}

/* Reads and compares; the status of the read. */
static inline enum obd_status read_back(struct blob *blob, unsigned n, uint64_t offset, size_t length)
{
    uint8_t *bytes = calloc(1, length);
    struct iovec iov = {.iov_base = bytes, .iov_len = length};
    struct iov_cursor cursor = iov_cursor_at(&iov, 1);
    enum obd_status status = blob_read(blob, &cursor, length, offset, false);
    CHECK(iov_cursor_left(&cursor) == (status == OBD_OK ? 0 : length));
    for (size_t i = 0; status == OBD_OK && i < length; i++)
        CHECK(bytes[i] == byte_of(n, offset + i));
    free(bytes);
    return status;
}

static inline void path_of_blob(const struct cache_fixture *fixture, unsigned n, const char *suffix, char path[256])
{
    int length = snprintf(path, 256, "%s/blobs/", fixture->folder);
    for (int i = 0; i < 32; i++)
        length += snprintf(path + length, 256 - (size_t)length, "%02x", n);
    snprintf(path + length, 256 - (size_t)length, "%s", suffix);
}

static inline void overwrite(const char *path, const void *bytes, size_t length, uint64_t offset)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0 && pwrite(fd, bytes, length, (off_t)offset) == (ssize_t)length);
    close(fd);
}

/* Changes one byte of blob n behind the cache's back. */
static inline void damage(struct cache_fixture *fixture, unsigned n, uint64_t offset)
{
    char path[256];
    uint8_t wrong = (uint8_t)(byte_of(n, offset) ^ 1);
    path_of_blob(fixture, n, "", path);
    overwrite(path, &wrong, 1, offset);
}

#endif
