/* See tcmu.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "front/tcmu.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "front/ring_command.h"

#define MAX_THREADS 64
/* Nothing tells of the end of the last command, since that is rare to be waited
 * for; it is looked for so often. */
#define IDLE_POLL_NS (2 * NS_PER_MS)
/* How long tcmu_bind may wait for the ring thread, which never blocks. */
#define BIND_TIMEOUT_NS (10 * NS_PER_SECOND)

struct tcmu {
    struct control_queue controls;
    unsigned nr_threads;
    struct ring_thread *threads[MAX_THREADS];
    uint64_t last_ring_id; /* atomic */
};

/* ---- life ---- */

enum obd_status tcmu_open(const struct obd_tcmu_params *params, struct tcmu **out)
{
    unsigned nr = params->nr_threads != 0 ? params->nr_threads : 1;
    if (nr > MAX_THREADS)
        return status_set(OBD_E_INVALID, "%u ring threads, at most %u", nr, MAX_THREADS);
    struct tcmu *tcmu = calloc(1, sizeof *tcmu);
    if (tcmu == NULL)
        return status_set(OBD_E_NO_MEMORY, "tcmu: no memory");
    control_queue_init(&tcmu->controls);
    for (; tcmu->nr_threads < nr; tcmu->nr_threads++) {
        enum obd_status status = ring_thread_open(&tcmu->controls, &tcmu->threads[tcmu->nr_threads]);
        if (status != OBD_OK) {
            tcmu_close(tcmu);
            return status;
        }
    }
    *out = tcmu;
    return OBD_OK;
}

/* What a thread leaves behind may still use the control queue: then all stays. */
void tcmu_close(struct tcmu *tcmu)
{
    bool is_all_gone = true;
    control_close(&tcmu->controls);
    for (unsigned i = 0; i < tcmu->nr_threads; i++)
        is_all_gone &= ring_thread_close(tcmu->threads[i]);
    if (!is_all_gone)
        return;
    control_queue_destroy(&tcmu->controls);
    free(tcmu);
}

/* ---- rings ---- */

struct watch_call {
    struct ring *ring;
    enum obd_status status;
    char text[STATUS_TEXT_SIZE]; /* sentences belong to the thread that failed */
};

/* What lies on the ring already is taken at once: its event may have been read by
 * a process before us. */
static void watch_ring(void *argument)
{
    struct watch_call *call = argument;
    call->status = ring_thread_watch(call->ring->thread, call->ring);
    if (call->status == OBD_OK)
        ring_walk(call->ring);
    else
        snprintf(call->text, sizeof call->text, "%s", status_text());
}

enum obd_status tcmu_bind(struct tcmu *tcmu, const struct obd_ring_params *params, struct ring **out)
{
    uint64_t id = __atomic_add_fetch(&tcmu->last_ring_id, 1, __ATOMIC_RELAXED);
    struct ring *ring;
    enum obd_status status = ring_open(tcmu->threads[id % tcmu->nr_threads], params, id, &ring);
    if (status != OBD_OK)
        return status;
    struct watch_call call = {.ring = ring};
    status = ring_thread_call(ring->thread, watch_ring, &call, clock_now_ns() + BIND_TIMEOUT_NS);
    if (status == OBD_OK && call.status != OBD_OK)
        status = status_set(call.status, "%s", call.text);
    if (status != OBD_OK)
        ring_close(ring);
    else
        *out = ring;
    return status;
}

struct state_call {
    struct ring *ring;
    struct device *device;
    enum obd_status status;
};

static void set_device(void *argument)
{
    struct state_call *call = argument;
    ring_set_device(call->ring, call->device);
}

static void set_failing(void *argument)
{
    struct state_call *call = argument;
    ring_set_failing(call->ring, call->status);
}

enum obd_status tcmu_set_device(struct ring *ring, struct device *device, uint64_t deadline_ns)
{
    struct state_call call = {.ring = ring, .device = device};
    return ring_thread_call(ring->thread, set_device, &call, deadline_ns);
}

enum obd_status tcmu_set_broken(struct ring *ring, enum obd_status status, uint64_t deadline_ns)
{
    struct state_call call = {.ring = ring, .status = status};
    return ring_thread_call(ring->thread, set_failing, &call, deadline_ns);
}

struct stats_call {
    struct ring *ring;
    struct obd_ring_stats *stats;
};

static void read_stats(void *argument)
{
    struct stats_call *call = argument;
    const struct ring *ring = call->ring;
    *call->stats = (struct obd_ring_stats){.nr_commands = ring->nr_commands,
                                           .nr_in_flight = ring->nr_in_flight,
                                           .nr_waiting = ring->nr_waiting,
                                           .nr_batches = ring->nr_batches,
                                           .is_broken = ring->is_broken};
}

enum obd_status tcmu_ring_stats(struct ring *ring, struct obd_ring_stats *stats, uint64_t deadline_ns)
{
    struct stats_call call = {.ring = ring, .stats = stats};
    return ring_thread_call(ring->thread, read_stats, &call, deadline_ns);
}

/* ---- the end of a ring ---- */

struct unbind_call {
    struct ring *ring;
    bool leave_parked;
    bool is_gone;
};

static void stop_ring(void *argument)
{
    struct unbind_call *call = argument;
    ring_stop(call->ring, call->leave_parked);
}

/* Takes the ring out of its thread when nothing runs any more; with commands
 * parked in the core its memory stays until they end. */
static void drop_if_idle(void *argument)
{
    struct unbind_call *call = argument;
    struct ring *ring = call->ring;
    uint64_t nr_left = call->leave_parked ? ring_nr_running(ring) : ring->nr_in_flight;
    if (nr_left > 0)
        return;
    call->is_gone = true;
    if (ring->nr_in_flight > 0) {
        ring->is_detached = true;
        return;
    }
    if (ring->must_kick)
        ring_kick(ring);
    list_remove(&ring->kick_link);
    list_remove(&ring->link);
    ring_close(ring);
}

enum obd_status tcmu_unbind(struct ring *ring, bool leave_parked, uint64_t deadline_ns)
{
    struct unbind_call call = {.ring = ring, .leave_parked = leave_parked};
    struct ring_thread *thread = ring->thread;
    enum obd_status status = ring_thread_call(thread, stop_ring, &call, deadline_ns);
    while (status == OBD_OK) {
        status = ring_thread_call(thread, drop_if_idle, &call, deadline_ns);
        if (status != OBD_OK || call.is_gone)
            break;
        if (clock_now_ns() >= deadline_ns)
            return status_set(OBD_E_TIMEOUT, "ring %s: commands still run", ring->name);
        struct timespec pause = clock_timespec(IDLE_POLL_NS);
        nanosleep(&pause, NULL);
    }
    return status;
}

/* ---- control commands ---- */

enum obd_status tcmu_control_next(struct tcmu *tcmu, uint64_t deadline_ns, struct obd_control *control)
{
    return control_next(&tcmu->controls, deadline_ns, control);
}

enum obd_status tcmu_control_reply(struct tcmu *tcmu, const struct obd_control_reply *reply)
{
    struct control_entry *entry = control_take(&tcmu->controls, reply->ring_id, reply->token);
    if (entry == NULL)
        return status_set(OBD_E_NOT_FOUND, "control command %llu of ring %llu has been answered already",
                          (unsigned long long)reply->token, (unsigned long long)reply->ring_id);
    ring_command_reply(ring_command_of_control(&entry->link), reply);
    return OBD_OK;
}

void tcmu_wake(struct tcmu *tcmu)
{
    control_close(&tcmu->controls);
}
