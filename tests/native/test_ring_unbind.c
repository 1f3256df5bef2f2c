/* How rings come and go, alone and beside others.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ring_fixture.h"

/* ---- the end of a ring ---- */

TEST(unbind_waits_for_parked_commands_until_its_deadline)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.is_slow = true, .slow_ms = NEVER_MS});
    struct cdb cdb = cdb_16(0x88, 0, 0, 8);
    kernel_put(&scene.kernel, 2, cdb.bytes, 4096);
    kernel_tell(&scene.kernel);
    wait_until_parked(&scene.disk, 1);
    CHECK(obd_ring_unbind(scene.ring, 0, 20) == OBD_E_TIMEOUT);
    device_fail_parked(scene.disk.device, OBD_E_CANCELLED);
    CHECK_OK(obd_ring_unbind(scene.ring, 0, KERNEL_WAIT_MS));
    scene.ring = NULL;
    CHECK(kernel_answer(&scene.kernel).sense == SENSE_NO_COMMUNICATION);
    scene_stop(&scene);
}

TEST(unbind_may_leave_what_is_parked_on_the_ring)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.is_slow = true, .slow_ms = NEVER_MS});
    struct cdb cdb = cdb_16(0x88, 0, 0, 8);
    kernel_put(&scene.kernel, 2, cdb.bytes, 4096);
    kernel_tell(&scene.kernel);
    wait_until_parked(&scene.disk, 1);
    CHECK_OK(obd_ring_unbind(scene.ring, 1, KERNEL_WAIT_MS));
    scene.ring = NULL;
    CHECK(tail_of(&scene.kernel) == 0);
    device_fail_parked(scene.disk.device, OBD_E_CANCELLED); /* ends unanswered, and the ring with it */
    kernel_expect_silence(&scene.kernel, 20);
    CHECK(tail_of(&scene.kernel) == 0);
    scene_stop(&scene);
}

TEST(unbind_leaves_what_waits_for_a_device_or_for_python)
{
    struct rig rig;
    rig_start(&rig, 1);
    rig.python.is_silent = true;
    struct kernel kernel = kernel_make(RING_BYTES);
    struct ring *ring = ring_make_late(&rig, &kernel, 0);
    struct cdb cdb = cdb_16(0x88, 0, 0, 8);
    kernel_put(&kernel, 1, cdb.bytes, 4096);
    kernel_put(&kernel, 2, inquiry_cdb.bytes, 96);
    kernel_tell(&kernel);
    wait_until_waiting(ring, 1);
    CHECK_OK(obd_ring_unbind(ring, 1, KERNEL_WAIT_MS));
    kernel_expect_silence(&kernel, 20);
    CHECK(tail_of(&kernel) == 0);
    kernel_drop(&kernel);
    rig_stop(&rig);
}

/* What one daemon left, the next finds when it binds, without a new event. */
TEST(bind_takes_what_lies_on_the_ring_already)
{
    struct rig rig;
    rig_start(&rig, 1);
    struct disk disk = disk_make(rig.core, (struct disk_params){.has_upper = false});
    struct kernel kernel = kernel_make(RING_BYTES);
    struct cdb cdb = cdb_16(0x88, 0, 64, 8);
    kernel_put(&kernel, 1, cdb.bytes, 4096);
    publish_head(&kernel, kernel.head);
    struct ring *ring = ring_make(&rig, &kernel, &disk);
    CHECK(kernel_answer(&kernel).id == 1);
    check_sectors(&kernel, 1, 64, 8);
    CHECK_OK(obd_ring_unbind(ring, 0, KERNEL_WAIT_MS));
    disk_drop(&disk);
    kernel_drop(&kernel);
    rig_stop(&rig);
}

/* ---- several ---- */

struct load {
    struct kernel *kernel;
    unsigned nr;
};

static void *run_load(void *argument)
{
    struct load *load = argument;
    for (unsigned i = 0; i < load->nr; i++) {
        struct cdb cdb = cdb_16(0x88, 0, i * 8 % DISK_SECTORS, 8);
        for (uint16_t id = 0; id < 8; id++)
            kernel_put(load->kernel, id, cdb.bytes, 4096);
        kernel_put(load->kernel, 8, inquiry_cdb.bytes, 96);
        kernel_tell(load->kernel);
        for (int j = 0; j < 9; j++)
            CHECK(kernel_answer(load->kernel).status == SCSI_GOOD);
    }
    return NULL;
}

TEST(rings_come_and_go_beside_others_under_load)
{
    enum { NR = 3 };
    struct rig rig;
    rig_start(&rig, 2);
    struct disk disk = disk_make(rig.core, (struct disk_params){.has_upper = true});
    struct kernel kernels[NR], other = kernel_make(RING_BYTES);
    struct ring *rings[NR];
    struct load loads[NR];
    pthread_t threads[NR];
    for (int i = 0; i < NR; i++) {
        kernels[i] = kernel_make(RING_BYTES);
        rings[i] = ring_make(&rig, &kernels[i], &disk);
        loads[i] = (struct load){&kernels[i], 300};
        CHECK(pthread_create(&threads[i], NULL, run_load, &loads[i]) == 0);
    }
    for (int i = 0; i < 50; i++) {
        other.head = other.cleaned = 0;
        publish_head(&other, 0);
        kernel_mailbox(&other)->cmd_tail = 0;
        struct ring *ring = ring_make(&rig, &other, &disk);
        CHECK(read_sectors(&other, 1, 0, 8).status == SCSI_GOOD);
        CHECK_OK(obd_ring_unbind(ring, i % 2, KERNEL_WAIT_MS));
    }
    for (int i = 0; i < NR; i++) {
        pthread_join(threads[i], NULL);
        CHECK_OK(obd_ring_unbind(rings[i], 0, KERNEL_WAIT_MS));
        kernel_drop(&kernels[i]);
    }
    kernel_drop(&other);
    disk_drop(&disk);
    rig_stop(&rig);
}

TEST(a_ring_with_data_that_never_comes_delays_no_other)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.has_upper = false});
    struct disk dead = disk_make(scene.rig.core, (struct disk_params){.is_slow = true, .slow_ms = NEVER_MS});
    struct kernel kernel = kernel_make(RING_BYTES);
    struct ring *ring = ring_make(&scene.rig, &kernel, &dead);
    for (uint16_t id = 0; id < 16; id++) {
        struct cdb cdb = cdb_16(0x88, 0, id * 64, 8);
        kernel_put(&kernel, id, cdb.bytes, 4096);
    }
    kernel_tell(&kernel);
    wait_until_parked(&dead, 16);
    struct load load = {&scene.kernel, 100};
    run_load(&load);
    device_fail_parked(dead.device, OBD_E_CANCELLED);
    CHECK_OK(obd_ring_unbind(ring, 0, KERNEL_WAIT_MS));
    disk_drop(&dead);
    kernel_drop(&kernel);
    scene_stop(&scene);
}

TEST_MAIN(T(unbind_waits_for_parked_commands_until_its_deadline), T(unbind_may_leave_what_is_parked_on_the_ring),
          T(unbind_leaves_what_waits_for_a_device_or_for_python), T(bind_takes_what_lies_on_the_ring_already),
          T(rings_come_and_go_beside_others_under_load), T(a_ring_with_data_that_never_comes_delays_no_other))
