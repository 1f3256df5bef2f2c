/* A cursor over scattered buffers, against the same bytes in one piece.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "check.h"

#include "base/iov.h"

#define MAX_BYTES 300

/* The same bytes twice: flat, and cut at random into pieces, some of them empty. */
struct scattered {
    uint8_t bytes[MAX_BYTES];
    struct iovec iov[40];
    int nr_iov;
    size_t total;
};

static void scatter(struct scattered *s, unsigned seed)
{
    *s = (struct scattered){0};
    srandom(seed);
    for (size_t i = 0; i < MAX_BYTES; i++)
        s->bytes[i] = (uint8_t)random();
    while (s->nr_iov < 39) {
        size_t length = random() % 4 == 0 ? 0 : (size_t)random() % 20;
        if (s->total + length > MAX_BYTES)
            break;
        s->iov[s->nr_iov++] = (struct iovec){.iov_base = s->bytes + s->total, .iov_len = length};
        s->total += length;
    }
}

TEST(iov_cursor_left_counts_what_is_behind_it)
{
    struct scattered s;
    for (unsigned seed = 0; seed < 200; seed++) {
        scatter(&s, seed);
        struct iov_cursor cursor = iov_cursor_at(s.iov, s.nr_iov);
        for (size_t gone = 0; gone < s.total;) {
            CHECK(iov_cursor_left(&cursor) == s.total - gone);
            size_t step = 1 + (size_t)random() % (s.total - gone);
            iov_cursor_advance(&cursor, step);
            gone += step;
        }
        CHECK(iov_cursor_left(&cursor) == 0);
    }
}

TEST(iov_cursor_peek_gives_the_next_bytes_even_behind_empty_pieces)
{
    struct scattered s;
    for (unsigned seed = 0; seed < 200; seed++) {
        scatter(&s, seed);
        struct iov_cursor cursor = iov_cursor_at(s.iov, s.nr_iov);
        for (size_t gone = 0; gone < s.total;) {
            size_t contiguous;
            CHECK(iov_cursor_peek(&cursor, s.total - gone, &contiguous) == s.bytes + gone);
            CHECK(contiguous > 0 && contiguous <= s.total - gone);
            iov_cursor_advance(&cursor, contiguous);
            gone += contiguous;
        }
    }
}

TEST(iov_cursor_read_and_write_cross_pieces)
{
    struct scattered s;
    for (unsigned seed = 0; seed < 200; seed++) {
        uint8_t copy[MAX_BYTES], fresh[MAX_BYTES];
        scatter(&s, seed);
        struct iov_cursor cursor = iov_cursor_at(s.iov, s.nr_iov), start = cursor;
        iov_cursor_read(&cursor, copy, s.total);
        CHECK(memcmp(copy, s.bytes, s.total) == 0);
        for (size_t i = 0; i < s.total; i++)
            fresh[i] = (uint8_t)random();
        cursor = start; /* a copy remembers the place */
        iov_cursor_write(&cursor, fresh, s.total);
        CHECK(memcmp(fresh, s.bytes, s.total) == 0);
        CHECK(iov_cursor_left(&cursor) == 0);
    }
}

TEST(iov_cursor_zero_stops_where_it_should)
{
    struct scattered s;
    scatter(&s, 5);
    struct iov_cursor cursor = iov_cursor_at(s.iov, s.nr_iov);
    uint8_t before[MAX_BYTES];
    memcpy(before, s.bytes, sizeof before);
    iov_cursor_advance(&cursor, 10);
    iov_cursor_zero(&cursor, s.total - 20);
    CHECK(memcmp(before, s.bytes, 10) == 0);
    for (size_t i = 10; i < s.total - 10; i++)
        CHECK(s.bytes[i] == 0);
    CHECK(memcmp(before + s.total - 10, s.bytes + s.total - 10, 10) == 0);
}

TEST(iov_cursor_slice_describes_without_moving)
{
    struct scattered s;
    for (unsigned seed = 0; seed < 200; seed++) {
        scatter(&s, seed);
        if (s.total < 30)
            continue;
        struct iov_cursor cursor = iov_cursor_at(s.iov, s.nr_iov);
        iov_cursor_advance(&cursor, 7);
        struct iovec out[40];
        size_t described, sum = 0;
        int nr = iov_cursor_slice(&cursor, 20, out, 40, &described);
        for (int i = 0; i < nr; i++) {
            CHECK(out[i].iov_len > 0);
            CHECK(out[i].iov_base == s.bytes + 7 + sum);
            sum += out[i].iov_len;
        }
        CHECK(sum == 20 && described == 20);
        CHECK(iov_cursor_left(&cursor) == s.total - 7);
    }
}

TEST(iov_cursor_slice_says_how_far_it_came_when_pieces_run_out)
{
    uint8_t bytes[9];
    struct iovec iov[3] = {{bytes, 3}, {bytes + 3, 3}, {bytes + 6, 3}}, out[2];
    struct iov_cursor cursor = iov_cursor_at(iov, 3);
    size_t described;
    CHECK(iov_cursor_slice(&cursor, 9, out, 2, &described) == 2);
    CHECK(described == 6);
}

TEST_MAIN(T(iov_cursor_left_counts_what_is_behind_it), T(iov_cursor_peek_gives_the_next_bytes_even_behind_empty_pieces),
          T(iov_cursor_read_and_write_cross_pieces), T(iov_cursor_zero_stops_where_it_should),
          T(iov_cursor_slice_describes_without_moving), T(iov_cursor_slice_says_how_far_it_came_when_pieces_run_out))
