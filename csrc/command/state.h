/* state: what the files of command/ share: the core, its devices, and the locks.
 *
 *   core ---+-- run queue: devices with queued commands, in turn   (queue.c)
 *           +-- workers                                            (core.c)
 *           +-- timer thread: deadlines and pauses                 (deadline.c)
 *           +-- park: the bytes that misses may hold, globally     (park.c)
 *           +-- devices
 *   device -+-- in_flight: its commands, oldest first              (device.c)
 *           +-- ranges                                             (range_lock.c)
 *           +-- its hold, and images that were replaced            (hold.c)
 *           +-- its share of park, commands waiting for admission  (park.c)
 *           +-- flusher: a thread of its own, from the first flush (flush.c)
 *           +-- shards: counters that two threads do not share     (shard.c)
 *
 * Threads: nr_workers + 1 timer + one flusher for each device that was ever
 * flushed.  A disk that hangs in a sync so delays its own device only.
 *
 * A command that runs belongs to one thread.  It becomes visible to others only
 * through a wait (wait.c), and then its state says who may take it.
 *
 * Locks, in the order in which they may be taken.  None is held while a source,
 * the upper, a range lock, or done is called.
 *
 *   timer.lock    list of devices, when the timer sleeps until
 *   device.lock   of its commands: state, doom, is_woken, deadline_ns, in_flight, and
 *                 link while paused or in the flusher's queue
 *   queue.lock    the run queue; of a command link while queued
 *   park.lock     budgets; of a command park_link, is_admitted, admitted_bytes
 *
 * Lifetimes: a device's memory lives until device_close is over and the last worker
 * has left it; a core outlives its devices.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_COMMAND_STATE_H
#define OBD_COMMAND_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/histogram.h"
#include "command/core.h"

#define NR_SHARDS 16

/* ---- park.c --------------------------------------------------------------- */

struct park {
    pthread_mutex_t lock;
    uint64_t budget;
    uint64_t bytes;      /* admitted, over all devices */
    struct list devices; /* those with commands that wait, in turn */
};

struct device_park {
    uint64_t budget;
    uint64_t bytes;       /* admitted */
    unsigned nr_admitted; /* commands */
    struct list waiting;  /* commands, first come first served */
    struct list link;     /* in park.devices while waiting is not empty */
};

void park_init(struct park *park, uint64_t budget);
void park_destroy(struct park *park);
void device_park_init(struct device_park *share, uint64_t budget);

/* Waits for what the command's demand has collected. */
void park_command(struct command *command);

/* Asks for an end of the wait of a command that was taken from it.  False: a wake
 * is still to come, though not for long. */
bool park_forget(struct command *command, enum obd_status status);

/* Gives back pins and budget, if it has any, and admits who can go now. */
void park_release(struct command *command);

/* ---- queue.c -------------------------------------------------------------- */

struct run_queue {
    pthread_mutex_t lock;
    pthread_cond_t not_empty;
    struct list devices; /* those with commands, in turn */
    unsigned nr_free;    /* workers that run no command */
    unsigned nr_idle;    /* of them, those that sleep */
    bool is_closed;
};

struct device_queue {
    struct list commands;
    struct list link; /* in run_queue.devices when linked */
    unsigned nr_running;
};

void run_queue_init(struct run_queue *queue, unsigned nr_workers);
void run_queue_destroy(struct run_queue *queue);
void run_queue_close(struct run_queue *queue); /* run_queue_next returns NULL from now on */
void device_queue_init(struct device_queue *share);

void run_queue_append(struct command *command);
/* False: a worker has it already. */
bool run_queue_remove(struct command *command);
/* Waits for a command; takes a reference to its device for run_queue_ran. */
struct command *run_queue_next(struct run_queue *queue);
/* The command has been run. */
void run_queue_ran(struct run_queue *queue, struct device *device);

/* ---- deadline.c ----------------------------------------------------------- */

struct timer {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    struct list devices; /* all open ones */
    _Atomic uint64_t wake_ns;
    bool is_closed;
};

enum obd_status timer_start(struct timer *timer);
void timer_stop(struct timer *timer);
void timer_add_device(struct timer *timer, struct device *device);
void timer_remove_device(struct timer *timer, struct device *device);
/* Something of a device is due at when_ns; called with no lock held. */
void timer_expect(struct timer *timer, uint64_t when_ns);

/* ---- flush.c -------------------------------------------------------------- */

struct flusher {
    pthread_cond_t not_empty;
    pthread_t thread;
    struct list commands; /* to be covered by the next sync */
    bool is_started;
    bool is_stopped;
};

void flusher_init(struct flusher *flusher);
void flusher_stop(struct device *device); /* its queue is empty */
/* Takes the command: it is done when everything before it is durable. */
void flusher_append(struct command *command);

/* ---- shard.c -------------------------------------------------------------- */

/* One thread's share of the counters, on cache lines of its own, so that threads
 * that read side by side do not slow each other. */
