/* SPDX-License-Identifier: Apache-2.0 */
#include "disk_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

TEST(test_core_read_gives_the_sectors_of_the_layer)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){0});
    struct sector sectors[16];
    CHECK_OK(run(&disk, OBD_COMMAND_READ, 100, 16, sectors));
    for (uint64_t i = 0; i < 16; i++)
        CHECK(sector_check(&sectors[i], 100 + i) == LOWER_STAMP);
    CHECK_OK(finish(submit(&disk, OBD_COMMAND_READ, DISK_SECTORS - 1, 1, sectors)));
    CHECK(sector_check(&sectors[0], DISK_SECTORS - 1) == LOWER_STAMP);
    disk_drop(&disk);
    core_close(core);
}

TEST(test_core_refuses_what_lies_outside_the_device)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.has_upper = true});
    struct sector sectors[2];
    CHECK_FAILS(run(&disk, OBD_COMMAND_READ, DISK_SECTORS - 1, 2, sectors), OBD_E_RANGE, "outside the device");
    CHECK_FAILS(run(&disk, OBD_COMMAND_WRITE, DISK_SECTORS, 1, sectors), OBD_E_RANGE, "outside the device");
    struct obd_mem_params wraps = {.kind = OBD_COMMAND_DISCARD, .offset = 512, .length = UINT64_MAX - 511};
    CHECK_FAILS(mem_run(disk.device, &wraps), OBD_E_RANGE, "outside the device");
    CHECK(stats_of(&disk).nr_errors[OBD_E_RANGE] == 3);
    disk_drop(&disk);
    core_close(core);
}

TEST(test_core_refuses_half_sectors)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){0});
    char buffer[1024];
    struct obd_mem_params offset = {.kind = OBD_COMMAND_READ, .offset = 100, .length = 512, .buffer = buffer};
    struct obd_mem_params length = {.kind = OBD_COMMAND_READ, .offset = 512, .length = 513, .buffer = buffer};
    CHECK_FAILS(mem_run(disk.device, &offset), OBD_E_INVALID, "multiple of 512");
    CHECK_FAILS(mem_run(disk.device, &length), OBD_E_INVALID, "multiple of 512");
    disk_drop(&disk);
    core_close(core);
}

TEST(test_core_refuses_a_read_without_a_buffer)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){0});
    CHECK_FAILS(run(&disk, OBD_COMMAND_READ, 0, 1, NULL), OBD_E_INVALID, "too short");
    disk_drop(&disk);
    core_close(core);
}

TEST(test_core_commands_of_no_length_are_done_at_once)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.has_upper = true, .is_slow = true, .slow_ms = NEVER_MS});
    CHECK_OK(run(&disk, OBD_COMMAND_READ, 5, 0, NULL));
    CHECK_OK(run(&disk, OBD_COMMAND_WRITE, 5, 0, NULL));
    CHECK_OK(run(&disk, OBD_COMMAND_DISCARD, DISK_SECTORS, 0, NULL));
    CHECK_OK(run(&disk, OBD_COMMAND_VERIFY, 5, 0, NULL));
    disk_drop(&disk);
    core_close(core);
}

TEST(test_core_read_only_image_refuses_writes_and_has_nothing_to_flush)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){0});
    struct sector sector;
    sector_fill(&sector, 0, 1);
    CHECK_FAILS(run(&disk, OBD_COMMAND_WRITE, 0, 1, &sector), OBD_E_READ_ONLY, "read-only");
    CHECK_FAILS(run(&disk, OBD_COMMAND_DISCARD, 0, 1, NULL), OBD_E_READ_ONLY, "read-only");
    CHECK_OK(run(&disk, OBD_COMMAND_FLUSH, 0, 0, NULL));
    disk_drop(&disk);
    core_close(core);
}

TEST(test_core_write_discard_and_flush_are_seen_after_reopening)
{
    struct core *core = core_make(2, 0);
    const struct disk_params params = {.has_upper = true};
    struct disk disk = disk_make(core, params);
    struct sector sectors[3];
    static const struct sector zeros;
    for (uint64_t i = 0; i < 2; i++)
        sector_fill(&sectors[i], 10 + i, 7);
    CHECK_OK(run(&disk, OBD_COMMAND_WRITE, 10, 2, sectors));
    CHECK_OK(run(&disk, OBD_COMMAND_DISCARD, 11, 1, NULL));
    CHECK_OK(run(&disk, OBD_COMMAND_FLUSH, 0, 0, NULL));
    CHECK_OK(device_close(disk.device, clock_deadline_ns(10000)));
    disk_open_device(&disk, &params);
    CHECK_OK(run(&disk, OBD_COMMAND_READ, 10, 3, sectors));
    CHECK(sector_check(&sectors[0], 10) == 7);
    CHECK(memcmp(&sectors[1], &zeros, sizeof zeros) == 0);
    CHECK(sector_check(&sectors[2], 12) == LOWER_STAMP);
    disk_drop(&disk);
    core_close(core);
}

