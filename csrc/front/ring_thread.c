/* See ring_thread.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "front/ring_thread.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "front/control.h"
#include "front/ring_command.h"
#include "front/scsi_sense.h"

#define MAX_EVENTS 16
/* Deadlines are seconds long; looking at them twice a second is exact enough. */
#define LOOK_INTERVAL_NS (500 * NS_PER_MS)
/* Bytes of small commands that a turn moves by itself: some 100 microseconds, so
 * that other rings of the thread are not kept waiting. */
#define INLINE_BYTES (128u << 10)

/* On the stack of the thread that waits for it. */
struct ring_call {
    void (*work)(void *argument);
    void *argument;
    enum { CALL_QUEUED, CALL_RUNNING, CALL_DONE } state;
    struct list link;
};

/* ---- from other threads ---- */

/* Called with the lock held: true when the caller must write to the eventfd. */
static bool must_wake(struct ring_thread *thread)
{
    bool was_asleep = !thread->is_awake;
    thread->is_awake = true;
    return was_asleep;
}

static void wake(struct ring_thread *thread)
{
    uint64_t one = 1;
    if (write(thread->wake_fd, &one, sizeof one) < 0)
        log_fatal("ring thread: cannot be woken: error %d", errno); /* an eventfd of ours, far from full */
}

void ring_thread_finish(struct ring_thread *thread, struct list *link)
{
    pthread_mutex_lock(&thread->lock);
    list_append(&thread->finished, link);
    bool wake_it = must_wake(thread);
    pthread_mutex_unlock(&thread->lock);
    if (wake_it)
        wake(thread);
}

/* Called with the lock held.  A call that has begun is waited for without a
 * deadline: it lies on our stack, and no work blocks. */
static void wait_for_call(struct ring_thread *thread, struct ring_call *call, uint64_t deadline_ns)
{
    bool is_in_time = true;
    while (call->state == CALL_QUEUED && is_in_time)
        is_in_time = condition_wait(&thread->call_done, &thread->lock, deadline_ns);
    while (call->state == CALL_RUNNING)
        condition_wait(&thread->call_done, &thread->lock, NEVER_NS);
    if (call->state == CALL_QUEUED)
        list_remove(&call->link);
}

enum obd_status ring_thread_call(struct ring_thread *thread, void (*work)(void *argument), void *argument,
                                 uint64_t deadline_ns)
{
    struct ring_call call = {.work = work, .argument = argument, .state = CALL_QUEUED};
    pthread_mutex_lock(&thread->lock);
    list_append(&thread->calls, &call.link);
    if (must_wake(thread))
        wake(thread);
    wait_for_call(thread, &call, deadline_ns);
    pthread_mutex_unlock(&thread->lock);
    return call.state == CALL_DONE ? OBD_OK : status_set(OBD_E_TIMEOUT, "the ring thread does not answer in time");
}

/* ---- on the thread ---- */

enum obd_status ring_thread_watch(struct ring_thread *thread, struct ring *ring)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = ring};
    if (epoll_ctl(thread->epoll_fd, EPOLL_CTL_ADD, ring->fd, &event) != 0)
        return status_set_errno(errno, "ring %s: watch its descriptor", ring->name);
    list_append(&thread->rings, &ring->link);
    return OBD_OK;
}