struct shard {
    _Alignas(64) _Atomic uint64_t nr_bytes[OBD_NR_COMMAND_KINDS];
    _Atomic uint64_t nr_bytes_from[OBD_NR_PROVENANCES];
    _Atomic uint64_t nr_errors[OBD_NR_STATUS];
    struct histogram latency[OBD_NR_COMMAND_KINDS][OBD_NR_LATENCY_CLASSES]; /* of all commands: their number, too */
    struct sampler {
        atomic_uint nr_left;      /* to be carried out at once before the next that is timed */
        _Atomic uint64_t last_ns; /* how long the last took that was */
    } samplers[OBD_NR_COMMAND_KINDS];
};

struct shard *shard_of_thread(struct device *device);
void shard_count(struct shard *shard, const struct command *command);
void shard_add(const struct shard *shard, struct obd_device_stats *stats); /* adds what it has counted */
void shard_add_latency(const struct shard *shard, struct obd_latency *out);

/* A command is about to be carried out at once: 0, or the time, when it shall be timed. */
uint64_t sampler_begin(struct sampler *sampler);
/* It was; returns how long that is taken to have been. */
uint64_t sampler_end(struct sampler *sampler, uint64_t began_ns);

/* ---- core.c, device.c ----------------------------------------------------- */

struct core {
    struct run_queue queue;
    struct timer timer;
    struct park park;
    unsigned nr_workers;
    pthread_t *workers;
};

struct device {
    struct core *core;
    /* Changed under device.lock and a hold of all ranges (hold.c): whoever has a range may
     * use what he finds here as long as he has it, others take a reference. */
    struct image *_Atomic image;
    char *name;
    _Atomic uint64_t size; /* only grows */
    bool is_read_only;     /* then ranges are not locked: nothing changes */
    uint64_t io_timeout_ms;
    enum obd_on_timeout on_timeout;
    atomic_uint nr_references;
    atomic_int refusal; /* not OBD_OK: what every command ends with from now on */

    pthread_mutex_t lock;
    pthread_cond_t idle;
    struct list in_flight; /* oldest first, so sorted by deadline too */
    unsigned nr_in_flight; /* of them and those whose done has not returned */
    struct list paused;
    unsigned nr_parked;
    uint64_t nr_parks;
    struct flusher flusher;

    /* hold.c */
    struct range_sleeper *hold; /* the holder's, between device_hold and device_resume */
    bool is_held;               /* or about to be; this and the rest under lock */
    pthread_cond_t granted;     /* a range that hold.c sleeps for */
    struct list replaced;       /* images that reads may still use */

    struct device_queue queue; /* guarded by core->queue.lock */
    struct device_park park;   /* guarded by core->park.lock */
    struct list timer_link;    /* guarded by core->timer.lock */

    struct range_lock ranges;
    struct shard shards[NR_SHARDS];
};

struct device *device_ref(struct device *device);
void device_unref(struct device *device);

/* ---- run.c, verify.c ------------------------------------------------------ */

/* Runs a command that is the caller's: to its end or into a wait. */
void command_run(struct command *command);

/* Checks the next stretch of a VERIFY; OBD_OK also when more is left, as
 * command->progress says. */
enum obd_status command_verify(struct command *command);

/* The command does not wait for room any more. */
void command_leave_room(struct command *command);

/* ---- hold.c --------------------------------------------------------------- */

void hold_init(struct device *device);
void hold_destroy(struct device *device); /* gives back what was replaced: no command is left */

/* ---- finish.c ------------------------------------------------------------- */

/* Ends a command that is in flight and the caller's; status_text() is the reason, and
 * is made a sentence about the command. */
void command_finish(struct command *command, enum obd_status status);
/* With its doom, which needs a sentence. */
void command_end_doomed(struct command *command);
/* Ends one that never was in flight. */
void command_end_at_once(struct command *command, enum obd_status status);

/* ---- wait.c --------------------------------------------------------------- */

/* A wait begins: whatever is to wake the command may be told of it after this. */
void command_prepare_wait(struct command *command);
/* The command is no longer the caller's: it waits in state, or goes on already. */
void command_wait(struct command *command, enum command_state state);
/* For the one that was told; once for each wait. */
void command_wake(struct command *command);
void command_wake_locked(struct command *command); /* device->lock is held */

/* To a worker, with device->lock held; the command is no longer the caller's. */
void command_queue(struct command *command);

/* Runs again at resume_ns; the device's lock is held, and timer_expect comes after it. */
void command_pause(struct command *command, uint64_t resume_ns);

/* With device->lock held: takes a command out of its wait and puts it, now the
 * caller's, on list; false when it runs. */
bool command_take_from_wait(struct command *command, struct list *list);

/* With device->lock held: it shall end with status; a command that waits goes to
 * doomed, which is then given to commands_end with no lock held. */
void command_doom(struct command *command, enum obd_status status, struct list *doomed);
void commands_end(struct list *doomed);
/* Its sources shall be asked again; those that were asked have had their time. */
void commands_ask_again(struct list *late);

#endif
