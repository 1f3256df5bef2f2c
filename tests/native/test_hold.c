/* Tests of a hold, and of another image put under a device that is in use.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "disk_fixture.h"
#include "trailer.h"

#include <stdatomic.h>

#include "command/state.h"
#include "image/upper_state.h"

#define MS_ENOUGH 60000
#define NR_ROUNDS 30

static struct disk make_disk(struct core *core, uint64_t journal_slots)
{
    return disk_make(core, (struct disk_params){.has_upper = true, .journal_slots = journal_slots});
}

static void write_sector(struct disk *disk, uint64_t number, uint64_t stamp)
{
    struct sector sector;
    sector_fill(&sector, number, stamp);
    CHECK_OK(run(disk, OBD_COMMAND_WRITE, number, 1, &sector));
}

static uint64_t read_stamp(struct disk *disk, uint64_t number)
{
    struct sector sector;
    CHECK_OK(run(disk, OBD_COMMAND_READ, number, 1, &sector));
    return sector_check(&sector, number);
}

/* ---- a seal and what goes on top of it, as the daemon does it ---- */

static struct layer *seal(struct disk *disk)
{
    struct obd_sealed_index index;
    unsigned char trailer[4096];
    struct image *image = device_image(disk->device);
    CHECK_OK(image_seal(image, &index));
    trailer_fill(trailer, &index);
    CHECK_OK(image_finish_seal(image, trailer));
    struct source *source;
    struct layer *layer;
    CHECK_OK(source_open_file(image_upper(image)->name, &source));
    const struct obd_layer_params params = {
        .index_offset = index.index_offset, .nr_entries = index.nr_entries, .virtual_size = DISK_BYTES};
    CHECK_OK(layer_open(source, &params, NEVER_NS, &layer));
    source_unref(source);
    return layer;
}

static struct upper *open_next_upper(struct disk *disk, unsigned number, uint64_t journal_slots)
{
    char data[64], index[64];
    const unsigned char header[BLOCK_BYTES] = {0};
    snprintf(data, sizeof data, "%s/data.%u", disk->folder, number);
    snprintf(index, sizeof index, "%s/index.%u", disk->folder, number);
    write_all(data, header, sizeof header);
    write_all(index, header, sizeof header);
    const struct obd_upper_params params = {.data_path = data,
                                            .index_path = index,
                                            .uuid = "01234567-89ab-cdef-0123-456789abcdef",
                                            .virtual_size = DISK_BYTES,
                                            .journal_slots = journal_slots,
                                            .tag = number + 1};
    struct upper *upper;
    CHECK_OK(upper_open(&params, &upper));
    return upper;
}

/* What a disk has been snapshotted into. */
struct stack {
    struct layer *lowers[NR_ROUNDS + 1]; /* lowest first; the first is the disk's */
    size_t nr;
};

static void snapshot(struct disk *disk, struct stack *stack, uint64_t journal_slots)
{
    struct upper *upper = open_next_upper(disk, (unsigned)stack->nr, journal_slots);
    struct image *image;
    CHECK_OK(device_hold(disk->device, clock_deadline_ns(MS_ENOUGH)));
    stack->lowers[stack->nr++] = seal(disk);
    CHECK_OK(image_open(stack->lowers, stack->nr, upper, DISK_BYTES, "disk", &image));
    CHECK_OK(device_replace_image(disk->device, image));
    device_resume(disk->device);
    image_unref(image);
    CHECK_OK(device_drop_replaced(disk->device, clock_deadline_ns(MS_ENOUGH)));
}

static void drop_stack(struct disk *disk, struct stack *stack)
{
    char command[96];
    CHECK_OK(device_close(disk->device, clock_deadline_ns(MS_ENOUGH)));
    for (size_t i = 1; i < stack->nr; i++)
        layer_unref(stack->lowers[i]);
    snprintf(command, sizeof command, "rm -f %s/data.* %s/index.*", disk->folder, disk->folder);
    CHECK(system(command) == 0);
    disk_remove(disk);
}

/* ---- holds ---- */

TEST(a_hold_keeps_writes_waiting_and_no_reads)
{
    struct core *core = core_make(4, 0);
    struct disk disk = make_disk(core, 0);
    struct sector sector;
    write_sector(&disk, 7, 1);
    CHECK_OK(device_hold(disk.device, clock_deadline_ns(MS_ENOUGH)));
    sector_fill(&sector, 7, 2);
    struct mem_command *write = submit(&disk, OBD_COMMAND_WRITE, 7, 1, &sector);
    CHECK(read_stamp(&disk, 8) == LOWER_STAMP);
    CHECK_OK(run(&disk, OBD_COMMAND_FLUSH, 0, 0, NULL));
    CHECK(mem_wait(&write, clock_deadline_ns(50)) == OBD_E_TIMEOUT);
    device_resume(disk.device);
    CHECK_OK(finish(write));
    CHECK(read_stamp(&disk, 7) == 2);
    disk_drop(&disk);
    core_close(core);
}

