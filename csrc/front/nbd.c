/* nbd: the thread of a connection: its loop, birth and end.
 *
 * The loop: take requests, queue replies of what is done, send; when nothing of
 * that can go on, sleep until the socket or a finished command (wake_fd) wakes it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/thread.h"
#include "front/nbd_connection.h"

#define DEFAULT_IN_FLIGHT 64

/* ---- ending ---- */

void nbd_break(struct nbd *nbd, enum obd_status status)
{
    if (nbd->phase == NBD_BROKEN)
        return;
    nbd->phase = NBD_BROKEN;
    nbd->ended = status;
    snprintf(nbd->ended_text, sizeof nbd->ended_text, "%s", status_text());
}

/* A WRITE whose payload will not come any more was never started. */
static void drop_incoming(struct nbd *nbd)
{
    if (nbd->phase == NBD_READING || !nbd->incoming)
        return;
    nbd_request_retire(nbd->incoming);
    nbd->incoming = NULL;
}

static void drop_replies(struct nbd *nbd)
{
    struct list *link;
    while (nbd->phase == NBD_BROKEN && (link = list_pop(&nbd->sending)))
        nbd_request_retire(LIST_ENTRY(link, struct nbd_request, link));
}

static void notice_stop(struct nbd *nbd)
{
    if (!atomic_load(&nbd->is_stopping) || nbd->stop_at_ns != NEVER_NS)
        return;
    nbd->stop_at_ns = clock_now_ns();
    if (nbd->phase == NBD_READING)
        nbd->phase = NBD_ANSWERING;
}

/* When the client must have taken something, or all; NEVER_NS when it owes nothing. */
static uint64_t send_deadline(const struct nbd *nbd)
{
    if (list_is_empty(&nbd->sending))
        return NEVER_NS;
    uint64_t by_progress = nbd->progress_ns + NBD_SEND_LIMIT_NS;
    return nbd->stop_at_ns == NEVER_NS ? by_progress : min_u64(by_progress, nbd->stop_at_ns + NBD_STOP_LIMIT_NS);
}

static void check_deadline(struct nbd *nbd)
{
    uint64_t deadline = send_deadline(nbd);
    if (deadline != NEVER_NS && clock_now_ns() >= deadline)
        nbd_break(nbd, status_set(OBD_E_CLOSED, "nbd %s: the client does not read its replies (%u in flight)",
                                  device_name(nbd->device), nbd->nr_in_flight));
}

/* ---- the loop ---- */

static void queue_replies(struct nbd *nbd)
{
    struct list done;
    list_init(&done);
    pthread_mutex_lock(&nbd->lock);
    for (struct list *link; (link = list_pop(&nbd->done));)
        list_append(&done, link);
    nbd->is_asleep = false;
    pthread_mutex_unlock(&nbd->lock);
    for (struct list *link; (link = list_pop(&done));)
        nbd_reply_queue(LIST_ENTRY(link, struct nbd_request, link));
}

static void work(struct nbd *nbd)
{
    bool is_freed;
    do {
        notice_stop(nbd);
        nbd_take_requests(nbd);
        queue_replies(nbd);
        is_freed = nbd_send(nbd);
    } while (is_freed && nbd->needs_room);
    check_deadline(nbd);
    drop_incoming(nbd);
    drop_replies(nbd);
}

/* False when something was done meanwhile: then there is no need to sleep. */
static bool fall_asleep(struct nbd *nbd)
{
    pthread_mutex_lock(&nbd->lock);
    bool is_idle = list_is_empty(&nbd->done);
    nbd->is_asleep = is_idle;
    pthread_mutex_unlock(&nbd->lock);
    return is_idle;
}

static int poll_timeout_ms(const struct nbd *nbd)
{
    uint64_t deadline = send_deadline(nbd);
    if (deadline == NEVER_NS)
        return -1;
    uint64_t now = clock_now_ns();
    return now >= deadline ? 0 : (int)((deadline - now) / NS_PER_MS) + 1;
}

static short wanted_events(const struct nbd *nbd)
{
    bool wants_input = nbd->phase == NBD_READING && !nbd->needs_room;
    bool wants_output = nbd->phase != NBD_BROKEN && !list_is_empty(&nbd->sending);
    return (short)((wants_input ? POLLIN : 0) | (wants_output ? POLLOUT : 0));
}

static void sleep_and_receive(struct nbd *nbd)
{
    if (!fall_asleep(nbd))
        return;
    short events = wanted_events(nbd);
    /* A socket of which nothing is wanted is left out, or its hang-up would make
     * this a busy loop. */
    struct pollfd fds[2] = {{.fd = nbd->wake_fd, .events = POLLIN}, {.fd = events ? nbd->fd : -1, .events = events}};
    poll(fds, 2, poll_timeout_ms(nbd));
    if (fds[0].revents & POLLIN) {
        eventfd_t count;
        eventfd_read(nbd->wake_fd, &count);
    }
    if (events & POLLIN && fds[1].revents & (POLLIN | POLLHUP | POLLERR))
        nbd_receive(nbd);
}

