/* Rings from kernel to core: what commands do, and a ring that is not right.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ring_fixture.h"

static uint8_t bytes[KERNEL_DATA_ROOM], expected[KERNEL_DATA_ROOM];

static struct answer write_bytes(struct kernel *kernel, uint16_t id, uint8_t flags, uint64_t lba, uint32_t nr)
{
    struct cdb cdb = cdb_16(0x8a, flags, lba, nr);
    kernel_copy(kernel, id, bytes, nr * SECTOR_SIZE, true);
    return kernel_run(kernel, id, cdb.bytes, nr * SECTOR_SIZE);
}

/* ---- what is asked is done ---- */

TEST(a_read_of_scattered_buffers_brings_the_sectors)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.has_upper = false});
    CHECK(read_sectors(&scene.kernel, 3, 100, 50).status == SCSI_GOOD);
    check_sectors(&scene.kernel, 3, 100, 50);
    scene_stop(&scene);
}

TEST(what_is_written_is_read_back)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.has_upper = true});
    for (uint32_t i = 0; i < sizeof bytes; i++)
        bytes[i] = expected[i] = (uint8_t)(i * 7 + i / 4096);
    CHECK(write_bytes(&scene.kernel, 1, 0, 11, 100).status == SCSI_GOOD);
    CHECK(read_sectors(&scene.kernel, 2, 11, 100).status == SCSI_GOOD);
    kernel_copy(&scene.kernel, 2, bytes, 100 * SECTOR_SIZE, false);
    CHECK(memcmp(bytes, expected, 100 * SECTOR_SIZE) == 0);
    scene_stop(&scene);
}

TEST(a_flush_and_a_write_with_fua_are_durable_when_answered)
{
    struct scene scene;
    struct obd_upper_stats stats;
    scene_start(&scene, (struct disk_params){.has_upper = true});
    CHECK(write_bytes(&scene.kernel, 1, 0, 0, 8).status == SCSI_GOOD);
    CHECK_OK(obd_image_upper_stats(device_image(scene.disk.device), &stats));
    CHECK(stats.unflushed_bytes > 0);
    CHECK(kernel_run(&scene.kernel, 1, flush_cdb.bytes, 0).status == SCSI_GOOD);
    CHECK_OK(obd_image_upper_stats(device_image(scene.disk.device), &stats));
    CHECK(stats.unflushed_bytes == 0);
    CHECK(write_bytes(&scene.kernel, 1, 0x08, 0, 8).status == SCSI_GOOD);
    CHECK_OK(obd_image_upper_stats(device_image(scene.disk.device), &stats));
    CHECK(stats.unflushed_bytes == 0);
    scene_stop(&scene);
}

TEST(unmap_of_several_ranges_clears_each_and_nothing_else)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.has_upper = true});
    uint8_t list[8 + 3 * 16] = {0, 54, 0, 48};
    static const uint8_t lbas[3] = {4, 20, 40};
    for (int i = 0; i < 3; i++) {
        list[8 + 16 * i + 7] = lbas[i];
        list[8 + 16 * i + 11] = 2;
    }
    struct cdb unmap = {{0x42, [8] = sizeof list}};
    kernel_copy(&scene.kernel, 1, list, sizeof list, true);
    CHECK(kernel_run(&scene.kernel, 1, unmap.bytes, sizeof list).status == SCSI_GOOD);
    CHECK(read_sectors(&scene.kernel, 2, 0, 64).status == SCSI_GOOD);
    kernel_copy(&scene.kernel, 2, bytes, 64 * SECTOR_SIZE, false);
    memset(expected, 0, SECTOR_SIZE);
    for (uint64_t i = 0; i < 64; i++) {
        bool is_cleared = i / 2 == 2 || i / 2 == 10 || i / 2 == 20;
        if (is_cleared)
            CHECK(memcmp(bytes + i * SECTOR_SIZE, expected, SECTOR_SIZE) == 0);
        else
            sector_check((struct sector *)bytes + i, i);
    }
    scene_stop(&scene);
}