TEST(test_core_verify_compares_and_says_where)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.has_upper = true});
    static struct sector sectors[600]; /* more than one piece */
    for (uint64_t i = 0; i < 600; i++)
        sector_fill(&sectors[i], 20 + i, LOWER_STAMP);
    CHECK_OK(run(&disk, OBD_COMMAND_VERIFY, 20, 600, sectors));
    CHECK_OK(run(&disk, OBD_COMMAND_VERIFY, 0, DISK_SECTORS, NULL));
    sectors[500].filling[3] = 99;
    uint64_t place = (20 + 500) * SECTOR_SIZE + offsetof(struct sector, filling[3]);
    char part[64];
    snprintf(part, sizeof part, "byte %llu", (unsigned long long)place);
    CHECK_FAILS(run(&disk, OBD_COMMAND_VERIFY, 20, 600, sectors), OBD_E_MISCOMPARE, part);
    disk_drop(&disk);
    core_close(core);
}

TEST(test_core_fua_write_is_counted_as_a_write_and_flushes)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.has_upper = true});
    struct sector sector;
    struct obd_upper_stats before, after;
    sector_fill(&sector, 3, 1);
    struct obd_mem_params params = mem_params(OBD_COMMAND_WRITE, 3, 1, &sector);
    params.fua = 1;
    upper_stats(image_upper(device_image(disk.device)), &before);
    CHECK_OK(mem_run(disk.device, &params));
    upper_stats(image_upper(device_image(disk.device)), &after);
    CHECK(after.nr_flushes > before.nr_flushes && after.unflushed_bytes == 0);
    struct obd_device_stats stats = idle_stats_of(&disk);
    CHECK(stats.nr_commands[OBD_COMMAND_WRITE] == 1 && stats.nr_bytes[OBD_COMMAND_WRITE] == 512);
    CHECK(stats.nr_commands[OBD_COMMAND_FLUSH] == 0);
    disk_drop(&disk);
    core_close(core);
}

TEST(test_core_failed_sync_reaches_the_flush_and_the_close)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.has_upper = true});
    struct sector sector;
    sector_fill(&sector, 3, 1);
    CHECK_OK(run(&disk, OBD_COMMAND_WRITE, 3, 1, &sector));
    CHECK_OK(obd_test_file_fault("data", "sync", 1, EIO, 1));
    CHECK_FAILS(run(&disk, OBD_COMMAND_FLUSH, 0, 0, NULL), OBD_E_IO, "sync");
    CHECK_OK(obd_test_file_fault("", "", 0, 0, 0)); /* no faults any more */
    CHECK(run(&disk, OBD_COMMAND_WRITE, 3, 1, &sector) == OBD_E_READ_ONLY);
    CHECK(run(&disk, OBD_COMMAND_FLUSH, 0, 0, NULL) != OBD_OK);
    CHECK_OK(run(&disk, OBD_COMMAND_READ, 3, 1, &sector));
    CHECK(sector_check(&sector, 3) == LOWER_STAMP); /* what was flushed last */
    CHECK(device_close(disk.device, clock_deadline_ns(10000)) != OBD_OK);
    disk_remove(&disk);
    core_close(core);
}

TEST(test_core_says_where_the_bytes_of_a_read_came_from)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.has_upper = true});
    static struct sector sectors[16];
    CHECK_OK(run(&disk, OBD_COMMAND_WRITE, 0, 4, sectors));
    CHECK_OK(run(&disk, OBD_COMMAND_DISCARD, 4, 2, NULL));
    CHECK_OK(run(&disk, OBD_COMMAND_READ, 0, 16, sectors));                  /* carried out at once */
    CHECK_OK(finish(submit(&disk, OBD_COMMAND_READ, 0, 16, sectors)));       /* and by a worker */
    CHECK(run(&disk, OBD_COMMAND_READ, DISK_SECTORS, 1, sectors) != OBD_OK); /* moves nothing */
    struct obd_device_stats stats = idle_stats_of(&disk);
    static const uint64_t from[OBD_NR_PROVENANCES] = {2 * 2 * 512, 2 * 4 * 512, 2 * 10 * 512};
    CHECK(memcmp(stats.nr_bytes_from, from, sizeof from) == 0);
    CHECK(stats.nr_bytes[OBD_COMMAND_READ] == 2 * 16 * 512);
    disk_drop(&disk);
    core_close(core);
}

