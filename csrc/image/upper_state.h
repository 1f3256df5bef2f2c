/* upper_state: what an open upper holds; private to upper*.c.
 *
 *   upper.c         open, close, look-ups, numbers
 *   upper_replay.c  what a journal found at open means, and applying it
 *   upper_damage.c  a damaged journal, and what is lost with it
 *   upper_index.c   the index file: records as entries, appending them
 *   upper_index_load.c  reading it, and where it ends
 *   upper_write.c   write, discard
 *   upper_wait.c    writers that wait for room in the journal
 *   upper_flush.c   flush pairs, and sharing them
 *   upper_flusher.c the thread that flushes by itself
 *   upper_fail.c    the failed state
 *   upper_grow.c    a larger disk
 *   upper_seal.c    its end as a writable layer: index and trailer behind the log
 *   upper_sealed.c  is a data file a sealed layer?
 *   upper_sparse.c  what is different when the data file is written in place
 *   upper_sectors.c the side index that goes with that
 *   upper_device.c  what is different when it is a block device
 *
 * Lock order: flush_lock, reserve_lock, map_lock.  A flush pair holds none of
 * them while it waits for the disk; flush_lock's is_flushing keeps it alone.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_IMAGE_UPPER_STATE_H
#define OBD_IMAGE_UPPER_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "image/journal.h"
#include "image/upper.h"

/* Header of the data file and of the index file: where log and entries begin. */
#define UPPER_HEADER_SIZE 4096u
#define UPPER_ENTRY_SIZE  16u

enum upper_seal_state {
    UPPER_OPEN,
    UPPER_SEALING, /* takes no writes; flushes as ever */
    UPPER_SEALED,  /* its trailer is durable, and so is all that was acknowledged */
};

struct upper {
    /* Set at open. */
    struct file *data;
    struct file *index; /* NULL: read-only, and derived */
    char *index_path;   /* of a sparse upper that of its side index */
    char *journal_path;
    char *name;                    /* the data file's path, for messages */
    _Atomic uint64_t virtual_size; /* only grows: upper_grow.c */
    uint64_t nr_slots;
    uint64_t flush_interval_ns;
    uint32_t tag;
    uint32_t flags;
    struct journal_owner owner;
    char holder[JOURNAL_HOLDER_SIZE];
    uint64_t replayed;
    uint64_t dropped_writes; /* this and the next two: as in obd_upper_stats */
    uint64_t dropped_bytes;
    bool is_drop_unexplained;
    bool is_read_only; /* opened so, or failed at an earlier start */
    bool is_sparse;
    bool is_on_device; /* the data file is a block device */

    /* Of a sparse one, while it is opened and closed. */
    struct segment_array derived; /* what the file system tells, when that had to be asked */
    bool is_derived;
    bool is_marked_open; /* the side index says so */

    /* Its disk, as upper_try_write sees it. */
    atomic_bool is_syncing;           /* a flush pair waits for it */
    _Atomic uint64_t trusted_from_ns; /* it has kept a writer waiting not long before */

    pthread_mutex_t flush_lock; /* guards group commit */
    pthread_cond_t flush_done;
    bool is_flushing;
    uint64_t flush_begun; /* pairs begun and ended; they are numbered from 1 */
    uint64_t flush_ended;
    enum obd_status flush_status; /* of the last that ended, and its sentence */
    char flush_text[STATUS_TEXT_SIZE];
    uint64_t nr_flushes;
    uint64_t nr_flush_calls;

    pthread_mutex_t reserve_lock; /* guards places in the files that are promised */
    uint64_t log_end;             /* where the next write goes */
    uint64_t log_room;            /* the data file has disk space up to here */
    uint64_t index_room;          /* as has the index file */

    pthread_mutex_t map_lock; /* guards what follows, and orders journal and map */
    struct journal *journal;  /* NULL when read-only */
    struct segment_map *map;  /* of everything acknowledged */
    uint64_t log_written;     /* end of the last data that a record points to */
    uint64_t index_length;    /* of the index file, all of it synced or found at open */
    uint64_t slots_reserved;  /* promised to writes that run */
    uint64_t entries_owed;    /* index entries of writes that run or are not flushed */
    uint64_t inserts_owed;    /* segments that running writes will insert */
    uint64_t unflushed_bytes;
    uint64_t nr_size_changes; /* written into the headers, and of them synced */
    uint64_t nr_sizes_synced;
    bool is_failed;
    enum upper_seal_state seal_state;
    struct obd_sealed_index sealed; /* while not UPPER_OPEN: what lies behind the log */
    char why_read_only[STATUS_TEXT_SIZE];
    enum obd_status room_status; /* why the last flush freed no slots, and its sentence; OBD_OK when it did */
    char room_text[STATUS_TEXT_SIZE];
    struct list waiters;