TEST(verify_says_whether_the_data_is_the_same)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.has_upper = false});
    struct cdb verify = cdb_16(0x8f, 0x02, 5, 8);
    CHECK(read_sectors(&scene.kernel, 1, 5, 8).status == SCSI_GOOD);
    kernel_copy(&scene.kernel, 1, bytes, 8 * SECTOR_SIZE, false);
    CHECK(kernel_run(&scene.kernel, 1, verify.bytes, 8 * SECTOR_SIZE).status == SCSI_GOOD);
    bytes[3000]++;
    kernel_copy(&scene.kernel, 1, bytes, 8 * SECTOR_SIZE, true);
    struct answer answer = kernel_run(&scene.kernel, 1, verify.bytes, 8 * SECTOR_SIZE);
    CHECK(answer.status == SCSI_CHECK_CONDITION && answer.sense == SENSE_MISCOMPARE);
    struct cdb all = cdb_16(0x8f, 0, 0, DISK_SECTORS);
    CHECK(kernel_run(&scene.kernel, 1, all.bytes, 0).status == SCSI_GOOD);
    scene_stop(&scene);
}

TEST(a_write_to_a_read_only_image_is_write_protected_and_a_flush_is_good)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.has_upper = false});
    struct answer answer = write_bytes(&scene.kernel, 1, 0, 0, 8);
    CHECK(answer.status == SCSI_CHECK_CONDITION && answer.sense == SENSE_WRITE_PROTECTED);
    CHECK(kernel_run(&scene.kernel, 1, flush_cdb.bytes, 0).status == SCSI_GOOD);
    scene_stop(&scene);
}

TEST(blocks_behind_the_end_are_refused)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.has_upper = false});
    struct answer answer = read_sectors(&scene.kernel, 1, DISK_SECTORS - 1, 2);
    CHECK(answer.status == SCSI_CHECK_CONDITION && answer.sense == SENSE_LBA_OUT_OF_RANGE);
    CHECK(read_sectors(&scene.kernel, 1, DISK_SECTORS - 1, 1).status == SCSI_GOOD);
    scene_stop(&scene);
}

TEST(every_opcode_of_vendors_is_refused_and_the_disk_goes_on)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.has_upper = false});
    for (unsigned opcode = 0x60; opcode <= 0xff; opcode = opcode == 0x7f ? 0xc0 : opcode + 1) {
        struct cdb cdb = {{(uint8_t)opcode}};
        struct answer answer = kernel_run(&scene.kernel, 1, cdb.bytes, 512);
        CHECK(answer.status == SCSI_CHECK_CONDITION && answer.sense == SENSE_INVALID_OPCODE);
    }
    CHECK(read_sectors(&scene.kernel, 1, 0, 8).status == SCSI_GOOD);
    scene_stop(&scene);
}

/* ---- the ring itself ---- */

TEST(thousands_of_commands_go_round_a_small_ring)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.has_upper = true});
    unsigned nr_put = 0, nr_answered = 0, nr_open = 0;
    bool is_open[KERNEL_IDS] = {false};
    while (nr_answered < 5000) {
        uint16_t id = (uint16_t)(nr_put % KERNEL_IDS);
        while (nr_put < 5000 && !is_open[id] && room_left(&scene.kernel) > 2 * entry_length(16)) {
            uint32_t nr = 1 + nr_put * 13 % 100;
            struct cdb cdb = cdb_16(nr_put % 5 == 0 ? 0x8f : 0x88, 0, nr_put % 3000, nr);
            kernel_put(&scene.kernel, id, cdb.bytes, nr * SECTOR_SIZE);
            is_open[id] = true;
            nr_open++;
            id = (uint16_t)(++nr_put % KERNEL_IDS);
        }
        kernel_tell(&scene.kernel);
        do {
            struct answer answer = kernel_answer(&scene.kernel);
            CHECK(answer.id < KERNEL_IDS && is_open[answer.id] && answer.status == SCSI_GOOD);
            is_open[answer.id] = false;
            nr_answered++;
            nr_open--;
        } while (nr_open > 8);
    }
    CHECK(ring_stats_of(scene.ring).nr_commands == 5000);
    CHECK(ring_stats_of(scene.ring).nr_in_flight == 0);
    scene_stop(&scene);
}

