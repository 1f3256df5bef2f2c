/* journal: records of writes that are acknowledged but not yet flushed.
 *
 * An open upper has one, a fixed-size file beside it (<index>.journal).  It is
 * written with pwrite and never synced: the page cache outlives a killed process,
 * and against a power cut the journal promises nothing.  Records are numbered
 * from 1 without gaps and lie in slot (sequence % nr_slots).
 *
 * Layout, little-endian
 *
 *   offset  size  header, one 4096-byte block: at 0, and once more at 512
 *        0     8  magic "OBDJRNL\1"
 *        8     4  version, 1
 *       12     4  state: 1 open, 2 clean, 3 failed, 4 sealed
 *       16    16  boot id of the machine (/proc/sys/kernel/random/boot_id)
 *       32    36  UUID of the upper (from its index file's header), ASCII
 *       72     8  device of the data file (st_dev)
 *       80     8  inode of the data file (st_ino)
 *       88     8  nr_slots
 *       96     8  flushed sequence: all records up to it are in the index file
 *      104     8  length of the index file that holds them, bytes
 *      112    64  who has the upper open ("tcmu-overlaybd serve, pid 12"), NUL-padded
 *      176     4  crc32c_raw of bytes 0..175, seed 0
 *
 *   then nr_slots records of 64 bytes
 *        0     8  sequence
 *        8     8  offset on the virtual disk, bytes
 *       16     8  length, bytes
 *       24     8  place in the data file, bytes (data: where the bytes are;
 *                 discard: the data file's end, as the reference writes it)
 *       32     4  kind: 1 data, 2 discard (reads as zeros), 3 rewrite (of sectors that
 *                 are data already, in place: nothing for the index)
 *       36    16  boot id; zero in those of earlier versions
 *       52     8  zero
 *       60     4  crc32c_raw of bytes 0..59, seed = low 32 bits of the UUID's crc
 *
 * A record never crosses a page, so a killed process leaves it whole or absent.
 * Replay takes records from flushed sequence + 1 on and stops at the first that
 * is absent, of another number, or damaged.  Applying a record twice, in order,
 * changes nothing, so the header may lag behind the index file.
 *
 * Both headers are written with one call, and lie in two sectors: a power cut may
 * tear one of them.  When neither is whole, the records say what was lost: those of
 * this boot were acknowledged by a process that was killed.
 *
 * A journal is made under another name and renamed, or it takes over the file of
 * an earlier one with one write of the header, whose sequence then jumps over all
 * that the slots may hold: records of an earlier journal are never taken for
 * records of this one.  Header and folder are synced once, so that a power cut
 * leaves a whole header that bounds what was surely flushed; a clean close removes
 * the file.
 *
 * Not thread-safe: the upper calls it under its map lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_IMAGE_JOURNAL_H
#define OBD_IMAGE_JOURNAL_H

#include "base/file.h"

enum journal_state { JOURNAL_OPEN = 1, JOURNAL_CLEAN = 2, JOURNAL_FAILED = 3, JOURNAL_SEALED = 4 };
enum journal_kind { JOURNAL_DATA = 1, JOURNAL_DISCARD = 2, JOURNAL_REWRITE = 3 };

struct journal_record {
    uint64_t sequence;
    uint64_t offset; /* bytes, as are the next two */
    uint64_t length;
    uint64_t place;
    enum journal_kind kind;
};

/* What ties a journal to the upper beside it. */
struct journal_owner {
    char uuid[37];
    uint64_t data_device;
    uint64_t data_inode;
};

#define JOURNAL_MAX_SLOTS   (1u << 20)
#define JOURNAL_HOLDER_SIZE 64

/* What lies in a journal file, read without changing it. */
struct journal_contents {
    bool exists;
    const char *damage; /* what is wrong with it, a constant; NULL: nothing that we can see */
    bool has_header;    /* a whole one: what follows up to holder is known */
    uint64_t nr_lost;   /* whole records of this boot that cannot be applied, as those before them are gone */
    bool is_same_boot;
    bool is_same_uuid;
    bool is_same_file; /* device and inode of the data file */
    enum journal_state state;
    uint64_t flushed_sequence;
    uint64_t index_length;
    char holder[JOURNAL_HOLDER_SIZE];
    struct journal_record *records; /* owned; those not flushed, in order */
    size_t nr_records;
    bool is_provably_empty; /* no records, and nothing damaged where the first would lie */
};

struct journal;

/* Reads what is there; a missing file is OBD_OK with exists false, a damaged one is
 * OBD_OK too.  records is filled whoever the owner is, as far as it is whole. */
enum obd_status journal_read(const char *path, const struct journal_owner *owner, struct journal_contents *contents);
void journal_contents_free(struct journal_contents *contents);

/* Makes path an empty journal, state open, of nr_slots preallocated slots.  What is
 * there must have been dealt with: a whole journal is taken over, with the slots
 * that it has, anything else is replaced.  path NULL: it lives in memory only. */
enum obd_status journal_create(const char *path, const struct journal_owner *owner, const char *holder,
                               uint64_t nr_slots, uint64_t index_length, struct journal **out);

/* Writes state into the header of a journal that nobody has open, and syncs it. */
enum obd_status journal_mark(const char *path, enum journal_state state);

uint64_t journal_nr_slots(const struct journal *journal);
uint64_t journal_nr_free(const struct journal *journal);
uint64_t journal_last_sequence(const struct journal *journal); /* 0: none yet */
uint64_t journal_flushed_sequence(const struct journal *journal);

/* Writes the next record; there must be a free slot.  Gives it its sequence. After
 * a failure the journal is as it was. */
enum obd_status journal_append(struct journal *journal, struct journal_record *record);

/* The record of this sequence, from memory; valid until trimmed.  May be called
 * without the lock for sequences that the caller saw under it. */
const struct journal_record *journal_at(const struct journal *journal, uint64_t sequence);

/* All up to sequence are in the index file, which is index_length long and
 * synced: their slots are free.  After a failure none is. */
enum obd_status journal_trim(struct journal *journal, uint64_t sequence, uint64_t index_length);

/* Writes the state and syncs the header, as far as that can be done: what it says
 * (failed, sealed) must be known after a power cut too. */
enum obd_status journal_set_state(struct journal *journal, enum journal_state state);

void journal_close(struct journal *journal); /* leaves the file as it is */

#endif
