/* iov: a position in a list of buffers.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/iov.h"

#include <assert.h>
#include <string.h>

#include "base/checked.h"

uint64_t iov_cursor_left(const struct iov_cursor *cursor)
{
    uint64_t total = 0;
    for (int i = 0; i < cursor->nr_iov; i++)
        total += cursor->iov[i].iov_len;
    return total - cursor->skip;
}

static size_t left_in_piece(const struct iov_cursor *cursor)
{
    return cursor->iov->iov_len - cursor->skip;
}

/* Leaves a piece that is used up, and empty ones after it. */
static void next_piece(struct iov_cursor *cursor)
{
    cursor->iov++;
    cursor->nr_iov--;
    cursor->skip = 0;
}

void iov_cursor_advance(struct iov_cursor *cursor, uint64_t length)
{
    while (length > 0) {
        assert(cursor->nr_iov > 0);
        size_t left = left_in_piece(cursor);
        if (length < left) {
            cursor->skip += length;
            return;
        }
        length -= left;
        next_piece(cursor);
    }
}

void *iov_cursor_peek(const struct iov_cursor *cursor, size_t length, size_t *contiguous)
{
    struct iov_cursor at = *cursor;
    while (left_in_piece(&at) == 0) {
        next_piece(&at);
        assert(at.nr_iov > 0);
    }
    *contiguous = min_u64(left_in_piece(&at), length);
    return (char *)at.iov->iov_base + at.skip;
}

int iov_cursor_slice(const struct iov_cursor *cursor, size_t length, struct iovec *out, int max, size_t *described)
{
    struct iov_cursor at = *cursor;
    int nr = 0;
    *described = 0;
    while (*described < length && nr < max && at.nr_iov > 0) {
        size_t part = min_u64(left_in_piece(&at), length - *described);
        if (part > 0)
            out[nr++] = (struct iovec){.iov_base = (char *)at.iov->iov_base + at.skip, .iov_len = part};
        *described += part;
        next_piece(&at);
    }
    return nr;
}

void iov_cursor_write(struct iov_cursor *cursor, const void *from, size_t length)
{
    while (length > 0) {
        size_t part;
        void *to = iov_cursor_peek(cursor, length, &part);
        memcpy(to, from, part);
        iov_cursor_advance(cursor, part);
        from = (const char *)from + part;
        length -= part;
    }
}

void iov_cursor_read(struct iov_cursor *cursor, void *to, size_t length)
{
    while (length > 0) {
        size_t part;
        const void *from = iov_cursor_peek(cursor, length, &part);
        memcpy(to, from, part);
        iov_cursor_advance(cursor, part);
        to = (char *)to + part;
        length -= part;
    }
}

void iov_cursor_zero(struct iov_cursor *cursor, uint64_t length)
{
    while (length > 0) {
        size_t part;
        void *to = iov_cursor_peek(cursor, length, &part);
        memset(to, 0, part);
        iov_cursor_advance(cursor, part);
        length -= part;
    }
}
