/* nbd_disk: a blank disk for the NBD tests, an upper in a folder of its own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef NBD_DISK_H
#define NBD_DISK_H

#include "nbd_peer.h"

#include <fcntl.h>

#define DISK_SIZE (64u << 20)
#ifndef DISK_FOLDER
#define DISK_FOLDER "/tmp/test_nbd.XXXXXX"
#endif

static unsigned char bytes[1 << 20], read_back[1 << 20];

struct disk {
    char folder[64];
    struct core *core;
    struct image *image;
    struct device *device;
};

static const char *const FILES[] = {"data", "index", "index.journal"};

static const char *file_of(const struct disk *disk, int which, char path[96])
{
    snprintf(path, 96, "%s/%s", disk->folder, FILES[which]);
    return path;
}

/* A header's worth of zeros: C does not read it. */
static void make_file(const char *path)
{
    static const char header[4096];
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0 && write(fd, header, sizeof header) == sizeof header);
    close(fd);
}

static struct upper *make_upper(const struct disk *disk)
{
    char data[96], index[96];
    make_file(file_of(disk, 0, data));
    make_file(file_of(disk, 1, index));
    struct obd_upper_params params = {.data_path = data,
                                      .index_path = index,
                                      .uuid = "00000000-0000-4000-8000-000000000001",
                                      .holder = "test_nbd",
                                      .virtual_size = DISK_SIZE};
    struct upper *upper = NULL;
    CHECK_OK(obd_upper_open(&params, &upper));
    return upper;
}

static struct disk disk_open(void)
{
    struct disk disk = {.folder = DISK_FOLDER};
    CHECK(mkdtemp(disk.folder));
    struct obd_core_params core = {.nr_workers = 2};
    struct obd_device_params device = {.name = "disk"};
    CHECK_OK(obd_core_open(&core, &disk.core));
    CHECK_OK(obd_image_open(NULL, 0, make_upper(&disk), DISK_SIZE, "disk", &disk.image));
    CHECK_OK(obd_device_open(disk.core, disk.image, &device, &disk.device));
    return disk;
}

static void disk_close(struct disk *disk)
{
    char path[96];
    CHECK_OK(obd_device_close(disk->device, WAIT_MS));
    CHECK_OK(obd_image_close(disk->image));
    obd_core_close(disk->core);
    for (int i = 0; i < 3; i++)
        unlink(file_of(disk, i, path));
    CHECK(rmdir(disk->folder) == 0);
}

#endif
