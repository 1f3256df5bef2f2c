/* Every call that an upper makes fails once, one after another: system calls of each of its
 * files, and allocations.  Whatever fails, nothing crashes or leaks, what was flushed is there
 * afterwards, and so is what a killed process had acknowledged before, unless a sync failed.
 *
 * Linked with --wrap for the allocating functions (Makefile). */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>

#include "check.h"

#include "upper_pair.h"

/* ---- allocations ---- */

static atomic_int mallocs_left = -1; /* until the one that fails; below 0: none will */

void *__real_malloc(size_t size);
void *__real_calloc(size_t nr, size_t size);
void *__real_realloc(void *old, size_t size);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t nr, size_t size);
void *__wrap_realloc(void *old, size_t size);
char *__wrap_strdup(const char *text);

static bool is_refused(void)
{
    return atomic_load(&mallocs_left) >= 0 && atomic_fetch_sub(&mallocs_left, 1) == 0;
}

void *__wrap_malloc(size_t size)
{
    return is_refused() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t nr, size_t size)
{
    return is_refused() ? NULL : __real_calloc(nr, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return is_refused() ? NULL : __real_realloc(old, size);
}

char *__wrap_strdup(const char *text)
{
    return is_refused() ? NULL : __real_strdup(text);
}

/* ---- a life, in which each step may fail ---- */

enum { ROUNDS = 3 };

/* How many of the rounds were flushed; all of it went well when *is_whole. */
static int live(bool *is_whole)
{
    static char buffer[4096];
    struct obd_upper_params p = params(0);
    struct upper *upper;
    int nr_flushed = 0;
    *is_whole = false;
    if (upper_open(&p, &upper) != OBD_OK) {
        CHECK(strlen(status_text()) > 20);
        return 0;
    }
    bool is_good = true;
    for (int round = 1; round <= ROUNDS; round++) {
        memset(buffer, 100 + round, sizeof buffer);
        struct iovec iov = {.iov_base = buffer, .iov_len = sizeof buffer};
        struct iov_cursor cursor = iov_cursor_at(&iov, 1);
        bool is_written = upper_write(upper, &cursor, sizeof buffer, 1 << 20) == OBD_OK;
        bool is_discarded = upper_discard(upper, 4096, (uint64_t)round << 21) == OBD_OK;
        bool is_flushed = upper_flush(upper) == OBD_OK;
        if (is_written && is_flushed)
            nr_flushed = round;
        is_good = is_good && is_written && is_discarded && is_flushed;
    }
    *is_whole = upper_close(upper) == OBD_OK && is_good;
    return nr_flushed;
}

/* The upper afterwards, with nothing that fails: at least nr_flushed rounds are there. */
static void check_nothing_lost(int nr_flushed)
{
    struct upper *upper = open_upper(0);
    int byte = sector_byte(upper, 1 << 20);
    CHECK(byte == -1 ? nr_flushed == 0 : byte >= 100 + nr_flushed && byte <= 100 + ROUNDS);
    struct obd_upper_stats stats;
    upper_stats(upper, &stats);
    CHECK(stats.is_failed || shows_ten(upper)); /* a sync that failed in the replay has taken them */
    upper_close(upper);                         /* not OBD_OK for one that has failed */
}

static void begin(void)
{
    new_pair();
    in_killed_process(write_ten);
}

/* ---- the walks ---- */

/* The n-th such call fails; false when all went well all the same. */
static bool fail_nth(const char *file, const char *operation, uint32_t n, int error)
{
    bool is_whole;
    begin();
    fail_file(file, operation, n, error, 0);
    int nr_flushed = live(&is_whole);
    no_faults();
    check_nothing_lost(nr_flushed);
    return !is_whole;
}

/* Every one of them, until there are no more; some failures are got over.  How many were not. */
static int fail_each(const char *file, const char *operation)
{
    int nr_failed = 0, nr_good = 0;
    for (uint32_t n = 1; nr_good < 4; n++) {
        bool has_failed = fail_nth(file, operation, n, n % 2 ? EIO : ENOSPC);
        nr_failed += has_failed;
        nr_good = has_failed ? 0 : nr_good + 1;
    }
    return nr_failed;
}

TEST(upper_loses_nothing_whatever_system_call_fails)
{
    static const char *const files[] = {"/data", "/index", "/index.journal", "/"};
    static const char *const operations[] = {"write", "tear", "sync", "reserve", "truncate", "open", "remove", "read"};
    int nr_failed = 0;
    for (size_t file = 0; file < sizeof files / sizeof files[0]; file++)
        for (size_t operation = 0; operation < sizeof operations / sizeof operations[0]; operation++)
            nr_failed += fail_each(files[file], operations[operation]);
    CHECK(nr_failed > 30); /* or the rules hit nothing */
}

TEST(upper_loses_nothing_whatever_allocation_fails)
{
    int nr_failed = 0;
    for (int n = 0;; n++) {
        bool is_whole;
        begin();
        atomic_store(&mallocs_left, n);
        int nr_flushed = live(&is_whole);
        bool has_struck = atomic_exchange(&mallocs_left, -1) < 0;
        nr_failed += !is_whole;
        check_nothing_lost(nr_flushed);
        if (!has_struck)
            break;
    }
    CHECK(nr_failed > 10);
}

TEST_MAIN(T(upper_has_a_folder), T(upper_loses_nothing_whatever_system_call_fails),
          T(upper_loses_nothing_whatever_allocation_fails), T(upper_left_nothing_in_the_folder))