TEST(a_hold_that_does_not_come_in_time_leaves_no_trace)
{
    struct core *core = core_make(4, 0);
    struct disk disk = make_disk(core, 0);
    struct range_lock_holder writer = {.offset = 0, .length = SECTOR_SIZE, .is_exclusive = true};
    CHECK(range_lock_take(&disk.device->ranges, &writer));
    CHECK_FAILS(device_hold(disk.device, clock_deadline_ns(20)), OBD_E_TIMEOUT, "have not ended");
    write_sector(&disk, 9, 3);
    range_lock_release(&disk.device->ranges, &writer);
    CHECK_OK(device_hold(disk.device, clock_deadline_ns(MS_ENOUGH)));
    CHECK_FAILS(device_hold(disk.device, clock_deadline_ns(20)), OBD_E_BUSY, "held already");
    device_resume(disk.device);
    write_sector(&disk, 9, 4);
    disk_drop(&disk);
    core_close(core);
}

TEST(a_device_that_is_only_read_cannot_be_held)
{
    struct core *core = core_make(2, 0);
    struct disk disk = disk_make(core, (struct disk_params){0});
    CHECK_FAILS(device_hold(disk.device, NEVER_NS), OBD_E_READ_ONLY, "nothing writes");
    disk_drop(&disk);
    core_close(core);
}

/* ---- replacing ---- */

TEST(what_was_written_before_and_after_a_snapshot_is_read)
{
    struct core *core = core_make(4, 0);
    struct disk disk = make_disk(core, 0);
    struct stack stack = {.lowers = {disk.layer}, .nr = 1};
    write_sector(&disk, 1, 1);
    write_sector(&disk, 2, 1);
    snapshot(&disk, &stack, 0);
    CHECK(read_stamp(&disk, 1) == 1);
    write_sector(&disk, 2, 2);
    snapshot(&disk, &stack, 0);
    write_sector(&disk, 3, 3);
    CHECK(read_stamp(&disk, 1) == 1 && read_stamp(&disk, 2) == 2 && read_stamp(&disk, 3) == 3);
    CHECK(read_stamp(&disk, 4) == LOWER_STAMP);
    drop_stack(&disk, &stack);
    core_close(core);
}

TEST(an_image_of_another_size_does_not_take_its_place)
{
    struct core *core = core_make(2, 0);
    struct disk disk = make_disk(core, 0);
    struct image *image;
    CHECK_OK(image_open(&disk.layer, 1, NULL, DISK_BYTES, "read-only", &image));
    CHECK_OK(device_hold(disk.device, clock_deadline_ns(MS_ENOUGH)));
    CHECK_FAILS(device_replace_image(disk.device, image), OBD_E_INVALID, "cannot take the place");
    device_resume(disk.device);
    image_unref(image);
    disk_drop(&disk);
    core_close(core);
}

TEST(a_replaced_image_is_kept_as_long_as_a_read_has_it)
{
    struct core *core = core_make(2, 0);
    struct disk disk = make_disk(core, 0);
    struct stack stack = {.lowers = {disk.layer}, .nr = 1};
    struct range_lock_holder reader = {.offset = 0, .length = SECTOR_SIZE};
    struct upper *upper = open_next_upper(&disk, 1, 0);
    struct image *image;
    CHECK(range_lock_take(&disk.device->ranges, &reader));
    CHECK_OK(device_hold(disk.device, clock_deadline_ns(MS_ENOUGH)));
    stack.lowers[stack.nr++] = seal(&disk);
    CHECK_OK(image_open(stack.lowers, stack.nr, upper, DISK_BYTES, "disk", &image));
    CHECK_OK(device_replace_image(disk.device, image));
    device_resume(disk.device);
    image_unref(image);
    CHECK_FAILS(device_drop_replaced(disk.device, clock_deadline_ns(20)), OBD_E_TIMEOUT, "have not ended");
    write_sector(&disk, 100, 5); /* nobody waits for the reader but the barrier */
    range_lock_release(&disk.device->ranges, &reader);
    CHECK_OK(device_drop_replaced(disk.device, clock_deadline_ns(MS_ENOUGH)));
    CHECK(read_stamp(&disk, 100) == 5);
    drop_stack(&disk, &stack);
    core_close(core);
}

