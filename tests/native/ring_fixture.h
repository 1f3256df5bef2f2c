/* ring_fixture: a disk (disk_fixture.h) behind a ring, and the kernel in front of it.
 *
 * A thread of its own plays Python: it answers each control command with the bytes
 * of its CDB, unless told to keep silent.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef RING_FIXTURE_H
#define RING_FIXTURE_H

#include "disk_fixture.h"
#include "fake_kernel.h"
#include "front/tcmu.h"

#define RING_BYTES 4096

struct python {
    pthread_t thread;
    struct tcmu *tcmu;
    bool is_silent;
};

struct rig {
    struct core *core;
    struct tcmu *tcmu;
    struct python python;
};

static inline void *answer_controls(void *argument)
{
    struct python *python = argument;
    for (;;) {
        struct obd_control control;
        int status = obd_control_next(python->tcmu, &control, 60000);
        if (status == OBD_E_CLOSED)
            return NULL;
        CHECK(status == OBD_OK);
        if (__atomic_load_n(&python->is_silent, __ATOMIC_ACQUIRE))
            continue;
        struct obd_control_reply reply = {
            .ring_id = control.ring_id, .token = control.token, .data = control.cdb, .length = sizeof control.cdb};
        obd_control_reply(python->tcmu, &reply);
    }
}

/* The rig stays where it is: the thread points into it. */
static inline void rig_start(struct rig *rig, unsigned nr_threads)
{
    const struct obd_tcmu_params params = {.nr_threads = nr_threads};
    rig->core = core_make(4, 0);
    CHECK_OK(obd_tcmu_open(&params, &rig->tcmu));
    rig->python = (struct python){.tcmu = rig->tcmu};
    CHECK(pthread_create(&rig->python.thread, NULL, answer_controls, &rig->python) == 0);
}

static inline void rig_stop(struct rig *rig)
{
    obd_tcmu_wake(rig->tcmu);
    pthread_join(rig->python.thread, NULL);
    obd_tcmu_close(rig->tcmu);
    core_close(rig->core);
}

static inline struct ring *ring_make_late(struct rig *rig, struct kernel *kernel, uint32_t open_timeout_ms)
{
    struct ring *ring;
    const struct obd_ring_params params = {.fd = kernel->ring_fd,
                                           .name = "uio0",
                                           .map_size = kernel->size,
                                           .map = kernel->map,
                                           .open_timeout_ms = open_timeout_ms};
    CHECK_OK(obd_ring_bind(rig->tcmu, &params, &ring));
    return ring;
}

static inline struct ring *ring_make(struct rig *rig, struct kernel *kernel, struct disk *disk)
{
    struct ring *ring = ring_make_late(rig, kernel, 0);
    CHECK_OK(obd_ring_set_device(ring, disk->device, KERNEL_WAIT_MS));
    return ring;
}

static inline struct obd_ring_stats ring_stats_of(struct ring *ring)
{
    struct obd_ring_stats stats;
    CHECK_OK(obd_ring_stats(ring, &stats, KERNEL_WAIT_MS));
    return stats;
}

/* Until nr commands of the ring wait for a device. */
static inline void wait_until_waiting(struct ring *ring, uint64_t nr)
{
    for (int i = 0; i < 30000 && ring_stats_of(ring).nr_waiting != nr; i++)
        sleep_ms(1);
    CHECK(ring_stats_of(ring).nr_waiting == nr);
}

static inline void wait_until_broken(struct ring *ring)
{
    for (int i = 0; i < 30000 && !ring_stats_of(ring).is_broken; i++)
        sleep_ms(1);
    CHECK(ring_stats_of(ring).is_broken);
}

#endif