TEST(a_parked_command_does_not_hold_up_those_behind_it)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.is_slow = true, .slow_ms = NEVER_MS, .has_upper = true});
    struct cdb slow = cdb_16(0x88, 0, 1000, 8);
    kernel_put(&scene.kernel, 7, slow.bytes, 4096);
    kernel_tell(&scene.kernel);
    wait_until_parked(&scene.disk, 1);
    for (uint16_t i = 0; i < 40; i++) { /* more than a turn of the ring, in other slots than their own */
        CHECK(write_bytes(&scene.kernel, 1, 0, 0, 8).status == SCSI_GOOD);
        CHECK(read_sectors(&scene.kernel, 2, 0, 8).status == SCSI_GOOD);
    }
    device_fail_parked(scene.disk.device, OBD_E_UNREACHABLE);
    struct answer answer = kernel_answer(&scene.kernel);
    CHECK(answer.id == 7 && answer.sense == SENSE_NO_COMMUNICATION);
    scene_stop(&scene);
}

TEST(notices_of_task_management_need_no_answer)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.has_upper = false});
    struct tcmu_tmr_entry *notice = (struct tcmu_tmr_entry *)put_entry(&scene.kernel, TCMU_OP_TMR, 40);
    notice->tmr_type = TCMU_TMR_ABORT_TASK;
    notice->cmd_cnt = UINT32_MAX;
    kernel_tell(&scene.kernel);
    for (int i = 0; i < 30000 && tail_of(&scene.kernel) != scene.kernel.head; i++)
        sleep_ms(1);
    CHECK(tail_of(&scene.kernel) == scene.kernel.head);
    CHECK(read_sectors(&scene.kernel, 1, 0, 8).status == SCSI_GOOD);
    scene_stop(&scene);
}

TEST(nonsense_breaks_its_own_ring_only)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.has_upper = false});
    struct kernel liar = kernel_make(RING_BYTES);
    struct ring *victim = ring_make(&scene.rig, &liar, &scene.disk);
    CHECK(read_sectors(&liar, 1, 0, 8).status == SCSI_GOOD);
    struct cdb cdb = cdb_16(0x88, 0, 0, 8);
    kernel_put(&liar, 2, cdb.bytes, 4096)->req.iov_cnt = UINT32_MAX;
    kernel_tell(&liar);
    wait_until_broken(victim);
    kernel_put(&liar, 3, cdb.bytes, 4096);
    kernel_tell(&liar);
    kernel_expect_silence(&liar, 20);
    CHECK(read_sectors(&scene.kernel, 1, 0, 8).status == SCSI_GOOD);
    CHECK_OK(obd_ring_unbind(victim, 0, KERNEL_WAIT_MS));
    kernel_drop(&liar);
    scene_stop(&scene);
}

TEST(a_ring_that_breaks_while_commands_run_is_written_no_more)
{
    struct scene scene;
    scene_start(&scene, (struct disk_params){.is_slow = true, .slow_ms = NEVER_MS});
    struct cdb cdb = cdb_16(0x88, 0, 0, 8);
    kernel_put(&scene.kernel, 2, cdb.bytes, 4096);
    kernel_tell(&scene.kernel);
    wait_until_parked(&scene.disk, 1);
    publish_head(&scene.kernel, 0); /* it went back */
    uint32_t one = 1;
    CHECK(write(scene.kernel.fd, &one, sizeof one) == sizeof one);
    wait_until_broken(scene.ring);
    device_fail_parked(scene.disk.device, OBD_E_UNREACHABLE);
    CHECK_OK(obd_ring_unbind(scene.ring, 0, KERNEL_WAIT_MS));
    scene.ring = NULL;
    CHECK(tail_of(&scene.kernel) == 0);
    scene_stop(&scene);
}

TEST_MAIN(T(a_read_of_scattered_buffers_brings_the_sectors), T(what_is_written_is_read_back),
          T(a_flush_and_a_write_with_fua_are_durable_when_answered),
          T(unmap_of_several_ranges_clears_each_and_nothing_else), T(verify_says_whether_the_data_is_the_same),
          T(a_write_to_a_read_only_image_is_write_protected_and_a_flush_is_good), T(blocks_behind_the_end_are_refused),
          T(every_opcode_of_vendors_is_refused_and_the_disk_goes_on), T(thousands_of_commands_go_round_a_small_ring),
          T(a_parked_command_does_not_hold_up_those_behind_it), T(notices_of_task_management_need_no_answer),
          T(nonsense_breaks_its_own_ring_only), T(a_ring_that_breaks_while_commands_run_is_written_no_more))
