/* Rings end to end: a kernel that puts commands on them, the core, and Python.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ring_fixture.h"

static uint8_t bytes[KERNEL_DATA_ROOM], expected[KERNEL_DATA_ROOM];

static const struct cdb flush_cdb = {{0x35}};
static const struct cdb inquiry_cdb = {{0x12, 1, 0x80, 0, 96}};

static struct answer read_sectors(struct kernel *kernel, uint16_t id, uint64_t lba, uint32_t nr)
{
    struct cdb cdb = cdb_16(0x88, 0, lba, nr);
    return kernel_run(kernel, id, cdb.bytes, nr * SECTOR_SIZE);
}

/* The data of a command that read the lower's sectors from lba on. */
static void check_sectors(struct kernel *kernel, uint16_t id, uint64_t lba, uint32_t nr)
{
    kernel_copy(kernel, id, bytes, nr * SECTOR_SIZE, false);
    for (uint32_t i = 0; i < nr; i++)
        CHECK(sector_check((struct sector *)bytes + i, lba + i) == LOWER_STAMP);
}

static struct answer write_bytes(struct kernel *kernel, uint16_t id, uint8_t flags, uint64_t lba, uint32_t nr)
{
    struct cdb cdb = cdb_16(0x8a, flags, lba, nr);
    kernel_copy(kernel, id, bytes, nr * SECTOR_SIZE, true);
    return kernel_run(kernel, id, cdb.bytes, nr * SECTOR_SIZE);
}

/* One ring with one disk, for the tests that need no more. */
struct scene {
    struct rig rig;
    struct disk disk;
    struct kernel kernel;
    struct ring *ring;
};

static void scene_start(struct scene *scene, struct disk_params params)
{
    rig_start(&scene->rig, 1);
    scene->disk = disk_make(scene->rig.core, params);
    scene->kernel = kernel_make(RING_BYTES);
    scene->ring = ring_make(&scene->rig, &scene->kernel, &scene->disk);
}

static void scene_stop(struct scene *scene)
{
    if (scene->ring != NULL)
        CHECK_OK(obd_ring_unbind(scene->ring, 0, KERNEL_WAIT_MS));
    disk_drop(&scene->disk);
    kernel_drop(&scene->kernel);
    rig_stop(&scene->rig);
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

TEST_MAIN(T(a_read_of_scattered_buffers_brings_the_sectors), T(what_is_written_is_read_back),
          T(a_flush_and_a_write_with_fua_are_durable_when_answered),
          T(unmap_of_several_ranges_clears_each_and_nothing_else), T(verify_says_whether_the_data_is_the_same),
          T(a_write_to_a_read_only_image_is_write_protected_and_a_flush_is_good), T(blocks_behind_the_end_are_refused),
          T(every_opcode_of_vendors_is_refused_and_the_disk_goes_on), T(thousands_of_commands_go_round_a_small_ring),
          T(a_parked_command_does_not_hold_up_those_behind_it), T(notices_of_task_management_need_no_answer),
          T(nonsense_breaks_its_own_ring_only), T(a_ring_that_breaks_while_commands_run_is_written_no_more),
          T(data_commands_wait_for_the_device_and_python_answers_meanwhile),
          T(a_device_that_does_not_come_is_waited_for_until_the_deadline),
          T(a_broken_image_fails_what_waits_and_what_comes), T(a_reply_says_how_long_it_is_and_clears_the_rest),
          T(what_python_does_not_answer_is_not_ready_after_a_while),
          T(an_unbound_ring_takes_its_control_commands_along), T(unbind_waits_for_parked_commands_until_its_deadline),
          T(unbind_may_leave_what_is_parked_on_the_ring), T(unbind_leaves_what_waits_for_a_device_or_for_python),
          T(bind_takes_what_lies_on_the_ring_already), T(rings_come_and_go_beside_others_under_load),
          T(a_ring_with_data_that_never_comes_delays_no_other))
