/* upper: the writable layer of an image, append mode (spec/lsmt.md section 4.2); what is
 * different with the other, sparse, is said in upper_sparse.h.
 *
 * Two files in the reference's format, a data log and an index log, and our
 * journal between them, so that an acknowledged write survives kill -9 and a
 * flushed one a power cut (architecture, section 6).  The circle:
 *
 *   write    reserve (slot, index room, data tail) -> data to the log, no lock
 *            -> under the map lock: record to the journal, segment to the map
 *            -> acknowledged
 *   discard  the same without data
 *   flush    take the last sequence S -> sync data -> append the records up to S
 *            to the index -> sync index -> trim the journal to S
 *
 * Invariants
 *   (1) an entry in the index file is never ahead of its data: data is synced first
 *   (2) map and journal see the same writes in the same order
 *   (3) bytes of the log that a segment points to are never written again
 *   (4) at most one flush pair runs at a time; others wait for one that started
 *       after they came and share it
 *
 * States: open --(a failed sync)--> failed: read-only from then on, showing what
 * was flushed last, also at later opens.  open --> sealing --> sealed: see upper_seal.
 *
 * Steps at which a test may kill the process (base/hook.h), in order:
 *   write, discard  upper.reserved, upper.data_written (write only),
 *                   upper.record_written, upper.map_inserted
 *   flush           upper.flush.data_synced, upper.flush.index_appended,
 *                   upper.flush.index_synced, upper.flush.trimmed;
 *                   upper.flush.failed after the journal is marked failed
 *   grow            upper.grow.data_header, upper.grow.index_header
 *   close           upper.close.flushed, upper.close.marked_clean, upper.close.removed
 *   seal            seal.index_synced, seal.trailer_written, seal.trailer_synced,
 *                   seal.marked
 *   open            upper.open.replay_appended, upper.open.replayed (both only when
 *                   there is something to replay), journal.made or journal.taken_over,
 *                   upper.open.journal_ready
 *
 * Thread-safe.  Lock order: flush_lock, reserve_lock, map_lock (upper_state.h).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_IMAGE_UPPER_H
#define OBD_IMAGE_UPPER_H

#include "base/iov.h"
#include "base/list.h"
#include "index/segment_map.h"

struct upper;

/* A writer set aside because the journal is full; wake is called once, with no
 * lock held, when it is worth trying again (or the upper has failed). */
struct upper_waiter {
    struct list link;
    void (*wake)(struct upper_waiter *waiter);
};

/* Opens the pair, takes its lock (exclusive, or shared when params->flags has
 * OBD_UPPER_READ_ONLY), replays a journal of this boot.
 *   OBD_E_BUSY     another process has it; the sentence names it
 *   OBD_E_JOURNAL  a journal with unflushed writes lies there that belongs to
 *                  other files (a copied upper), and OBD_UPPER_DROP_UNFLUSHED
 *                  is not set
 *   OBD_E_CORRUPT  an index entry is wrong                                   */
enum obd_status upper_open(const struct obd_upper_params *params, struct upper **out);

/* Flushes (unless read-only or failed), marks the journal clean, closes. The
 * upper is gone whatever is returned. */
enum obd_status upper_close(struct upper *upper);

uint64_t upper_virtual_size(const struct upper *upper);
/* The disk has size bytes from now on, and so have its headers; the next flush makes that
 * durable.  OBD_E_INVALID for one that is smaller, or no whole sectors. */
enum obd_status upper_grow(struct upper *upper, uint64_t size);
/* How it was opened; one that fails later refuses writes by itself, saying why. */
bool upper_is_read_only(const struct upper *upper);

/* Takes length bytes from the cursor.  offset and length are multiples of 512,
 * inside the disk.  OBD_E_AGAIN: the journal is full; nothing happened; call
 * upper_wait.  OBD_E_NO_SPACE fails this write only. */
enum obd_status upper_write(struct upper *upper, struct iov_cursor *cursor, uint64_t length, uint64_t offset);

/* As upper_write, for a thread that others wait for: OBD_E_AGAIN, and nothing happened,
 * also when this could take longer than a write to the page cache does (see
 * upper_write.c). */
enum obd_status upper_try_write(struct upper *upper, struct iov_cursor *cursor, uint64_t length, uint64_t offset);

/* [offset, offset + length) reads as zeros.  As upper_write. */
enum obd_status upper_discard(struct upper *upper, uint64_t length, uint64_t offset);

/* Queues waiter until there is room, and sees to it that a flush runs.  False,
 * and not queued, when there is room by now. */
bool upper_wait(struct upper *upper, struct upper_waiter *waiter);

/* True when waiter was still queued and is no longer: wake will not be called. */
bool upper_cancel_wait(struct upper *upper, struct upper_waiter *waiter);

/* Everything acknowledged before the call is durable when it returns OBD_OK.
 * Blocks on the disk: never on a ring thread.  */
enum obd_status upper_flush(struct upper *upper);

/* As segment_map_lookup, with one consistent view of the map. */
size_t upper_lookup(struct upper *upper, uint64_t begin, uint64_t end, struct segment *out, size_t max);

/* Reads length bytes of the data file at place (bytes); nowait as file_read_iov_nowait. */
enum obd_status upper_read_log(struct upper *upper, struct iov_cursor *cursor, size_t length, uint64_t place,
                               bool nowait);

uint64_t upper_nr_segments(struct upper *upper);

/* A sorted copy of the map as it is now; what it points to stays readable, and of an
 * append upper unchanged. */
enum obd_status upper_freeze(struct upper *upper, struct segment_array *out);

/* Ends the upper in place, in two steps (upper_seal.c).  The first refuses writes from now
 * on, puts the index behind the log, and makes both durable: *index says where, for the
 * trailer.  The second writes that trailer, 4096 bytes: the file is a sealed layer then,
 * with everything that was acknowledged.  Reads go on all the time, and after.
 *   OBD_E_BUSY   a write runs
 *   OBD_E_LIMIT  it has so many segments that no reader would open it
 * After a failure upper_unseal makes it writable again, unless a sync has failed. */
enum obd_status upper_seal(struct upper *upper, struct obd_sealed_index *index);
enum obd_status upper_finish_seal(struct upper *upper, const void *trailer);
/* Takes both back, as long as nobody knows of the sealed layer. */
enum obd_status upper_unseal(struct upper *upper);

void upper_stats(struct upper *upper, struct obd_upper_stats *stats);

#endif
