/* SPDX-License-Identifier: Apache-2.0 */
#include "disk_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

static void check_lower(const struct sector *sectors, uint64_t first, uint64_t nr)
{
    for (uint64_t i = 0; i < nr; i++)
        CHECK(sector_check(&sectors[i], first + i) == LOWER_STAMP);
}

static uint64_t elapsed_ms(uint64_t since_ns)
{
    return (clock_now_ns() - since_ns) / NS_PER_MS;
}

TEST(test_park_read_of_missing_data_ends_when_it_has_come)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.is_slow = true, .slow_ms = 20});
    static struct sector sectors[64];
    CHECK_OK(run(&disk, OBD_COMMAND_READ, 5, 64, sectors));
    check_lower(sectors, 5, 64);
    struct obd_device_stats stats = idle_stats_of(&disk);
    CHECK(stats.nr_parks == 1); /* once for all its chunks, not once for each */
    CHECK(stats.nr_parked == 0 && stats.parked_bytes == 0);
    disk_drop(&disk);
    core_close(core);
}

/* Commands much larger together than the budget: all end, and never more than the
 * budget is asked for at once, but for one that is larger by itself. */
TEST(test_park_keeps_to_the_budget_of_the_device)
{
    enum { NR = 40, EACH = 16 };
    const uint64_t budget = 20000; /* two commands of 8192 bytes, not three */
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.is_slow = true, .slow_ms = 5, .device_budget = budget});
    static struct sector sectors[NR][EACH];
    struct mem_command *commands[NR];
    for (uint64_t i = 0; i < NR; i++)
        commands[i] = submit(&disk, OBD_COMMAND_READ, i * EACH, EACH, sectors[i]);
    uint64_t most = 0;
    while (stats_of(&disk).nr_in_flight > 0) {
        struct obd_device_stats stats = stats_of(&disk);
        CHECK(stats.parked_bytes <= budget);
        most = max_u64(most, stats.parked_bytes);
    }
    CHECK(most > 0);
    for (uint64_t i = 0; i < NR; i++) {
        CHECK_OK(finish(commands[i]));
        check_lower(sectors[i], i * EACH, EACH);
    }
    disk_drop(&disk);
    core_close(core);
}

TEST(test_park_command_larger_than_the_budget_runs_alone)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.is_slow = true, .slow_ms = 5, .device_budget = 8192});
    static struct sector large[2][256], small[8];
    struct mem_command *a = submit(&disk, OBD_COMMAND_READ, 0, 256, large[0]);
    struct mem_command *b = submit(&disk, OBD_COMMAND_READ, 1000, 8, small);
    struct mem_command *c = submit(&disk, OBD_COMMAND_READ, 2000, 256, large[1]);
    while (stats_of(&disk).nr_in_flight > 0) {
        uint64_t bytes = stats_of(&disk).parked_bytes;
        CHECK(bytes <= 8192 || bytes == 256 * SECTOR_SIZE);
    }
    CHECK_OK(finish(a));
    CHECK_OK(finish(b));
    CHECK_OK(finish(c));
    check_lower(large[0], 0, 256);
    check_lower(small, 1000, 8);
    check_lower(large[1], 2000, 256);
    disk_drop(&disk);
    core_close(core);
}

/* The dead device uses up the global budget; the other still has its one command. */
TEST(test_park_dead_device_does_not_delay_another)
{
    struct core *core = core_make(2, 8192);
    struct disk dead = disk_make(core, (struct disk_params){.is_slow = true, .slow_ms = NEVER_MS});
    struct disk disk = disk_make(core, (struct disk_params){.is_slow = true, .slow_ms = 1});
    static struct sector sectors[64], lost[8][16];
    struct mem_command *commands[8];
    for (uint64_t i = 0; i < 8; i++)
        commands[i] = submit(&dead, OBD_COMMAND_READ, i * 16, 16, lost[i]);
    wait_until_parked(&dead, 8);
    for (uint64_t i = 0; i < 20; i++) {
        CHECK_OK(run(&disk, OBD_COMMAND_READ, i * 64, 64, sectors));
        check_lower(sectors, i * 64, 64);
    }
    device_fail_parked(dead.device, OBD_E_CANCELLED);
    for (uint64_t i = 0; i < 8; i++)
        CHECK(finish(commands[i]) == OBD_E_CANCELLED);
    disk_drop(&dead);
    disk_drop(&disk);
    core_close(core);
}

