/* iov: a position in a list of buffers.
 *
 * A command's data lies in up to 256 scattered pieces (the kernel's data area
 * is handed out by pages).  Whoever fills or drains it takes a cursor, uses the
 * next bytes and leaves the cursor behind them; a copy of a cursor is a cheap
 * "remember this place".
 *
 * The buffers and the array are borrowed and must outlive the cursor.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_BASE_IOV_H
#define OBD_BASE_IOV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct iov_cursor {
    const struct iovec *iov; /* the piece the cursor stands in */
    int nr_iov;              /* pieces from there to the end, that one included */
    size_t skip;             /* bytes of that piece already behind the cursor */
};

static inline struct iov_cursor iov_cursor_at(const struct iovec *iov, int nr_iov)
{
    return (struct iov_cursor){.iov = iov, .nr_iov = nr_iov, .skip = 0};
}

/* Bytes from the cursor to the end. */
uint64_t iov_cursor_left(const struct iov_cursor *cursor);

/* Moves on by length bytes; there must be that many. */
void iov_cursor_advance(struct iov_cursor *cursor, uint64_t length);

/* Where the cursor stands, and in *contiguous how many bytes follow there in
 * one piece, at most length.  There must be at least one byte left. */
void *iov_cursor_peek(const struct iov_cursor *cursor, size_t length, size_t *contiguous);

/* Describes the next length bytes as at most max pieces in out, without moving;
 * returns how many pieces, and in *described the bytes they hold (fewer than
 * length when max pieces did not suffice). */
int iov_cursor_slice(const struct iov_cursor *cursor, size_t length, struct iovec *out, int max, size_t *described);

/* Copies and moves on. */
void iov_cursor_write(struct iov_cursor *cursor, const void *from, size_t length);
void iov_cursor_read(struct iov_cursor *cursor, void *to, size_t length);
void iov_cursor_zero(struct iov_cursor *cursor, uint64_t length);

#endif
