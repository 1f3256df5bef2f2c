/* command: one request for a device's data, from any front.
 *
 * The front fills the public part and submits; the core runs the command on the
 * caller's thread when it may and that cannot block, else on a worker, parks it
 * when data is missing, and calls done exactly once, on any thread, with no lock
 * held.  The command is the front's again from then on.
 *
 *   new --submit--> queued --> running --> done
 *                     ^          |  |
 *                     |          |  +--(range taken)--> waiting for the range --+
 *                     |          +--(miss, full journal)--> parked --------+    |
 *                     +-----------------(woken)-----------------------------+----+
 *   parked, waiting, queued --(deadline, cancel)--> done
 *
 * A parked command holds no range lock (architecture, rule 3).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_COMMAND_COMMAND_H
#define OBD_COMMAND_COMMAND_H

#include "base/iov.h"
#include "base/list.h"
#include "command/range_lock.h"
#include "image/image.h"

struct device;

enum command_kind {
    COMMAND_READ,
    COMMAND_WRITE,
    COMMAND_DISCARD, /* reads as zeros afterwards: UNMAP, WRITE SAME with UNMAP, TRIM, WRITE_ZEROES */
    COMMAND_FLUSH,
    COMMAND_VERIFY, /* reads and drops; with data in iov, compares: OBD_E_MISCOMPARE */
};

/* Where a command is.  All but running may be ended by the deadline or by
 * device_fail_parked; a running one belongs to the thread that runs it. */
enum command_state {
    COMMAND_RUNNING,
    COMMAND_QUEUED,            /* in the run queue, for a worker */
    COMMAND_WAITING_FOR_RANGE, /* granted will wake it */
    COMMAND_WAITING_FOR_ROOM,  /* the upper will wake it */
    COMMAND_PARKED,            /* its demand will wake it */
    COMMAND_PAUSED,            /* its source failed; the timer will run it again */
    COMMAND_FLUSHING,          /* in the flusher's queue */
};

struct command {
    /* Set by the front before command_submit. */
    enum command_kind kind;
    bool fua;        /* write, discard: durable when done */
    uint64_t offset; /* bytes, multiples of 512, inside the device; checked */
    uint64_t length;
    const struct iovec *iov; /* borrowed until done */
    int nr_iov;
    void (*done)(struct command *command);

    /* Valid in done, where status_text() is the sentence of a failure. */
    enum obd_status status;
    uint64_t miscompare_offset; /* VERIFY: the first byte that differs, from offset */

    /* The core's (command/state.h says which lock guards what). */
    struct device *device;
    struct demand demand;    /* what it is parked for, or whose pins it holds */
    uint64_t admitted_bytes; /* what of the demand is charged to the budgets */
    bool is_admitted;
    struct list park_link; /* in device->park.waiting, until admitted */
    struct range_lock_holder range;
    struct upper_waiter upper_waiter;
    struct image *room_image;     /* referenced: in whose upper it waits, or waited, for room; else NULL */
    struct list link;             /* in the queue or list of its state */
    struct list in_flight;        /* in device->in_flight, from the queue to done */
    struct provenance provenance; /* of what it has read */
    uint64_t took_ns;             /* for the statistics; 0: it was refused */
    uint64_t submitted_ns;
    uint64_t deadline_ns;
    uint64_t resume_ns; /* paused: when to run again */
    uint64_t progress;  /* VERIFY: bytes that are behind it */
    uint32_t nr_pauses;
    enum command_state state;
    enum command_state waited_in; /* the wait it was taken from */
    enum obd_status doom;         /* not OBD_OK: end with this instead of running or waiting on */
    bool is_woken;                /* the wake came before the wait was entered */
};

/* Takes command until done.  may_run_inline: the caller has nothing more urgent
 * queued, so a command that need not wait for a disk may run on its thread (done
 * may then be called before this returns).  The device must stay open during the
 * call: device_close waits for commands, not for callers on their way in. */
void command_submit(struct device *device, struct command *command, bool may_run_inline);

#endif
