/* abandon: see abandon.h; and the verbs that do it to every disk of ours, for the
 * shutdown of a machine.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "helper/abandon.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "helper/disk.h"
#include "helper/step.h"
#include "helper/verbs.h"

#define FAIL_COMMANDS "2" /* "1" would answer BUSY, which is sent again */
#define INTERVAL_NS   50000000
#define ROUNDS        10 /* of the verb: half a second for what the error handler still sends */

#define VENDOR  "OVERLYBD" /* tcmu_overlaybd/scsi/disk.py */
#define SUBTYPE "overlaybd"

static void pause_between_rounds(void)
{
    struct timespec interval = {.tv_nsec = INTERVAL_NS};
    nanosleep(&interval, NULL);
}

/* ---- one ring ---- */

static int fail_ring(const char *backstore)
{
    char path[PATH_MAX];
    if (!path_join(path, backstore, "action/reset_ring"))
        return ENAMETOOLONG;
    return attribute_put(path, FAIL_COMMANDS);
}

/* As long as parent lives, our deadline has not passed, and there is a ring. */
static void fail_ring_again_and_again(const char *backstore, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (getppid() == parent && !step_is_late() && fail_ring(backstore) == 0)
        pause_between_rounds();
}

pid_t abandon_ring_begin(const struct places *places)
{
    pid_t parent = getpid();
    step_begin();
    if (fail_ring(places->backstore)) /* no backstore, or one that was never enabled: nothing waits */
        return -1;
    step_done("fail-ring");
    pid_t pid = fork();
    if (pid == 0) {
        fail_ring_again_and_again(places->backstore, parent);
        _exit(0);
    }
    return pid;
}

void abandon_ring_end(pid_t pid)
{
    if (pid < 0)
        return;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* ---- every disk and ring of ours ---- */

/* Calls visit for each entry of folder; a folder that is not there has none. */
static void for_each_entry(const struct options *options, const char *folder,
                           void (*visit)(const struct options *options, const char *name))
{
    char path[PATH_MAX];
    DIR *open_folder = path_join(path, options->sysfs, folder) ? opendir(path) : NULL;
    if (!open_folder)
        return;
    struct dirent *entry;
    while ((entry = readdir(open_folder)))
        if (entry->d_name[0] != '.')
            visit(options, entry->d_name);
    closedir(open_folder);
}

/* address: H:C:T:L */
static bool disk_of_address(const struct options *options, const char *address, struct disk *disk)
{
    char path[PATH_MAX], vendor[16];
    snprintf(disk->address, sizeof disk->address, "%.31s", address);
    snprintf(disk->name, sizeof disk->name, "%.31s", address);
    snprintf(disk->device, sizeof disk->device, "%.3900s/class/scsi_device/%s/device", options->sysfs, disk->address);
    return path_join(path, disk->device, "vendor") && attribute_get(path, vendor, sizeof vendor) == 0 &&
           strncmp(vendor, VENDOR, strlen(VENDOR)) == 0;
}

static void spare_flush_of(const struct options *options, const char *address)
{
    struct disk disk;
    if (disk_of_address(options, address, &disk))
        disk_spare_flush(options, &disk);
}

static void set_offline(const struct options *options, const char *address)
{
    struct disk disk;
    if (disk_of_address(options, address, &disk))
        disk_set_offline(&disk);
}

/* A UIO device of ours is called  tcm-user/<hba number>/<name>/overlaybd/<path>. */
static void fail_ring_of_uio(const struct options *options, const char *uio)
{
    char path[PATH_MAX], name[PATH_MAX], backstore[PATH_MAX], hba[16], device[256], subtype[16];
    snprintf(path, sizeof path, "%.3900s/class/uio/%.64s/name", options->sysfs, uio);
    if (attribute_get(path, name, sizeof name) ||
        sscanf(name, "tcm-user/%15[0-9]/%255[^/]/%15[^/]", hba, device, subtype) != 3 || strcmp(subtype, SUBTYPE) != 0)
        return;
    snprintf(backstore, sizeof backstore, "%.3700s/core/user_%s/%s", options->configfs, hba, device);
    fail_ring(backstore);
}

void helper_fail_ring(const struct options *options)
{
    struct places places;
    if (places_of(options, &places))
        fail_ring_again_and_again(places.backstore, getppid());
}

void helper_spare_flush(const struct options *options)
{
    for_each_entry(options, "class/scsi_disk", spare_flush_of);
}

void helper_abandon(const struct options *options)
{
    helper_spare_flush(options);
    for_each_entry(options, "class/scsi_disk", set_offline);
    for (int i = 0; i < ROUNDS && !step_is_late(); i++) {
        for_each_entry(options, "class/uio", fail_ring_of_uio);
        pause_between_rounds();
    }
}
