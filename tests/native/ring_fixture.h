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

static const struct cdb flush_cdb __attribute__((unused)) = {{0x35}};
static const struct cdb inquiry_cdb __attribute__((unused)) = {{0x12, 1, 0x80, 0, 96}};

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

/* ---- commands ---- */

static inline struct answer read_sectors(struct kernel *kernel, uint16_t id, uint64_t lba, uint32_t nr)
{
    struct cdb cdb = cdb_16(0x88, 0, lba, nr);
    return kernel_run(kernel, id, cdb.bytes, nr * SECTOR_SIZE);
}

/* The data of a command that read the lower's sectors from lba on. */
static inline void check_sectors(struct kernel *kernel, uint16_t id, uint64_t lba, uint32_t nr)
{
    static uint8_t bytes[KERNEL_DATA_ROOM];
    kernel_copy(kernel, id, bytes, nr * SECTOR_SIZE, false);
    for (uint32_t i = 0; i < nr; i++)
        CHECK(sector_check((struct sector *)bytes + i, lba + i) == LOWER_STAMP);
}

/* One ring with one disk, for the tests that need no more. */
struct scene {
    struct rig rig;
    struct disk disk;
    struct kernel kernel;
    struct ring *ring;
};

static inline void scene_start(struct scene *scene, struct disk_params params)
{
    rig_start(&scene->rig, 1);
    scene->disk = disk_make(scene->rig.core, params);
    scene->kernel = kernel_make(RING_BYTES);
    scene->ring = ring_make(&scene->rig, &scene->kernel, &scene->disk);
}

static inline void scene_stop(struct scene *scene)
{
    if (scene->ring != NULL)
        CHECK_OK(obd_ring_unbind(scene->ring, 0, KERNEL_WAIT_MS));
    disk_drop(&scene->disk);
    kernel_drop(&scene->kernel);
    rig_stop(&scene->rig);
}

#endif
