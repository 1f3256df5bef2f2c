/* Rings without a device, and the commands that Python answers.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ring_fixture.h"

/* ---- without a device ---- */

TEST(data_commands_wait_for_the_device_and_python_answers_meanwhile)
{
    struct rig rig;
    rig_start(&rig, 1);
    struct disk disk = disk_make(rig.core, (struct disk_params){.has_upper = true});
    struct kernel kernel = kernel_make(RING_BYTES);
    struct ring *ring = ring_make_late(&rig, &kernel, 0);
    struct cdb cdb = cdb_16(0x88, 0, 10, 8);
    kernel_put(&kernel, 1, cdb.bytes, 4096);
    kernel_put(&kernel, 2, flush_cdb.bytes, 0);
    kernel_tell(&kernel);
    wait_until_waiting(ring, 2);
    CHECK(kernel_run(&kernel, 3, inquiry_cdb.bytes, 96).status == SCSI_GOOD);
    CHECK_OK(obd_ring_set_device(ring, disk.device, KERNEL_WAIT_MS));
    bool is_read_first = kernel_answer(&kernel).id == 1;
    CHECK(kernel_answer(&kernel).id == (is_read_first ? 2 : 1));
    check_sectors(&kernel, 1, 10, 8);
    CHECK_OK(obd_ring_set_device(ring, NULL, KERNEL_WAIT_MS));
    kernel_put(&kernel, 1, cdb.bytes, 4096);
    kernel_tell(&kernel);
    wait_until_waiting(ring, 1);
    CHECK_OK(obd_ring_unbind(ring, 0, KERNEL_WAIT_MS));
    CHECK(kernel_answer(&kernel).sense == SENSE_NO_COMMUNICATION);
    disk_drop(&disk);
    kernel_drop(&kernel);
    rig_stop(&rig);
}

TEST(a_device_that_does_not_come_is_waited_for_until_the_deadline)
{
    struct rig rig;
    rig_start(&rig, 1);
    struct kernel kernel = kernel_make(RING_BYTES);
    struct ring *ring = ring_make_late(&rig, &kernel, 1);
    struct answer answer = read_sectors(&kernel, 1, 0, 8);
    CHECK(answer.status == SCSI_CHECK_CONDITION && answer.sense == SENSE_NO_COMMUNICATION);
    CHECK_OK(obd_ring_unbind(ring, 0, KERNEL_WAIT_MS));
    kernel_drop(&kernel);
    rig_stop(&rig);
}

TEST(a_broken_image_fails_what_waits_and_what_comes)
{
    struct rig rig;
    rig_start(&rig, 1);
    struct kernel kernel = kernel_make(RING_BYTES);
    struct ring *ring = ring_make_late(&rig, &kernel, 0);
    struct cdb cdb = cdb_16(0x88, 0, 0, 8);
    kernel_put(&kernel, 1, cdb.bytes, 4096);
    kernel_tell(&kernel);
    wait_until_waiting(ring, 1);
    CHECK_FAILS(obd_ring_set_broken(ring, OBD_OK, KERNEL_WAIT_MS), OBD_E_INVALID, "no failure");
    CHECK_OK(obd_ring_set_broken(ring, OBD_E_CORRUPT, KERNEL_WAIT_MS));
    CHECK(kernel_answer(&kernel).sense == SENSE_READ_ERROR);
    CHECK(read_sectors(&kernel, 2, 0, 8).sense == SENSE_READ_ERROR);
    CHECK(kernel_run(&kernel, 3, inquiry_cdb.bytes, 96).status == SCSI_GOOD);
    CHECK_OK(obd_ring_unbind(ring, 0, KERNEL_WAIT_MS));
    kernel_drop(&kernel);
    rig_stop(&rig);
}

/* ---- Python's commands ---- */

TEST(a_reply_says_how_long_it_is_and_clears_the_rest)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.has_upper = false});
    memset(kernel_data(&scene.kernel, 1), 0xaa, 96);
    struct answer answer = kernel_run(&scene.kernel, 1, inquiry_cdb.bytes, 96);
    CHECK(answer.status == SCSI_GOOD && answer.uflags == TCMU_UFLAG_READ_LEN && answer.read_length == 16);
    CHECK(memcmp(kernel_data(&scene.kernel, 1), inquiry_cdb.bytes, 16) == 0);
    for (int i = 16; i < 96; i++)
        CHECK(kernel_data(&scene.kernel, 1)[i] == 0);
    answer = kernel_run(&scene.kernel, 1, inquiry_cdb.bytes, 5);
    CHECK(answer.status == SCSI_GOOD && answer.read_length == 5);
    scene_stop(&scene);
}

TEST(what_python_does_not_answer_is_not_ready_after_a_while)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.has_upper = false});
    __atomic_store_n(&scene.rig.python.is_silent, true, __ATOMIC_RELEASE);
    kernel_put(&scene.kernel, 1, inquiry_cdb.bytes, 96);
    kernel_tell(&scene.kernel);
    CHECK(read_sectors(&scene.kernel, 2, 0, 8).status == SCSI_GOOD); /* no other waits for it */
    struct answer answer = kernel_answer(&scene.kernel);
    CHECK(answer.id == 1 && answer.sense == SENSE_NO_COMMUNICATION);
    struct obd_control_reply late = {.ring_id = obd_ring_id(scene.ring), .token = 1};
    CHECK_FAILS(obd_control_reply(scene.rig.tcmu, &late), OBD_E_NOT_FOUND, "answered already");
    scene_stop(&scene);
}

TEST(an_unbound_ring_takes_its_control_commands_along)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.has_upper = false});
    __atomic_store_n(&scene.rig.python.is_silent, true, __ATOMIC_RELEASE);
    kernel_put(&scene.kernel, 1, inquiry_cdb.bytes, 96);
    kernel_tell(&scene.kernel);
    while (ring_stats_of(scene.ring).nr_in_flight == 0)
        sleep_ms(1);
    CHECK_OK(obd_ring_unbind(scene.ring, 0, KERNEL_WAIT_MS));
    scene.ring = NULL;
    CHECK(kernel_answer(&scene.kernel).sense == SENSE_NO_COMMUNICATION);
    scene_stop(&scene);
}

TEST_MAIN(T(data_commands_wait_for_the_device_and_python_answers_meanwhile),
          T(a_device_that_does_not_come_is_waited_for_until_the_deadline),
          T(a_broken_image_fails_what_waits_and_what_comes), T(a_reply_says_how_long_it_is_and_clears_the_rest),
          T(what_python_does_not_answer_is_not_ready_after_a_while),
          T(an_unbound_ring_takes_its_control_commands_along))