TEST(test_park_read_holds_no_range_against_a_write)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.has_upper = true, .is_slow = true, .slow_ms = NEVER_MS});
    struct sector read[8], written[8], again[8];
    struct mem_command *parked = submit(&disk, OBD_COMMAND_READ, 0, 8, read);
    wait_until_parked(&disk, 1);
    for (uint64_t i = 0; i < 8; i++)
        sector_fill(&written[i], i, 5);
    CHECK_OK(run(&disk, OBD_COMMAND_WRITE, 0, 8, written));
    CHECK_OK(run(&disk, OBD_COMMAND_READ, 0, 8, again));
    CHECK(memcmp(written, again, sizeof written) == 0);
    device_fail_parked(disk.device, OBD_E_CANCELLED);
    CHECK_FAILS(finish(parked), OBD_E_CANCELLED, "parked for missing data");
    disk_drop(&disk);
    core_close(core);
}

TEST(test_park_verify_of_a_whole_disk_stays_within_a_stretch)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.is_slow = true, .slow_ms = 1, .chunk_bytes = 65536});
    struct mem_command *command = submit(&disk, OBD_COMMAND_VERIFY, 0, DISK_SECTORS, NULL);
    while (stats_of(&disk).nr_in_flight > 0)
        CHECK(stats_of(&disk).parked_bytes <= (1 << 20) + 2 * 65536);
    CHECK_OK(finish(command));
    CHECK(stats_of(&disk).nr_parks >= DISK_BYTES >> 20);
    disk_drop(&disk);
    core_close(core);
}

/* ---- deadlines ------------------------------------------------------------------ */

TEST(test_deadline_ends_reads_whose_data_never_comes)
{
    struct core *core = core_make(2, 0);
    /* One is admitted, the others wait for the budget: both must end. */
    struct disk disk = disk_make(
        core, (struct disk_params){.is_slow = true, .slow_ms = NEVER_MS, .io_timeout_ms = 100, .device_budget = 1});
    struct sector sectors[3][8];
    uint64_t begin_ns = clock_now_ns();
    struct mem_command *commands[3];
    for (uint64_t i = 0; i < 3; i++)
        commands[i] = submit(&disk, OBD_COMMAND_READ, i * 8, 8, sectors[i]);
    for (uint64_t i = 0; i < 3; i++)
        CHECK_FAILS(finish(commands[i]), OBD_E_TIMEOUT, "read of 4096 bytes");
    CHECK(elapsed_ms(begin_ns) >= 100);
    struct obd_device_stats stats = stats_of(&disk);
    CHECK(stats.nr_errors[OBD_E_TIMEOUT] == 3 && stats.parked_bytes == 0 && stats.nr_parked == 0);
    disk_drop(&disk);
    core_close(core);
}

TEST(test_deadline_leaves_the_device_able_to_read_on)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.is_slow = true, .slow_ms = 300, .io_timeout_ms = 50});
    struct sector sectors[8];
    CHECK(run(&disk, OBD_COMMAND_READ, 0, 8, sectors) == OBD_E_TIMEOUT);
    sleep_ms(5);
    CHECK(run(&disk, OBD_COMMAND_READ, 0, 8, sectors) == OBD_E_TIMEOUT);
    CHECK_FAILS(run(&disk, OBD_COMMAND_READ, DISK_SECTORS, 8, sectors), OBD_E_RANGE, "outside");
    disk_drop(&disk);
    core_close(core);
}

TEST(test_deadline_of_a_device_that_retries_asks_again)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.is_slow = true,
                                                            .slow_ms = 200,
                                                            .keep_ms = 60000,
                                                            .io_timeout_ms = 60,
                                                            .on_timeout = OBD_ON_TIMEOUT_RETRY});
    struct sector sectors[8];
    CHECK_OK(run(&disk, OBD_COMMAND_READ, 0, 8, sectors));
    check_lower(sectors, 0, 8);
    CHECK(stats_of(&disk).nr_parks > 1);
    disk_drop(&disk);
    core_close(core);
}