    /* The flusher, under map_lock. */
    pthread_cond_t flusher_wake;
    pthread_t flusher;
    bool has_flusher;
    bool is_closing;
    bool is_flush_wanted;
    uint64_t dirty_since_ns; /* 0: nothing unflushed */
};

/* ---- upper_index.c ---- */

/* A journal record taken apart into segments. */
struct record_walk {
    uint64_t offset; /* sectors, as are the next two */
    uint64_t left;
    uint64_t place;
    enum journal_kind kind;
    uint8_t tag;
};

struct record_walk record_walk_begin(const struct journal_record *record, uint32_t tag);
bool record_walk_next(struct record_walk *walk, struct segment *out);
/* How many segments a record of length bytes becomes. */
uint64_t record_nr_segments(enum journal_kind kind, uint64_t length);

/* What is known of an index file's entries before they are read. */
struct upper_index_bounds {
    uint64_t length;         /* none is believed behind it */
    uint64_t flushed_length; /* all before it were synced, and none need be right behind it */
    bool is_flushed_known;   /* else nobody says up to where it was flushed */
};

struct loaded_index {
    struct segment_map *map; /* owned */
    uint64_t end;            /* of the last entry that was believed */
    uint64_t dropped;        /* bytes between that and the end of the file, or of bounds->length */
    char why_dropped[STATUS_TEXT_SIZE];
};

/* Reads the index file's entries (what is corrupt and what was never flushed: see
 * upper_index_load.c). */
enum obd_status upper_index_load(struct upper *upper, const struct upper_index_bounds *bounds,
                                 struct loaded_index *out);

/* Appends the records' entries at *end and moves it. */
struct index_appender {
    struct upper *upper;
    uint64_t end; /* of what is written */
    size_t nr;    /* entries in pending */
    struct segment pending[256];
};
void index_appender_begin(struct index_appender *appender, struct upper *upper);
enum obd_status index_appender_add(struct index_appender *appender, const struct journal_record *record);
enum obd_status index_appender_finish(struct index_appender *appender);

/* ---- upper_replay.c ---- */

/* Reads the journal and the index, and brings the upper to the state they say:
 * map filled, index_length set; for a writable upper an empty journal. */
enum obd_status upper_restore(struct upper *upper);

/* ---- upper_damage.c ---- */

/* Ends the records that are to be replayed before the first that does not fit disk and
 * log, since its data was cut off. */
enum obd_status upper_cut_records(struct upper *upper, struct journal_contents *journal);

/* Says and counts what is lost, or refuses to lose it.  is_replayed: its whole records
 * are going to be. */
enum obd_status upper_accept_damage(struct upper *upper, const struct journal_contents *journal, bool is_replayed);

/* Is it laid aside before a new one takes its place? */
bool upper_journal_is_kept(const struct journal_contents *journal, bool is_replayed);
enum obd_status upper_lay_journal_aside(const struct upper *upper);

/* ---- upper_fail.c ---- */

/* A sync has failed with status, and this thread's sentence says how: the kernel may
 * have dropped the pages, and a second sync would say that all is well.  Returns
 * status, with the sentence for the one who met it. */
enum obd_status upper_fail(struct upper *upper, enum obd_status status);

/* Under map_lock: OBD_E_READ_ONLY, and why. */
enum obd_status upper_refuse(const struct upper *upper);

/* ---- upper_wait.c ---- */

/* Wakes those that wait now, while there is room; one that queues itself again has
 * its turn later.  With no lock held. */
void upper_wake_waiters(struct upper *upper);

/* ---- upper_flusher.c ---- */

enum obd_status upper_start_flusher(struct upper *upper);
void upper_stop_flusher(struct upper *upper);

/* Under map_lock: a flush is due now. */
void upper_want_flush(struct upper *upper);

#endif
