/* fuzz_mailbox: a ring whose kernel writes whatever it likes.
 *
 * Input: a list of steps, each an u8 that names it and its arguments.
 *   0  a command as the kernel makes it: u8 id, u16 length of its buffers, 16 bytes of CDB
 *   1  the same, and then its entry is overwritten: u8 where, u8 n, n bytes
 *   2  the memory is overwritten: u16 where (mailbox and ring), u8 n, n bytes
 *   3  head goes to a place: u32
 *   4  the ring is told, and looked at
 *   5  the image cannot be opened (even), or is there (odd): u8
 * The ring may break, and must not touch anything outside its map, hang, or keep a
 * command.  The disk behind it is real; what is written to it stays small.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define DISK_FOLDER "/dev/shm/fuzz_tcmu.XXXXXX" /* a busy disk's sync would look like a ring that hangs */
#include "ring_fixture.h"

#include "input.h"

/* A disk's log only grows, so there is a new one now and then. */
#define INPUTS_PER_DISK 2000
#define MAX_STEPS       24

static struct rig rig;
static struct disk disk;

static void clean_up(void)
{
    disk_drop(&disk);
    rig_stop(&rig);
}

static void use_disk(void)
{
    static unsigned nr_inputs;
    if (nr_inputs == 0) {
        rig_start(&rig, 1);
        atexit(clean_up);
    } else if (nr_inputs % INPUTS_PER_DISK == 0) {
        disk_drop(&disk);
    }
    if (nr_inputs++ % INPUTS_PER_DISK == 0)
        disk = disk_make(rig.core, (struct disk_params){.has_upper = true});
}

static bool has_room(struct kernel *kernel)
{
    return room_left(kernel) > 2 * entry_length(KERNEL_DATA_ROOM / kernel->piece) + 64;
}

static struct tcmu_cmd_entry *put_command(struct kernel *kernel, struct input *input)
{
    uint8_t cdb[16];
    uint16_t id = take_u8(input) % KERNEL_IDS;
    uint32_t length = take_u16(input);
    take_bytes(input, cdb, sizeof cdb);
    return has_room(kernel) ? kernel_put(kernel, id, cdb, length) : NULL;
}

static void overwrite(uint8_t *place, size_t room, struct input *input)
{
    uint8_t bytes[255];
    size_t length = take_u8(input);
    take_bytes(input, bytes, length);
    memcpy(place, bytes, length < room ? length : room);
}

static void overwrite_entry(struct kernel *kernel, struct tcmu_cmd_entry *entry, struct input *input)
{
    size_t where = take_u8(input);
    uint8_t *end = kernel->map + data_offset(kernel, 0);
    if (entry != NULL && where < (size_t)(end - (uint8_t *)entry))
        overwrite((uint8_t *)entry + where, (size_t)(end - (uint8_t *)entry) - where, input);
}

static void overwrite_memory(struct kernel *kernel, struct input *input)
{
    size_t room = data_offset(kernel, 0), where = take_u16(input) % room;
    overwrite(kernel->map + where, room - where, input);
}

/* Whoever asks for numbers waits until the ring's thread is at rest. */
static void tell(struct kernel *kernel, struct ring *ring)
{
    uint32_t one = 1;
    CHECK(write(kernel->fd, &one, sizeof one) == sizeof one);
    ring_stats_of(ring);
    wait_for_kick(kernel, 0);
}

static void run_step(struct kernel *kernel, struct ring *ring, struct input *input)
{
    switch (take_u8(input) % 6) {
    case 0:
        put_command(kernel, input);
        publish_head(kernel, kernel->head);
        break;
    case 1:
        overwrite_entry(kernel, put_command(kernel, input), input);
        publish_head(kernel, kernel->head);
        break;
    case 2:
        overwrite_memory(kernel, input);
        break;
    case 3:
        publish_head(kernel, take_u32(input));
        break;
    case 4:
        tell(kernel, ring);
        break;
    default:
        if (take_u8(input) % 2 == 0)
            CHECK_OK(obd_ring_set_device(ring, NULL, KERNEL_WAIT_MS));
        else
            CHECK_OK(obd_ring_set_device(ring, disk.device, KERNEL_WAIT_MS));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    use_disk();
    struct kernel kernel = kernel_make(RING_BYTES);
    struct ring *ring = ring_make(&rig, &kernel, &disk);
    for (int i = 0; i < MAX_STEPS && !input_is_empty(&input); i++)
        run_step(&kernel, ring, &input);
    tell(&kernel, ring);
    CHECK_OK(obd_ring_unbind(ring, 0, KERNEL_WAIT_MS));
    kernel_drop(&kernel);
    return 0;
}
