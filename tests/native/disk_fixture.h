/* disk_fixture: a device on real files in a temporary folder.
 *
 * The lower has DISK_SECTORS sectors; each says which it is and who wrote it
 * (sector_fill).  It may come late (slow_ms), or never, and an upper may lie on top.
 * Each test makes its own disk and takes it down again.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef DISK_FIXTURE_H
#define DISK_FIXTURE_H

#include "check.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "command/core.h"
#include "front/mem.h"
#include "index/segment.h"

#define DISK_SECTORS 4096u
#define DISK_BYTES   ((uint64_t)DISK_SECTORS * SECTOR_SIZE)
#define BLOCK_BYTES  4096u
#define NEVER_MS     0xffffffffu
#ifndef DISK_FOLDER
#define DISK_FOLDER "/tmp/obd-disk-XXXXXX"
#endif

/* Who wrote a sector of the lower. */
#define LOWER_STAMP 0

struct disk_params {
    bool is_slow; /* the lower's data comes slow_ms after it was asked for */
    uint32_t slow_ms;
    uint32_t keep_ms;     /* and is forgotten this long after its last use */
    uint32_t chunk_bytes; /* 0: 4096 */
    bool has_upper;
    uint64_t journal_slots;
    uint32_t io_timeout_ms; /* 0: 60,000 */
    uint32_t on_timeout;
    uint64_t device_budget;
};

struct disk {
    char folder[32];
    struct core *core; /* borrowed */
    struct layer *layer;
    struct device *device;
};

struct sector {
    uint64_t number;
    uint64_t stamp;
    uint64_t filling[(SECTOR_SIZE - 16) / 8]; /* the stamp, again and again */
};

_Static_assert(sizeof(struct sector) == SECTOR_SIZE, "a sector is what the disk calls one");

static inline void sector_fill(struct sector *sector, uint64_t number, uint64_t stamp)
{
    sector->number = number;
    sector->stamp = stamp;
    for (size_t i = 0; i < sizeof sector->filling / 8; i++)
        sector->filling[i] = stamp;
}

/* The stamp, after a look at the whole sector. */
static inline uint64_t sector_check(const struct sector *sector, uint64_t number)
{
    CHECK(sector->number == number);
    for (size_t i = 0; i < sizeof sector->filling / 8; i++)
        CHECK(sector->filling[i] == sector->stamp);
    return sector->stamp;
}

static inline void disk_path(const struct disk *disk, const char *name, char path[64])
{
    snprintf(path, 64, "%s/%s", disk->folder, name);
}

static inline void write_all(const char *path, const void *bytes, size_t length)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    CHECK(fd >= 0 && write(fd, bytes, length) == (ssize_t)length);
    close(fd);
}

/* A layer file as commit writes it, but for the header and the trailer, which C
 * does not read: 4096 bytes, data, one index entry, 4096 bytes. */
static inline void disk_make_lower(struct disk *disk, const struct disk_params *params)
{
    static unsigned char file[BLOCK_BYTES + DISK_BYTES + sizeof(struct segment) + BLOCK_BYTES];
    struct sector *sectors = (struct sector *)(file + BLOCK_BYTES);
    char path[64];
    struct source *source;
    for (uint64_t i = 0; i < DISK_SECTORS; i++)
        sector_fill(&sectors[i], i, LOWER_STAMP);
    const struct segment all = {.offset = 0, .length = DISK_SECTORS, .moffset = BLOCK_BYTES / SECTOR_SIZE};
    segments_to_disk(file + BLOCK_BYTES + DISK_BYTES, &all, 1);
    disk_path(disk, "lower", path);
    write_all(path, file, sizeof file);
    CHECK_OK(source_open_file(path, &source));
    const struct obd_layer_params where = {
        .index_offset = BLOCK_BYTES + DISK_BYTES, .nr_entries = 1, .virtual_size = DISK_BYTES};
    CHECK_OK(layer_open(source, &where, NEVER_NS, &disk->layer));
    if (params->is_slow) {
        /* Slow from here on only, or a layer whose data never comes could not be opened. */
        uint32_t chunk_bytes = params->chunk_bytes != 0 ? params->chunk_bytes : BLOCK_BYTES;
        source_unref(disk->layer->source);
        CHECK_OK(source_open_slow(source, chunk_bytes, params->slow_ms, params->keep_ms, &disk->layer->source));
    }
    source_unref(source);
}

