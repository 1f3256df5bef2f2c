/* disk: see disk.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE /* O_DIRECT */
#include "helper/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "helper/step.h"

#define FIRST_BLOCK 4096

/* The only name in folder that does not begin with a dot; an errno value. */
static int only_entry(const char *folder, char *name, size_t room)
{
    DIR *open_folder = opendir(folder);
    if (!open_folder)
        return errno;
    struct dirent *entry;
    while ((entry = readdir(open_folder)) && entry->d_name[0] == '.')
        continue;
    if (entry)
        snprintf(name, room, "%.31s", entry->d_name);
    closedir(open_folder);
    return entry ? 0 : ENOENT;
}

int disk_look(const struct options *options, const struct places *places, struct disk *disk)
{
    char path[PATH_MAX], port[24];
    snprintf(path, sizeof path, "%.4000s/address", places->tpg);
    int error = attribute_get(path, port, sizeof port);
    if (error)
        return error;
    snprintf(disk->address, sizeof disk->address, "%s:0", port);
    snprintf(disk->device, sizeof disk->device, "%.3900s/class/scsi_device/%s/device", options->sysfs, disk->address);
    snprintf(path, sizeof path, "%.4000s/block", disk->device);
    return only_entry(path, disk->name, sizeof disk->name);
}

bool disk_find(const struct options *options, const struct places *places, struct disk *disk)
{
    step_begin();
    int error;
    while ((error = disk_look(options, places, disk)) == ENOENT)
        if (!step_pause())
            return step_failed("find", ETIMEDOUT, "%s: no disk appeared", places->tpg);
    if (error)
        return step_failed("find", error, "%s: look for the disk", places->tpg);
    step_done("find");
    step_found("address", disk->address);
    step_found("disk", disk->name);
    return true;
}

/* The kernel's largest transfer may be below what is wanted: then it stays, and the
 * disk is slower but right. */
static void raise_transfer_size(const struct options *options, const char *queue)
{
    char path[PATH_MAX], text[32];
    unsigned long long wanted = options->max_sectors / 2, most;
    if (!path_join(path, queue, "max_hw_sectors_kb") || attribute_get(path, text, sizeof text))
        return;
    most = strtoull(text, NULL, 10);
    snprintf(text, sizeof text, "%llu", most < wanted ? most : wanted);
    if (path_join(path, queue, "max_sectors_kb") && attribute_put(path, text) == 0)
        step_found("max_sectors_kb", text);
}

bool disk_set_timeout(const struct options *options, const struct disk *disk)
{
    return attribute_write_number("disk-timeout", disk->device, "timeout", options->disk_timeout);
}

bool disk_set_up_queue(const struct options *options, const struct disk *disk)
{
    char queue[PATH_MAX];
    snprintf(queue, sizeof queue, "%.3900s/block/%s/queue", options->sysfs, disk->name);
    raise_transfer_size(options, queue);
    return attribute_write_number("read-ahead", queue, "read_ahead_kb", options->read_ahead_kb);
}

/* Waits for the node too: devtmpfs makes it a moment after /sys shows the disk. */
static int open_node(const struct options *options, const char *name, int flags)
{
    char path[PATH_MAX];
    if (!path_join(path, options->dev, name))
        return -1;
    int fd;
    while ((fd = open(path, flags | O_CLOEXEC)) < 0 && (errno == ENOENT || errno == ENXIO) && step_pause())
        continue;
    return fd;
}

bool disk_read_first_block(const struct options *options, const struct disk *disk)
{
    step_begin();
    int fd = open_node(options, disk->name, O_RDONLY | O_DIRECT);
    if (fd < 0)
        return step_failed("read", step_is_late() ? ETIMEDOUT : errno, "%s: open", disk->name);
    static char block[FIRST_BLOCK] __attribute__((aligned(FIRST_BLOCK)));
    ssize_t length = pread(fd, block, sizeof block, 0);
    int error = length < 0 ? errno : length == 0 ? ENODATA : 0; /* a disk of no size is no disk yet */
    close(fd);
    if (error || step_is_late())
        return step_failed("read", step_is_late() ? ETIMEDOUT : error, "%s: read the first block", disk->name);
    step_done("read");
    return true;
}

bool disk_claim(const struct options *options, const struct disk *disk)
{
    char path[PATH_MAX];
    if (!path_join(path, options->dev, disk->name))
        return false;
    step_begin();
    if (open(path, O_RDONLY | O_EXCL | O_CLOEXEC) < 0 && errno != ENOENT && errno != ENXIO)
        return step_failed("claim", errno, "%s: claim it", disk->name);
    step_done("claim");
    return true;
}

bool disk_spare_flush(const struct options *options, const struct disk *disk)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%.3900s/class/scsi_disk/%s", options->sysfs, disk->address);
    return attribute_write("spare-flush", folder, "cache_type", "temporary write through");
}

bool disk_set_offline(const struct disk *disk)
{
    return attribute_write("offline", disk->device, "state", "offline\n"); /* the kernel wants the whole line */
}

static bool reread_partitions(const struct options *options)
{
    step_begin();
    int fd = open_node(options, options->disk, O_RDONLY);
    if (fd < 0)
        return step_failed("partitions", errno, "%s: open", options->disk);
    int error = ioctl(fd, BLKRRPART) ? errno : 0;
    close(fd);
    /* EINVAL: a disk that takes no partitions; EBUSY: one is mounted, so it is known already. */
    if (error && error != EINVAL && error != EBUSY)
        return step_failed("partitions", error, "%s: read the partition table", options->disk);
    step_done("partitions");
    return true;
}

bool disk_rescan(const struct options *options)
{
    struct disk disk;
    snprintf(disk.device, sizeof disk.device, "%.3900s/block/%.64s/device", options->sysfs, options->disk);
    bool ok = options->disk_timeout == 0 || disk_set_timeout(options, &disk);
    return ok && attribute_write("rescan", disk.device, "rescan", "1") && reread_partitions(options);
}
