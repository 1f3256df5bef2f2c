/* status: how every C function says that it failed, and why.
 *
 * A function that can fail returns an enum obd_status and, when that is not
 * OBD_OK, has left one sentence about it in a buffer of the calling thread.
 * The sentence is written once, where the most is known (the object, the
 * operation, the numbers), and is never rebuilt further up; a caller may put
 * the name of its own object in front of it with status_prefix().
 *
 * OBD_E_AGAIN and OBD_E_MISS are not failures but turns of the road: they carry
 * no sentence and never leave the command core (architecture, section 5).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_BASE_STATUS_H
#define OBD_BASE_STATUS_H

#include "obd.h"

/* Longest sentence kept, with its NUL; a longer one is cut. */
#define STATUS_TEXT_SIZE 512

/* Keeps the formatted sentence for this thread and returns status, so that a
 * failing function can end in one line:  return status_set(OBD_E_IO, "...");  */
enum obd_status status_set(enum obd_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* As status_set, for a failed system call: appends ": " and the text of error
 * (an errno value), and chooses the status from it: ENOSPC, EDQUOT and EFBIG are
 * OBD_E_NO_SPACE, ENOMEM is OBD_E_NO_MEMORY, ENOENT is OBD_E_NOT_FOUND, EROFS
 * is OBD_E_READ_ONLY, all others OBD_E_IO. */
enum obd_status status_set_errno(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts the formatted text and ": " before the sentence of this thread. */
enum obd_status status_prefix(enum obd_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* This thread's sentence; "" when nothing failed yet.  Valid until this
 * thread's next status_set. */
const char *status_text(void);

#endif