static struct obd_latency latency_of(struct disk *disk, enum obd_command_kind kind, enum obd_latency_class class)
{
    struct obd_latency all[OBD_NR_COMMAND_KINDS * OBD_NR_LATENCY_CLASSES];
    device_latency(disk->device, all);
    return all[kind * OBD_NR_LATENCY_CLASSES + class];
}

static uint64_t nr_in(const struct obd_latency *latency, unsigned first_bucket)
{
    uint64_t nr = 0;
    for (unsigned i = first_bucket; i < OBD_NR_LATENCY_BUCKETS; i++)
        nr += latency->nr[i];
    return nr;
}

TEST(test_core_latency_of_a_parked_read_is_of_its_own_class_and_has_its_wait)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.is_slow = true, .slow_ms = 40, .keep_ms = NEVER_MS});
    struct sector sector;
    CHECK_OK(run(&disk, OBD_COMMAND_READ, 0, 1, &sector));
    CHECK_OK(run(&disk, OBD_COMMAND_READ, 0, 1, &sector));
    struct obd_latency parked = latency_of(&disk, OBD_COMMAND_READ, OBD_LATENCY_REGISTRY);
    struct obd_latency local = latency_of(&disk, OBD_COMMAND_READ, OBD_LATENCY_LOCAL);
    CHECK(nr_in(&parked, 0) == 1 && nr_in(&parked, 12) == 1); /* more than 16 ms */
    CHECK(parked.sum_ns >= 40 * NS_PER_MS && nr_in(&local, 0) == 1);
    disk_drop(&disk);
    core_close(core);
}

TEST(test_core_latency_counts_every_command_though_few_are_timed)
{
    enum { NR = 1000 };
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){0});
    struct sector sector;
    for (int i = 0; i < NR; i++)
        CHECK_OK(run(&disk, OBD_COMMAND_READ, 0, 1, &sector));
    struct obd_latency local = latency_of(&disk, OBD_COMMAND_READ, OBD_LATENCY_LOCAL);
    CHECK(nr_in(&local, 0) == NR && local.sum_ns > 0);
    CHECK(stats_of(&disk).nr_commands[OBD_COMMAND_READ] == NR);
    disk_drop(&disk);
    core_close(core);
}

TEST(test_core_stats_count_every_kind)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){.has_upper = true});
    static struct sector sectors[8];
    CHECK_OK(run(&disk, OBD_COMMAND_READ, 0, 8, sectors));
    CHECK_OK(finish(submit(&disk, OBD_COMMAND_READ, 0, 4, sectors)));
    CHECK_OK(run(&disk, OBD_COMMAND_WRITE, 0, 8, sectors));
    CHECK_OK(run(&disk, OBD_COMMAND_DISCARD, 0, 8, NULL));
    CHECK_OK(run(&disk, OBD_COMMAND_FLUSH, 0, 0, NULL));
    CHECK_OK(run(&disk, OBD_COMMAND_VERIFY, 0, 8, NULL));
    struct obd_device_stats stats = stats_of(&disk);
    static const uint64_t nr[OBD_NR_COMMAND_KINDS] = {2, 1, 1, 1, 1};
    static const uint64_t bytes[OBD_NR_COMMAND_KINDS] = {12 * 512, 4096, 4096, 0, 4096};
    CHECK(memcmp(stats.nr_commands, nr, sizeof nr) == 0);
    CHECK(memcmp(stats.nr_bytes, bytes, sizeof bytes) == 0);
    CHECK(stats.nr_bytes_from[OBD_FROM_LAYER] == 12 * 512);
    disk_drop(&disk);
    core_close(core);
}

TEST(test_core_read_loop_reads_with_several_threads)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){0});
    uint64_t offsets[300], elapsed_ns = 0;
    for (size_t i = 0; i < 300; i++)
        offsets[i] = i % (DISK_SECTORS / 8) * BLOCK_BYTES;
    CHECK_OK(mem_read_loop(disk.device, offsets, 300, BLOCK_BYTES, 3, &elapsed_ns));
    CHECK(stats_of(&disk).nr_commands[OBD_COMMAND_READ] == 300 && elapsed_ns > 0);
    offsets[200] = DISK_BYTES;
    CHECK_FAILS(mem_read_loop(disk.device, offsets, 300, BLOCK_BYTES, 3, &elapsed_ns), OBD_E_RANGE, "outside");
    disk_drop(&disk);
    core_close(core);
}