TEST(test_deadline_is_none_for_a_device_that_freezes)
{
    struct core *core = core_make(2, 0);
    struct disk disk =
        disk_make(core, (struct disk_params){
                            .is_slow = true, .slow_ms = 200, .io_timeout_ms = 20, .on_timeout = OBD_ON_TIMEOUT_FREEZE});
    struct sector sectors[8];
    CHECK_OK(run(&disk, OBD_COMMAND_READ, 0, 8, sectors));
    check_lower(sectors, 0, 8);
    CHECK(stats_of(&disk).nr_parks == 1);
    disk_drop(&disk);
    core_close(core);
}

/* ---- giving up, closing ------------------------------------------------------------ */

TEST(test_close_refuses_while_a_command_is_parked_and_leaves_it)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.is_slow = true, .slow_ms = NEVER_MS});
    struct sector sectors[8];
    struct mem_command *command = submit(&disk, OBD_COMMAND_READ, 0, 8, sectors);
    wait_until_parked(&disk, 1);
    CHECK_FAILS(device_close(disk.device, clock_deadline_ns(30)), OBD_E_TIMEOUT, "1 commands are still in flight");
    CHECK(mem_wait(&command, clock_deadline_ns(1)) == OBD_E_TIMEOUT && command != NULL);
    device_fail_parked(disk.device, OBD_E_UNREACHABLE);
    CHECK(finish(command) == OBD_E_UNREACHABLE);
    disk_drop(&disk);
    core_close(core);
}

TEST(test_fail_parked_refuses_every_later_command)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.has_upper = true});
    struct sector sectors[8];
    device_fail_parked(disk.device, OBD_E_CANCELLED);
    CHECK_FAILS(run(&disk, OBD_COMMAND_READ, 0, 8, sectors), OBD_E_CANCELLED, "being closed");
    CHECK(finish(submit(&disk, OBD_COMMAND_WRITE, 0, 8, sectors)) == OBD_E_CANCELLED);
    CHECK(run(&disk, OBD_COMMAND_FLUSH, 0, 0, NULL) == OBD_E_CANCELLED);
    disk_drop(&disk);
    core_close(core);
}

static void *close_late(void *argument)
{
    struct disk *disk = argument;
    sleep_ms(30);
    device_fail_parked(disk->device, OBD_E_CANCELLED);
    return NULL;
}

TEST(test_close_goes_on_when_the_parked_are_given_up)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.is_slow = true, .slow_ms = NEVER_MS});
    struct sector sectors[4][8];
    struct mem_command *commands[4];
    pthread_t thread;
    for (uint64_t i = 0; i < 4; i++)
        commands[i] = submit(&disk, OBD_COMMAND_READ, i * 8, 8, sectors[i]);
    CHECK(pthread_create(&thread, NULL, close_late, &disk) == 0);
    CHECK_OK(device_close(disk.device, clock_deadline_ns(30000)));
    for (uint64_t i = 0; i < 4; i++)
        CHECK(finish(commands[i]) == OBD_E_CANCELLED);
    pthread_join(thread, NULL);
    disk_remove(&disk);
    core_close(core);
}

/* ---- the journal ---------------------------------------------------------------------- */

TEST(test_park_writes_wait_for_room_in_the_journal_and_all_end)
{
    enum { NR = 64 };
    struct core *core = core_make(8, 0);
    const struct disk_params params = {.has_upper = true, .journal_slots = 4};
    struct disk disk = disk_make(core, params);
    static struct sector sectors[NR], all[NR];
    struct mem_command *commands[NR];
    for (uint64_t i = 0; i < NR; i++) {
        sector_fill(&sectors[i], i, 100 + i);
        commands[i] = submit(&disk, OBD_COMMAND_WRITE, i, 1, &sectors[i]);
    }
    for (uint64_t i = 0; i < NR; i++)
        CHECK_OK(finish(commands[i]));
    CHECK(stats_of(&disk).nr_parks > 0);
    CHECK_OK(device_close(disk.device, clock_deadline_ns(30000)));
    disk_open_device(&disk, &params);
    CHECK_OK(run(&disk, OBD_COMMAND_READ, 0, NR, all));
    CHECK(memcmp(sectors, all, sizeof all) == 0);
    disk_drop(&disk);
    core_close(core);
}

/* ---- everything at once ----------------------------------------------------------------- */

/* Reads that come late meet deadlines, and at last the device is given up while all
 * this goes on: every command ends exactly once, with one of the statuses it may
 * have, and with the right bytes when it is OBD_OK. */
static struct disk storm;
static atomic_bool storm_is_over;

