/* ring: one TCMU device: its mailbox, and where its commands go.
 *
 * Data commands go to the device that Python sets; until then they wait, each with
 * its own deadline, and when the image turns out to be broken they fail.  Commands
 * that only describe the disk go to Python (control.h) in every state.
 *
 * A mailbox that makes no sense breaks this ring only: nothing more is taken from
 * it or written to it; commands that still run end unanswered.
 *
 *   open --bind--> walked --stop--> stopped --(nothing in flight)--> closed
 *                    |                |
 *                    +--break---------+--detach--> (last command ends) --> closed
 *
 * Owned by its ring_thread: all functions but ring_open are called on it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_FRONT_RING_H
#define OBD_FRONT_RING_H

#include "command/core.h"
#include "front/control.h"
#include "front/mailbox.h"
#include "front/ring_thread.h"

#define RING_NAME_SIZE 64

enum ring_state {
    RING_OPENING, /* no device yet: data commands wait */
    RING_SERVING, /* they go to device */
    RING_FAILING  /* they end with broken_status */
};

struct ring_command;

struct ring {
    uint64_t id;
    char name[RING_NAME_SIZE];
    int fd; /* our own duplicate: libtcmu closes its when the device goes */
    struct mailbox mailbox;
    struct ring_thread *thread;
    uint64_t open_timeout_ns;

    enum ring_state state;
    struct device *device;         /* when serving */
    enum obd_status broken_status; /* when failing */
    bool is_stopped;               /* nothing is taken any more */
    bool is_broken;                /* nor written */
    bool is_detached;              /* unbound: goes when the last command has ended */
    bool must_kick;                /* in thread->to_kick */
    bool kick_carries_flush;

    struct list free;      /* ring_command, to be used again */
    struct list waiting;   /* ring_command, for a device, in order of their deadlines */
    uint64_t nr_waiting;   /* in it */
    uint64_t nr_in_flight; /* taken and not answered, those that wait included */
    uint64_t nr_commands;
    uint64_t nr_batches;
    struct list link;      /* in thread->rings */
    struct list kick_link; /* in thread->to_kick */
};

/* Opens a ring that nobody watches yet; on any thread. */
enum obd_status ring_open(struct ring_thread *thread, const struct obd_ring_params *params, uint64_t id,
                          struct ring **out);
/* Nothing is in flight. */
void ring_close(struct ring *ring);

/* The UIO descriptor is readable: takes what the kernel has put on the ring. */
void ring_walk(struct ring *ring);

/* Something is wrong with the kernel's side: logs this thread's sentence. */
void ring_break(struct ring *ring);

/* Writes the answer (command->sense, read_length) and takes command back. */
void ring_answer(struct ring *ring, struct ring_command *command);
/* Takes command back unanswered: the kernel keeps it for the next daemon. */
void ring_forget(struct ring *ring, struct ring_command *command);

/* Tells the kernel of the answers that were written since the last time. */
void ring_kick(struct ring *ring);

/* Data commands, also those that wait, go to device from now on; NULL: they wait. */
void ring_set_device(struct ring *ring, struct device *device);
/* Data commands, also those that wait, end with status from now on. */
void ring_set_failing(struct ring *ring, enum obd_status status);

/* Ends what has waited too long for a device; returns whether something still waits. */
bool ring_expire(struct ring *ring, uint64_t now_ns);

/* Takes no more.  Commands that wait for a device or for Python end now:
 * unanswered when leave_parked, else with the sense of OBD_E_CANCELLED. */
void ring_stop(struct ring *ring, bool leave_parked);

/* The commands that have not ended, but for those parked in the core. */
uint64_t ring_nr_running(const struct ring *ring);

#endif