/* ---- many threads against a model -------------------------------------------- */

/* Commands work on whole blocks of UNIT sectors, several at once.  Every write has
 * a stamp of its own; a logical clock says when it began and ended.  A read that
 * gets stamp v from a block is wrong if some write began after v's had ended, and
 * itself ended before the read began: that one, or a later one, must be seen.  And a
 * block is written and read as a whole, so it has one stamp. */
#define UNIT       8u
#define NR_BLOCKS  12u /* few, so that they meet */
#define NR_THREADS 4u
#define NR_ROUNDS  600u
#define NR_STAMPS  (NR_THREADS * NR_ROUNDS + 1)

static struct disk shared;
static atomic_uint logical_clock = 1;
static atomic_uint ended_at[NR_STAMPS];     /* 0: not yet */
static atomic_uint newest_begin[NR_BLOCKS]; /* of the writes that have ended */

static void note_end(unsigned first, unsigned nr, unsigned stamp, unsigned began_at)
{
    atomic_store(&ended_at[stamp], atomic_fetch_add(&logical_clock, 1));
    for (unsigned i = first; i < first + nr; i++) {
        unsigned newest = atomic_load(&newest_begin[i]);
        while (newest < began_at && !atomic_compare_exchange_weak(&newest_begin[i], &newest, began_at))
            ;
    }
}

static void write_blocks(unsigned first, unsigned nr, unsigned stamp, bool fua)
{
    struct sector sectors[3 * UNIT];
    for (unsigned i = 0; i < nr * UNIT; i++)
        sector_fill(&sectors[i], first * UNIT + i, stamp);
    unsigned began_at = atomic_fetch_add(&logical_clock, 1);
    struct obd_mem_params params = mem_params(OBD_COMMAND_WRITE, first * UNIT, nr * UNIT, sectors);
    params.fua = fua;
    CHECK_OK(mem_run(shared.device, &params));
    note_end(first, nr, stamp, began_at);
}

static void check_block(const struct sector *sectors, unsigned block, unsigned must_not_precede)
{
    uint64_t stamp = sector_check(&sectors[0], block * UNIT);
    for (unsigned i = 1; i < UNIT; i++)
        CHECK(sector_check(&sectors[i], block * UNIT + i) == stamp);
    unsigned ended = atomic_load(&ended_at[stamp]);
    CHECK(ended == 0 || ended >= must_not_precede);
}

static void read_blocks(unsigned first, unsigned nr)
{
    struct sector sectors[3 * UNIT];
    unsigned must_not_precede[3];
    for (unsigned i = 0; i < nr; i++)
        must_not_precede[i] = atomic_load(&newest_begin[first + i]);
    CHECK_OK(run(&shared, OBD_COMMAND_READ, first * UNIT, nr * UNIT, sectors));
    for (unsigned i = 0; i < nr; i++)
        check_block(&sectors[i * UNIT], first + i, must_not_precede[i]);
}

static void *work(void *argument)
{
    unsigned thread = (unsigned)(size_t)argument, seed = thread + 1;
    for (unsigned i = 0; i < NR_ROUNDS; i++) {
        unsigned nr = 1 + (unsigned)rand_r(&seed) % 3, first = (unsigned)rand_r(&seed) % (NR_BLOCKS - nr + 1);
        unsigned dice = (unsigned)rand_r(&seed) % 100;
        if (dice < 45)
            read_blocks(first, nr);
        else if (dice < 98)
            write_blocks(first, nr, 1 + thread * NR_ROUNDS + i, dice == 97);
        else
            CHECK_OK(run(&shared, OBD_COMMAND_FLUSH, 0, 0, NULL));
    }
    return NULL;
}

