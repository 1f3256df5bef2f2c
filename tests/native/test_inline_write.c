/* Tests of writes on the thread that submits them: which ones, and who waits for whom.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "disk_fixture.h"

#include <errno.h>
#include <semaphore.h>

#include "command/state.h"
#include "image/upper_state.h"

#define MAX_SECTORS 256u

/* A write from a front that lets it run at once. */
struct write {
    struct command command;
    struct iovec iov;
    struct sector sectors[MAX_SECTORS];
    pthread_t ended_on;
    sem_t ended;
};

static void on_done(struct command *command)
{
    struct write *write = LIST_ENTRY(command, struct write, command);
    write->ended_on = pthread_self();
    sem_post(&write->ended);
}

static void start(struct disk *disk, struct write *write, uint64_t first, uint64_t nr, uint64_t stamp)
{
    CHECK(nr <= MAX_SECTORS);
    for (uint64_t i = 0; i < nr; i++)
        sector_fill(&write->sectors[i], first + i, stamp);
    sem_init(&write->ended, 0, 0);
    write->iov = (struct iovec){write->sectors, nr * SECTOR_SIZE};
    write->command.kind = COMMAND_WRITE;
    write->command.offset = first * SECTOR_SIZE;
    write->command.length = nr * SECTOR_SIZE;
    write->command.iov = &write->iov;
    write->command.nr_iov = 1;
    write->command.done = on_done;
    command_submit(disk->device, &write->command, true);
}

static void wait_for_end(struct write *write)
{
    while (sem_wait(&write->ended) != 0)
        ;
    CHECK_OK(write->command.status);
    sem_destroy(&write->ended);
}

/* Whether it ended on this thread, before command_submit returned. */
static bool runs_inline(struct disk *disk, uint64_t first, uint64_t nr, bool fua)
{
    static struct write write;
    write = (struct write){.command.fua = fua};
    start(disk, &write, first, nr, 5);
    wait_for_end(&write);
    struct sector sector;
    CHECK_OK(run(disk, OBD_COMMAND_READ, first, 1, &sector));
    CHECK(sector_check(&sector, first) == 5);
    return pthread_equal(write.ended_on, pthread_self());
}

/* Not at every try: the upper's flusher has a lock now and then, and a busy machine looks
 * like a slow disk for a while. */
static bool soon_runs_inline(struct disk *disk, uint64_t first, uint64_t nr)
{
    for (int i = 0; i < 10000; i++) {
        if (runs_inline(disk, first, nr, false))
            return true;
        usleep(1000);
    }
    return false;
}

/* A disk whose upper has its first stretch of disk space, which a worker asks for. */
static struct disk make_written_disk(struct core *core)
{
    struct disk disk = disk_make(core, (struct disk_params){.has_upper = true});
    CHECK(!runs_inline(&disk, 0, 1, false));
    return disk;
}

TEST(small_writes_run_where_they_are_submitted_and_others_on_a_worker)
{
    struct core *core = core_make(2, 0);
    struct disk disk = make_written_disk(core);
    CHECK(soon_runs_inline(&disk, 8, 8));
    CHECK(soon_runs_inline(&disk, 0, 128));
    CHECK(!runs_inline(&disk, 0, 129, false));
    CHECK(!runs_inline(&disk, 8, 8, true));
    disk_drop(&disk);
    core_close(core);
}

TEST(a_write_into_a_range_that_is_taken_waits_for_it_without_its_thread)
{
    struct core *core = core_make(2, 0);
    struct disk disk = make_written_disk(core);
    static struct write waits;
    struct range_lock_holder reader = {.offset = 10 * SECTOR_SIZE, .length = SECTOR_SIZE};
    CHECK(range_lock_take(&disk.device->ranges, &reader));
    start(&disk, &waits, 8, 8, 6);
    CHECK(soon_runs_inline(&disk, 16, 8));
    CHECK(sem_trywait(&waits.ended) != 0);
    range_lock_release(&disk.device->ranges, &reader);
    wait_for_end(&waits);
    CHECK(!pthread_equal(waits.ended_on, pthread_self()));
    disk_drop(&disk);
    core_close(core);
}

static void *flush(void *argument)
{
    CHECK_OK(run(argument, OBD_COMMAND_FLUSH, 0, 0, NULL));
    return NULL;
}

TEST(a_disk_that_hangs_in_a_sync_keeps_no_thread_of_a_front)
{
    struct core *core = core_make(2, 0);
    struct disk disk = make_written_disk(core), other = make_written_disk(core);
    char data[64], stalled[80];
    pthread_t thread;
    disk_path(&disk, "data", data);
    snprintf(stalled, sizeof stalled, "%s.stall", data);
    write_all(stalled, "", 0);
    CHECK(obd_test_file_fault(data, "stall", 1, EIO, 1) == OBD_OK);
    CHECK(pthread_create(&thread, NULL, flush, &disk) == 0);
    struct upper *upper = image_upper(device_image(disk.device));
    while (!atomic_load(&upper->is_syncing))
        usleep(1000);
    CHECK(!runs_inline(&disk, 16, 8, false));
    CHECK(soon_runs_inline(&other, 8, 8));
    unlink(stalled);
    pthread_join(thread, NULL);
    CHECK(soon_runs_inline(&disk, 16, 8));
    CHECK(obd_test_file_fault("", "", 0, 0, 0) == OBD_OK);
    disk_drop(&disk);
    disk_drop(&other);
    core_close(core);
}

TEST_MAIN(T(small_writes_run_where_they_are_submitted_and_others_on_a_worker),
          T(a_write_into_a_range_that_is_taken_waits_for_it_without_its_thread),
          T(a_disk_that_hangs_in_a_sync_keeps_no_thread_of_a_front))