static inline struct upper *disk_open_upper(struct disk *disk, const struct disk_params *params)
{
    char data[64], index[64];
    const unsigned char header[BLOCK_BYTES] = {0};
    struct upper *upper;
    disk_path(disk, "data", data);
    disk_path(disk, "index", index);
    if (access(data, F_OK) != 0) {
        write_all(data, header, sizeof header);
        write_all(index, header, sizeof header);
    }
    const struct obd_upper_params upper_params = {
        .data_path = data,
        .index_path = index,
        .uuid = "01234567-89ab-cdef-0123-456789abcdef",
        .virtual_size = DISK_BYTES,
        .journal_slots = params->journal_slots,
        .tag = 1,
    };
    CHECK_OK(upper_open(&upper_params, &upper));
    return upper;
}

static inline void disk_open_device(struct disk *disk, const struct disk_params *params)
{
    struct upper *upper = params->has_upper ? disk_open_upper(disk, params) : NULL;
    struct image *image;
    CHECK_OK(image_open(&disk->layer, 1, upper, DISK_BYTES, "disk", &image));
    const struct obd_device_params device_params = {
        .name = "disk",
        .io_timeout_ms = params->io_timeout_ms != 0 ? params->io_timeout_ms : 60000,
        .on_timeout = params->on_timeout,
        .park_budget_bytes = params->device_budget,
    };
    CHECK_OK(device_open(disk->core, image, &device_params, &disk->device));
    image_unref(image);
}

static inline struct disk disk_make(struct core *core, struct disk_params params)
{
    struct disk disk = {.core = core};
    snprintf(disk.folder, sizeof disk.folder, DISK_FOLDER);
    CHECK(mkdtemp(disk.folder) != NULL);
    disk_make_lower(&disk, &params);
    disk_open_device(&disk, &params);
    return disk;
}

static inline void disk_remove(struct disk *disk)
{
    static const char *const names[] = {"lower", "data", "index", "index.journal"};
    char path[64];
    layer_unref(disk->layer);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        disk_path(disk, names[i], path);
        unlink(path);
    }
    CHECK(rmdir(disk->folder) == 0);
}

/* Closes an idle disk and removes its files. */
static inline void disk_drop(struct disk *disk)
{
    CHECK_OK(device_close(disk->device, clock_deadline_ns(30000)));
    disk_remove(disk);
}

static inline struct core *core_make(unsigned nr_workers, uint64_t park_budget)
{
    struct core *core;
    const struct obd_core_params params = {.nr_workers = nr_workers, .park_budget_bytes = park_budget};
    CHECK_OK(core_open(&params, &core));
    return core;
}

static inline struct obd_mem_params mem_params(enum obd_command_kind kind, uint64_t sector, uint64_t nr, void *buffer)
{
    return (struct obd_mem_params){
        .kind = kind, .offset = sector * SECTOR_SIZE, .length = nr * SECTOR_SIZE, .buffer = buffer};
}

static inline enum obd_status run(struct disk *disk, enum obd_command_kind kind, uint64_t sector, uint64_t nr,
                                  void *buffer)
{
    struct obd_mem_params params = mem_params(kind, sector, nr, buffer);
    return mem_run(disk->device, &params);
}

static inline struct mem_command *submit(struct disk *disk, enum obd_command_kind kind, uint64_t sector, uint64_t nr,
                                         void *buffer)
{
    struct obd_mem_params params = mem_params(kind, sector, nr, buffer);
    struct mem_command *command;
    CHECK_OK(mem_submit(disk->device, &params, &command));
    return command;
}

/* Waits long enough that only a hanging command is not done by then. */
static inline enum obd_status finish(struct mem_command *command)
{
    enum obd_status status = mem_wait(&command, clock_deadline_ns(60000));
    CHECK(command == NULL);
    return status;
}

static inline struct obd_device_stats stats_of(struct disk *disk)
{
    struct obd_device_stats stats;
    device_stats(disk->device, &stats);
    return stats;
}

/* The same when nothing is in flight any more: a command is counted out a moment
 * after its done was called. */
static inline struct obd_device_stats idle_stats_of(struct disk *disk)
{
    const struct timespec pause = {.tv_nsec = 100000};
    while (stats_of(disk).nr_in_flight > 0)
        nanosleep(&pause, NULL);
    return stats_of(disk);
}

static inline void sleep_ms(unsigned ms)
{
    const struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&pause, NULL);
}

/* Until nr commands of disk are parked. */
static inline void wait_until_parked(struct disk *disk, uint64_t nr)
{
    for (int i = 0; i < 30000 && stats_of(disk).nr_parked != nr; i++)
        sleep_ms(1);
    CHECK(stats_of(disk).nr_parked == nr);
}

#endif