/* A write that waits for room in the journal of the upper that is sealed. */
TEST(a_write_that_waits_for_room_goes_to_the_new_upper)
{
    struct core *core = core_make(4, 0);
    struct disk disk = make_disk(core, 4);
    struct stack stack = {.lowers = {disk.layer}, .nr = 1};
    for (unsigned round = 0; round < 8; round++) {
        static struct sector sectors[64];
        struct mem_command *writes[64];
        for (uint64_t i = 0; i < 64; i++) {
            sector_fill(&sectors[i], i, round);
            writes[i] = submit(&disk, OBD_COMMAND_WRITE, i, 1, &sectors[i]);
        }
        snapshot(&disk, &stack, 4);
        for (uint64_t i = 0; i < 64; i++)
            CHECK_OK(finish(writes[i]));
        for (uint64_t i = 0; i < 64; i++)
            CHECK(read_stamp(&disk, i) == round);
    }
    drop_stack(&disk, &stack);
    core_close(core);
}

/* It holds no range, so nobody waits for its bytes; they come to the image that is there then. */
TEST(a_parked_read_does_not_keep_a_snapshot_waiting)
{
    struct core *core = core_make(4, 0);
    struct disk disk =
        disk_make(core, (struct disk_params){.has_upper = true, .is_slow = true, .slow_ms = 500, .keep_ms = 60000});
    struct stack stack = {.lowers = {disk.layer}, .nr = 1};
    struct sector sector;
    write_sector(&disk, 7, 1);
    struct mem_command *read = submit(&disk, OBD_COMMAND_READ, 100, 1, &sector);
    wait_until_parked(&disk, 1);
    snapshot(&disk, &stack, 0);
    CHECK(stats_of(&disk).nr_parked == 1);
    CHECK_OK(finish(read));
    CHECK(sector_check(&sector, 100) == LOWER_STAMP);
    drop_stack(&disk, &stack);
    core_close(core);
}

/* ---- under load ---- */

#define NR_THREADS 3
#define NR_SECTORS 96u

struct load {
    struct disk *disk;
    atomic_bool is_over;
    unsigned thread;
};

/* Each writer has sectors of its own and gives each the next stamp; what it reads back is
 * what it wrote last.  It flushes now and then. */
static void *run_load(void *argument)
{
    struct load *load = argument;
    uint64_t first = load->thread * NR_SECTORS, stamps[NR_SECTORS] = {0};
    unsigned seed = load->thread + 1;
    for (uint64_t turn = 1; !atomic_load(&load->is_over) || turn < 200; turn++) {
        uint64_t i = (uint64_t)rand_r(&seed) % NR_SECTORS;
        write_sector(load->disk, first + i, turn);
        stamps[i] = turn;
        i = (uint64_t)rand_r(&seed) % NR_SECTORS;
        CHECK(read_stamp(load->disk, first + i) == stamps[i]);
        if (turn % 64 == 0)
            CHECK_OK(run(load->disk, OBD_COMMAND_FLUSH, 0, 0, NULL));
    }
    for (uint64_t i = 0; i < NR_SECTORS; i++)
        CHECK(read_stamp(load->disk, first + i) == stamps[i]);
    return NULL;
}

TEST(snapshots_under_writers_and_readers_lose_nothing)
{
    struct core *core = core_make(4, 0);
    struct disk disk = make_disk(core, 64);
    struct stack stack = {.lowers = {disk.layer}, .nr = 1};
    struct load loads[NR_THREADS];
    pthread_t threads[NR_THREADS];
    for (unsigned i = 0; i < NR_THREADS; i++) {
        loads[i] = (struct load){.disk = &disk, .thread = i};
        CHECK(pthread_create(&threads[i], NULL, run_load, &loads[i]) == 0);
    }
    for (unsigned round = 0; round < NR_ROUNDS; round++)
        snapshot(&disk, &stack, 64);
    for (unsigned i = 0; i < NR_THREADS; i++)
        atomic_store(&loads[i].is_over, true);
    for (unsigned i = 0; i < NR_THREADS; i++)
        pthread_join(threads[i], NULL);
    drop_stack(&disk, &stack);
    core_close(core);
}

TEST_MAIN(T(a_hold_keeps_writes_waiting_and_no_reads), T(a_hold_that_does_not_come_in_time_leaves_no_trace),
          T(a_device_that_is_only_read_cannot_be_held), T(what_was_written_before_and_after_a_snapshot_is_read),
          T(an_image_of_another_size_does_not_take_its_place), T(a_replaced_image_is_kept_as_long_as_a_read_has_it),
          T(a_write_that_waits_for_room_goes_to_the_new_upper), T(a_parked_read_does_not_keep_a_snapshot_waiting),
          T(snapshots_under_writers_and_readers_lose_nothing))