void ring_thread_unwatch(struct ring_thread *thread, int fd)
{
    epoll_ctl(thread->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

void ring_thread_has_deadline(struct ring_thread *thread)
{
    if (thread->has_deadlines)
        return;
    thread->has_deadlines = true;
    thread->next_look_ns = clock_now_ns() + LOOK_INTERVAL_NS;
}

static void kick_rings(struct ring_thread *thread)
{
    struct list *link;
    while ((link = list_pop(&thread->to_kick)) != NULL)
        ring_kick(LIST_ENTRY(link, struct ring, kick_link));
}

static struct list *next_finished(struct ring_thread *thread)
{
    pthread_mutex_lock(&thread->lock);
    struct list *link = list_pop(&thread->finished);
    pthread_mutex_unlock(&thread->lock);
    return link;
}

/* Answers all that has ended so far, in one batch for each ring. */
static void answer_finished(struct ring_thread *thread)
{
    struct list *link;
    while ((link = next_finished(thread)) != NULL)
        ring_command_ended(LIST_ENTRY(link, struct ring_command, link));
    kick_rings(thread);
}

static struct ring_call *next_call(struct ring_thread *thread)
{
    pthread_mutex_lock(&thread->lock);
    struct list *link = list_pop(&thread->calls);
    struct ring_call *call = link != NULL ? LIST_ENTRY(link, struct ring_call, link) : NULL;
    if (call != NULL)
        call->state = CALL_RUNNING;
    pthread_mutex_unlock(&thread->lock);
    return call;
}

static void run_calls(struct ring_thread *thread)
{
    struct ring_call *call;
    while ((call = next_call(thread)) != NULL) {
        call->work(call->argument);
        pthread_mutex_lock(&thread->lock);
        call->state = CALL_DONE; /* the caller's stack may be gone once the lock is */
        pthread_cond_broadcast(&thread->call_done);
        pthread_mutex_unlock(&thread->lock);
    }
}

static bool expire_controls(struct ring_thread *thread, uint64_t now_ns)
{
    struct list expired, *link;
    list_init(&expired);
    bool is_more = control_expire(thread->controls, now_ns, &expired);
    while ((link = list_pop(&expired)) != NULL) {
        struct ring_command *command = ring_command_of_control(link);
        log_write(OBD_LOG_WARNING, "ring %s: opcode %02x: Python gave no answer in %u ms", command->ring->name,
                  command->cdb[0], CONTROL_TIMEOUT_MS);
        ring_command_end(command, SENSE_NO_COMMUNICATION);
    }
    return is_more;
}

static void look_at_clock(struct ring_thread *thread)
{
    uint64_t now_ns;
    if (!thread->has_deadlines || (now_ns = clock_now_ns()) < thread->next_look_ns)
        return;
    bool is_more = expire_controls(thread, now_ns);
    for (struct list *link = thread->rings.next; link != &thread->rings; link = link->next)
        is_more |= ring_expire(LIST_ENTRY(link, struct ring, link), now_ns);
    thread->has_deadlines = is_more;
    thread->next_look_ns = now_ns + LOOK_INTERVAL_NS;
}

/* Milliseconds that the thread may sleep; 0 when something came meanwhile. */
static int sleep_ms(struct ring_thread *thread)
{
    pthread_mutex_lock(&thread->lock);
    bool has_work = !list_is_empty(&thread->finished) || !list_is_empty(&thread->calls) || thread->is_stopping;
    thread->is_awake = has_work;
    pthread_mutex_unlock(&thread->lock);
    if (has_work)
        return 0;
    return thread->has_deadlines ? (int)(LOOK_INTERVAL_NS / NS_PER_MS) : -1;
}

static void quiet_eventfd(struct ring_thread *thread)
{
    uint64_t count;
    ssize_t nr = read(thread->wake_fd, &count, sizeof count);
    (void)nr; /* EAGAIN: it was quiet already */
}

static int wait_for_events(struct ring_thread *thread, struct epoll_event *events)
{
    int nr = epoll_wait(thread->epoll_fd, events, MAX_EVENTS, sleep_ms(thread));
    pthread_mutex_lock(&thread->lock);
    thread->is_awake = true;
    pthread_mutex_unlock(&thread->lock);
    return nr;
}

/* Rings leave only in run_calls, and are unwatched before; so no event of a
 * later turn points to one that is gone. */
static void take_turn(struct ring_thread *thread)
{
    struct epoll_event events[MAX_EVENTS];
    int nr = wait_for_events(thread, events);
    thread->inline_left = INLINE_BYTES;
    for (int i = 0; i < nr; i++) {
        struct ring *ring = events[i].data.ptr;
        if (ring == NULL) {
            quiet_eventfd(thread);
            continue;
        }
        thread->is_last_ring = i == nr - 1;
        ring_walk(ring);
        answer_finished(thread);
    }
    answer_finished(thread);
    run_calls(thread);
    look_at_clock(thread);
    kick_rings(thread);
}

static bool is_stopping(struct ring_thread *thread)
{
    pthread_mutex_lock(&thread->lock);
    bool stopping = thread->is_stopping;
    pthread_mutex_unlock(&thread->lock);
    return stopping;
}

static void *ring_thread_main(void *argument)
{
    struct ring_thread *thread = argument;
    while (!is_stopping(thread))
        take_turn(thread);
    answer_finished(thread); /* handed over before the end: a detached ring goes with its last command */
    return NULL;
}

/* ---- life ---- */

static void init_thread(struct ring_thread *thread, struct control_queue *controls)
{
    *thread = (struct ring_thread){.controls = controls, .epoll_fd = -1, .wake_fd = -1};
    list_init(&thread->rings);
    list_init(&thread->to_kick);
    list_init(&thread->finished);
    list_init(&thread->calls);
    pthread_mutex_init(&thread->lock, NULL);
    condition_init(&thread->call_done);
}

static void destroy_thread(struct ring_thread *thread)
{
    close(thread->epoll_fd);
    close(thread->wake_fd);
    pthread_cond_destroy(&thread->call_done);
    pthread_mutex_destroy(&thread->lock);
    free(thread);
}

static enum obd_status open_descriptors(struct ring_thread *thread)
{
    thread->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (thread->epoll_fd < 0)
        return status_set_errno(errno, "ring thread: make an epoll instance");
    thread->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (thread->wake_fd < 0)
        return status_set_errno(errno, "ring thread: make an eventfd");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(thread->epoll_fd, EPOLL_CTL_ADD, thread->wake_fd, &event) != 0)
        return status_set_errno(errno, "ring thread: watch the eventfd");
    return OBD_OK;
}

enum obd_status ring_thread_open(struct control_queue *controls, struct ring_thread **out)
{
    struct ring_thread *thread = malloc(sizeof *thread);
    if (thread == NULL)
        return status_set(OBD_E_NO_MEMORY, "ring thread: no memory");
    init_thread(thread, controls);
    enum obd_status status = open_descriptors(thread);
    if (status == OBD_OK)
        status = thread_start("obd-ring", ring_thread_main, thread, &thread->thread);
    if (status != OBD_OK)
        destroy_thread(thread);
    else
        *out = thread;
    return status;
}

bool ring_thread_close(struct ring_thread *thread)
{
    pthread_mutex_lock(&thread->lock);
    thread->is_stopping = true;
    if (must_wake(thread))
        wake(thread);
    pthread_mutex_unlock(&thread->lock);
    pthread_join(thread->thread, NULL);
    if (!list_is_empty(&thread->rings))
        return false;
    destroy_thread(thread);
    return true;
}