static void announce_end(struct nbd *nbd)
{
    pthread_mutex_lock(&nbd->lock);
    nbd->has_ended = true;
    pthread_cond_broadcast(&nbd->change);
    pthread_mutex_unlock(&nbd->lock);
}

static void *run(void *argument)
{
    struct nbd *nbd = argument;
    for (;;) {
        work(nbd);
        if (nbd->phase != NBD_READING && nbd->nr_in_flight == 0)
            break;
        sleep_and_receive(nbd);
    }
    /* The client sees the end of the connection now, not at nbd_close. */
    close(nbd->fd);
    nbd->fd = -1;
    announce_end(nbd);
    return NULL;
}

/* ---- birth and death ---- */

static void free_connection(struct nbd *nbd)
{
    for (uint32_t i = 0; nbd->slots && i < nbd->nr_slots; i++)
        free(nbd->slots[i].buffer);
    free(nbd->slots);
    if (nbd->wake_fd >= 0)
        close(nbd->wake_fd);
    if (nbd->fd >= 0)
        close(nbd->fd);
    pthread_cond_destroy(&nbd->change);
    pthread_mutex_destroy(&nbd->lock);
    free(nbd);
}

static void init_locks(struct nbd *nbd)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&nbd->change, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&nbd->lock, NULL);
}

static enum obd_status init_slots(struct nbd *nbd)
{
    nbd->slots = calloc(nbd->nr_slots, sizeof *nbd->slots);
    if (!nbd->slots)
        return status_set(OBD_E_NO_MEMORY, "nbd %s: no memory for %u requests", device_name(nbd->device),
                          nbd->nr_slots);
    for (uint32_t i = 0; i < nbd->nr_slots; i++) {
        nbd->slots[i].nbd = nbd;
        list_append(&nbd->idle, &nbd->slots[i].link);
    }
    return OBD_OK;
}

/* Takes fd only when it succeeds. */
static struct nbd *new_connection(struct device *device, const struct obd_nbd_params *params)
{
    struct nbd *nbd = calloc(1, sizeof *nbd);
    if (!nbd)
        return NULL;
    nbd->device = device;
    nbd->fd = params->fd;
    nbd->flags = params->flags;
    nbd->stop_at_ns = NEVER_NS;
    nbd->wake_fd = -1;
    nbd->nr_slots = params->max_in_flight ? params->max_in_flight : DEFAULT_IN_FLIGHT;
    nbd->nr_slots = (uint32_t)min_u64(nbd->nr_slots, NBD_MAX_SLOTS);
    list_init(&nbd->idle);
    list_init(&nbd->sending);
    list_init(&nbd->done);
    init_locks(nbd);
    return nbd;
}

static enum obd_status prepare(struct nbd *nbd)
{
    nbd->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (nbd->wake_fd < 0)
        return status_set_errno(errno, "nbd %s: eventfd", device_name(nbd->device));
    return init_slots(nbd);
}

enum obd_status nbd_start(struct device *device, const struct obd_nbd_params *params, struct nbd **out)
{
    struct nbd *nbd = new_connection(device, params);
    if (!nbd) {
        close(params->fd);
        return status_set(OBD_E_NO_MEMORY, "nbd %s: no memory for a connection", device_name(device));
    }
    enum obd_status status = prepare(nbd);
    if (status == OBD_OK)
        status = thread_start("obd-nbd", run, nbd, &nbd->thread);
    if (status != OBD_OK) {
        free_connection(nbd);
        return status;
    }
    *out = nbd;
    return OBD_OK;
}

enum obd_status nbd_wait(struct nbd *nbd, uint64_t deadline_ns)
{
    struct timespec deadline = clock_timespec(deadline_ns);
    int error = 0;
    pthread_mutex_lock(&nbd->lock);
    while (!nbd->has_ended && error != ETIMEDOUT)
        error = pthread_cond_timedwait(&nbd->change, &nbd->lock, &deadline);
    bool has_ended = nbd->has_ended;
    pthread_mutex_unlock(&nbd->lock);
    if (!has_ended)
        return status_set(OBD_E_TIMEOUT, "nbd %s: the connection goes on", device_name(nbd->device));
    return nbd->ended == OBD_OK ? OBD_OK : status_set(nbd->ended, "%s", nbd->ended_text);
}

void nbd_stop(struct nbd *nbd)
{
    atomic_store(&nbd->is_stopping, true);
    eventfd_write(nbd->wake_fd, 1);
}

void nbd_close(struct nbd *nbd)
{
    pthread_join(nbd->thread, NULL);
    free_connection(nbd);
}
