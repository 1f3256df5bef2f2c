/* ring_thread: a thread that owns rings.
 *
 * It sleeps in epoll on the UIO descriptors of its rings and on one eventfd.  Only
 * this thread touches its rings and their mailboxes.  Other threads reach it in
 * two ways, both by a list under one lock and the eventfd:
 *
 *   ring_thread_finish  a command has ended (workers, Python's replies)
 *   ring_thread_call    run a function between two batches (bind, set device, ...)
 *
 * A lock around the rings instead would be shorter, but a busy ring thread, which
 * gives it up for the length of one system call only, would starve the callers.
 *
 * One turn: take what the kernel has put on the rings that are ready; answer what
 * has ended, with one kick for each ring; run the calls; look at the clock when
 * something has a deadline.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_FRONT_RING_THREAD_H
#define OBD_FRONT_RING_THREAD_H

#include <pthread.h>
#include <stdbool.h>

#include "base/list.h"
#include "base/status.h"

struct control_queue;
struct ring;

struct ring_thread {
    pthread_t thread;
    int epoll_fd;
    int wake_fd;
    struct control_queue *controls;

    /* The thread's own. */
    struct list rings;     /* struct ring, by its link */
    struct list to_kick;   /* struct ring, by its kick_link: answered, the kernel does not know yet */
    bool has_deadlines;    /* something may be waiting for a device or for Python */
    uint64_t next_look_ns; /* at the clock, when has_deadlines */
    uint64_t inline_left;  /* bytes that may still be moved on this thread in this turn */
    bool is_last_ring;     /* of the turn */

    pthread_mutex_t lock;     /* guards what follows; nothing is called under it */
    pthread_cond_t call_done; /* a call has run */
    struct list finished;     /* struct ring_command, by its link */
    struct list calls;        /* struct ring_call */
    bool is_awake;            /* it will look at the lists before it sleeps */
    bool is_stopping;
};

enum obd_status ring_thread_open(struct control_queue *controls, struct ring_thread **out);

/* Ends the thread.  False: rings with parked commands are left, whose ends may
 * still be handed over, so its memory stays for the rest of the process. */
bool ring_thread_close(struct ring_thread *thread);

/* Hands over a command that has ended, by the link of its struct ring_command. */
void ring_thread_finish(struct ring_thread *thread, struct list *link);

/* Runs work(argument) on the thread and returns when it has run; OBD_E_TIMEOUT:
 * it has not, and will not. */
enum obd_status ring_thread_call(struct ring_thread *thread, void (*work)(void *argument), void *argument,
                                 uint64_t deadline_ns);

/* ---- on the thread itself ---- */

enum obd_status ring_thread_watch(struct ring_thread *thread, struct ring *ring);
void ring_thread_unwatch(struct ring_thread *thread, int fd);

/* Something has got a deadline: look at the clock from now on. */
void ring_thread_has_deadline(struct ring_thread *thread);

#endif