static void run_threads(struct disk_params params)
{
    struct core *core = core_make(8, 0);
    pthread_t threads[NR_THREADS];
    memset(ended_at, 0, sizeof ended_at);
    memset(newest_begin, 0, sizeof newest_begin);
    atomic_store(&ended_at[LOWER_STAMP], atomic_fetch_add(&logical_clock, 1));
    shared = disk_make(core, params);
    for (size_t i = 0; i < NR_THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    for (size_t i = 0; i < NR_THREADS; i++)
        pthread_join(threads[i], NULL);
    /* And what memory says is what the files say. */
    static struct sector before[NR_BLOCKS * UNIT], after[NR_BLOCKS * UNIT];
    CHECK_OK(run(&shared, OBD_COMMAND_READ, 0, NR_BLOCKS * UNIT, before));
    CHECK_OK(device_close(shared.device, clock_deadline_ns(30000)));
    disk_open_device(&shared, &params);
    CHECK_OK(run(&shared, OBD_COMMAND_READ, 0, NR_BLOCKS * UNIT, after));
    CHECK(memcmp(before, after, sizeof before) == 0);
    disk_drop(&shared);
    core_close(core);
}

TEST(test_core_overlapping_commands_of_many_threads_agree_with_a_model)
{
    run_threads((struct disk_params){.has_upper = true});
}

TEST(test_core_overlapping_commands_agree_when_data_comes_late)
{
    run_threads((struct disk_params){.has_upper = true, .is_slow = true, .slow_ms = 1, .device_budget = 8192});
}

TEST(test_core_overlapping_commands_agree_when_the_journal_is_tiny)
{
    run_threads((struct disk_params){.has_upper = true, .journal_slots = 4});
}

/* One thread writes a whole range with a new stamp, then its sectors one by one with
 * the same, so that a read of the range needs many look-ups in the index.  The bytes
 * have one stamp at any time; a read that a write could get into would see two. */
#define MAX_WHOLE 256u

static unsigned whole; /* sectors */
static atomic_bool is_over;

static void *write_whole_then_pieces(void *argument)
{
    static struct sector sectors[MAX_WHOLE];
    (void)argument;
    for (uint64_t stamp = 1; stamp <= 400; stamp++) {
        for (uint64_t i = 0; i < whole; i++)
            sector_fill(&sectors[i], i, stamp);
        CHECK_OK(run(&shared, OBD_COMMAND_WRITE, 0, whole, sectors));
        for (uint64_t i = 0; i < whole; i += 2)
            CHECK_OK(run(&shared, OBD_COMMAND_WRITE, i, 1, &sectors[i]));
    }
    atomic_store(&is_over, true);
    return NULL;
}

static void read_while_all_is_written(unsigned nr)
{
    static struct sector sectors[MAX_WHOLE];
    struct core *core = core_make(2, 0);
    pthread_t writer;
    shared = disk_make(core, (struct disk_params){.has_upper = true});
    whole = nr;
    atomic_store(&is_over, false);
    CHECK(pthread_create(&writer, NULL, write_whole_then_pieces, NULL) == 0);
    while (!atomic_load(&is_over)) {
        CHECK_OK(run(&shared, OBD_COMMAND_READ, 0, whole, sectors));
        for (uint64_t i = 0; i < whole; i++)
            CHECK(sector_check(&sectors[i], i) == sectors[0].stamp);
    }
    pthread_join(writer, NULL);
    disk_drop(&shared);
    core_close(core);
}

TEST(test_core_read_sees_a_write_wholly_or_not_at_all)
{
    read_while_all_is_written(MAX_WHOLE); /* by a worker */
}

TEST(test_core_read_sees_a_write_of_the_submitters_thread_wholly_or_not_at_all)
{
    read_while_all_is_written(128);
}

TEST_MAIN(T(test_core_read_gives_the_sectors_of_the_layer), T(test_core_refuses_what_lies_outside_the_device),
          T(test_core_refuses_half_sectors), T(test_core_refuses_a_read_without_a_buffer),
          T(test_core_commands_of_no_length_are_done_at_once),
          T(test_core_read_only_image_refuses_writes_and_has_nothing_to_flush),
          T(test_core_write_discard_and_flush_are_seen_after_reopening), T(test_core_verify_compares_and_says_where),
          T(test_core_fua_write_is_counted_as_a_write_and_flushes),
          T(test_core_failed_sync_reaches_the_flush_and_the_close),
          T(test_core_says_where_the_bytes_of_a_read_came_from),
          T(test_core_latency_of_a_parked_read_is_of_its_own_class_and_has_its_wait),
          T(test_core_latency_counts_every_command_though_few_are_timed), T(test_core_stats_count_every_kind),
          T(test_core_read_loop_reads_with_several_threads),
          T(test_core_overlapping_commands_of_many_threads_agree_with_a_model),
          T(test_core_overlapping_commands_agree_when_data_comes_late),
          T(test_core_overlapping_commands_agree_when_the_journal_is_tiny),
          T(test_core_read_sees_a_write_wholly_or_not_at_all),
          T(test_core_read_sees_a_write_of_the_submitters_thread_wholly_or_not_at_all))