static void check_outcome(enum obd_status status, const struct sector *sectors, uint64_t first)
{
    CHECK(status == OBD_OK || status == OBD_E_TIMEOUT || status == OBD_E_CANCELLED);
    if (status == OBD_OK)
        check_lower(sectors, first, 24);
}

static void *read_in_the_storm(void *argument)
{
    unsigned seed = (unsigned)(size_t)argument + 1;
    enum { DEPTH = 8 };
    struct sector sectors[DEPTH][24];
    struct mem_command *commands[DEPTH];
    uint64_t first[DEPTH];
    while (!atomic_load(&storm_is_over)) {
        for (int i = 0; i < DEPTH; i++) {
            first[i] = (uint64_t)rand_r(&seed) % (DISK_SECTORS - 24);
            commands[i] = submit(&storm, OBD_COMMAND_READ, first[i], 24, sectors[i]);
        }
        for (int i = 0; i < DEPTH; i++)
            check_outcome(finish(commands[i]), sectors[i], first[i]);
    }
    return NULL;
}

static void *write_in_the_storm(void *argument)
{
    unsigned seed = (unsigned)(size_t)argument + 1;
    while (!atomic_load(&storm_is_over)) {
        struct sector sectors[4];
        uint64_t first = (uint64_t)rand_r(&seed) % (DISK_SECTORS - 4);
        for (uint64_t i = 0; i < 4; i++)
            sector_fill(&sectors[i], first + i, LOWER_STAMP); /* what is there anyway */
        struct obd_mem_params params = mem_params(OBD_COMMAND_WRITE, first, 4, sectors);
        switch (rand_r(&seed) % 8) {
        case 0:
            params.fua = 1;
            break;
        case 1:
            params.kind = OBD_COMMAND_FLUSH;
            break;
        case 2:
            params.kind = OBD_COMMAND_VERIFY;
            break;
        }
        enum obd_status status = mem_run(storm.device, &params);
        CHECK(status == OBD_OK || status == OBD_E_TIMEOUT || status == OBD_E_CANCELLED);
    }
    return NULL;
}

static void run_storm(uint32_t on_timeout)
{
    struct core *core = core_make(8, 65536);
    pthread_t threads[4];
    storm = disk_make(core, (struct disk_params){.has_upper = true,
                                                 .is_slow = true,
                                                 .slow_ms = 4,
                                                 .journal_slots = 8,
                                                 .io_timeout_ms = 6,
                                                 .on_timeout = on_timeout,
                                                 .device_budget = 30000});
    atomic_store(&storm_is_over, false);
    for (size_t i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, i < 3 ? read_in_the_storm : write_in_the_storm, (void *)i) == 0);
    sleep_ms(1500);
    device_fail_parked(storm.device, OBD_E_CANCELLED);
    sleep_ms(50);
    atomic_store(&storm_is_over, true);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    struct obd_device_stats stats = idle_stats_of(&storm);
    CHECK(stats.nr_parked == 0 && stats.parked_bytes == 0);
    CHECK(stats.nr_errors[OBD_E_CANCELLED] > 0);
    disk_drop(&storm);
    core_close(core);
}

TEST(test_park_storm_of_late_data_deadlines_and_giving_up)
{
    run_storm(OBD_ON_TIMEOUT_ERROR);
}

TEST(test_park_storm_on_a_device_that_retries)
{
    run_storm(OBD_ON_TIMEOUT_RETRY);
}

TEST_MAIN(T(test_park_read_of_missing_data_ends_when_it_has_come), T(test_park_keeps_to_the_budget_of_the_device),
          T(test_park_command_larger_than_the_budget_runs_alone), T(test_park_dead_device_does_not_delay_another),
          T(test_park_read_holds_no_range_against_a_write), T(test_park_verify_of_a_whole_disk_stays_within_a_stretch),
          T(test_deadline_ends_reads_whose_data_never_comes), T(test_deadline_leaves_the_device_able_to_read_on),
          T(test_deadline_of_a_device_that_retries_asks_again), T(test_deadline_is_none_for_a_device_that_freezes),
          T(test_close_refuses_while_a_command_is_parked_and_leaves_it),
          T(test_fail_parked_refuses_every_later_command), T(test_close_goes_on_when_the_parked_are_given_up),
          T(test_park_writes_wait_for_room_in_the_journal_and_all_end),
          T(test_park_storm_of_late_data_deadlines_and_giving_up), T(test_park_storm_on_a_device_that_retries))
