/* attach: a backstore, a port with one LUN, and the disk behind it, in that order.
 *
 * Each step needs the ones before it; some of the order is the kernel's:
 *   - tcm_loop reads its module parameters when it makes a SCSI host
 *   - cmd_time_out can be set after "enable" and before the LUN link only
 *   - the serial number too
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "helper/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "helper/configfs.h"
#include "helper/disk.h"
#include "helper/step.h"

#define UNDO_GRACE_MS 5000
#define HBA_TRIES     50

/* The HBA is shared: another helper may make or remove it between any two of our
 * calls, so the pair of folders is tried again until both are there. */
static bool make_backstore(const struct options *options, const struct places *places)
{
    step_begin();
    for (int i = 0; i < HBA_TRIES; i++) {
        if (mkdir(places->hba, 0755) && errno != EEXIST)
            return step_failed("hba", errno, "%s: make", places->hba);
        if (mkdir(places->backstore, 0755) == 0) {
            step_push_undo(UNDO_RMDIR, "hba", places->hba, NULL);
            step_push_undo(UNDO_RMDIR, "backstore", places->backstore, NULL);
            step_done("backstore");
            return true;
        }
        if (errno != ENOENT)
            break;
    }
    if (errno == EEXIST)
        return step_failed("backstore", EEXIST, "a backstore named %s is in use", options->name);
    return step_failed("backstore", errno, "%s: make", places->backstore);
}

static bool enable_backstore(const struct options *options, const struct places *places)
{
    char control[PATH_MAX];
    int length =
        snprintf(control, sizeof control,
                 "dev_config=%s,dev_size=%llu,hw_max_sectors=%llu,max_data_area_mb=%llu,cmd_ring_size_mb=%llu%s",
                 options->config, (unsigned long long)options->size, (unsigned long long)options->max_sectors,
                 (unsigned long long)options->data_area_mb, (unsigned long long)options->ring_mb,
                 options->kernel_waits ? "" : ",nl_reply_supported=-1");
    if (length >= (int)sizeof control)
        return step_failed("control", ENAMETOOLONG, "%s: config string", options->name);
    return attribute_write("control", places->backstore, "control", control) &&
           attribute_write("enable", places->backstore, "enable", "1") &&
           attribute_write_number("cmd-time-out", places->backstore, "attrib/cmd_time_out", 0) &&
           attribute_write_number("qfull-time-out", places->backstore, "attrib/qfull_time_out",
                                  options->qfull_time_out) &&
           attribute_write("serial", places->backstore, "wwn/vpd_unit_serial", options->serial);
}

/* Older kernels have no such parameters, or not as writable ones: then hosts are as
 * deep as that kernel makes them. */
static void set_host_depth(const struct options *options)
{
    static const char *const names[] = {"can_queue", "cmd_per_lun"};
    char path[PATH_MAX], text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)options->queue_depth);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%.3900s/module/tcm_loop/parameters/%s", options->sysfs, names[i]);
        step_begin();
        if (attribute_put(path, text) == 0)
            step_done(names[i]);
    }
}

static bool link_lun(const struct places *places)
{
    step_begin();
    if (symlink(places->backstore, places->link))
        return step_failed("link", errno, "%s: link to %s", places->link, places->backstore);
    step_push_undo(UNDO_UNLINK, "link", places->link, NULL);
    step_done("link");
    return true;
}

static bool set_nexus(const struct options *options, const struct places *places)
{
    char nexus[PATH_MAX];
    if (!attribute_write("nexus", places->tpg, "nexus", options->nexus) || !path_join(nexus, places->tpg, "nexus"))
        return false;
    step_push_undo(UNDO_WRITE, "nexus", nexus, "NULL");
    return true;
}

/* The fabric's own folder is shared by all ports and stays: making it loads tcm_loop. */
static bool make_fabric(const struct places *places)
{
    step_begin();
    if (mkdir(places->fabric, 0755) && errno != EEXIST)
        return step_failed("fabric", errno, "%s: make", places->fabric);
    step_done("fabric");
    return true;
}

static bool make_port(const struct options *options, const struct places *places)
{
    if (!make_fabric(places))
        return false;
    set_host_depth(options);
    return folder_make("port", places->port) && folder_make("tpg", places->tpg) && set_nexus(options, places) &&
           folder_make("lun", places->lun) && link_lun(places);
}

static bool make_disk(const struct options *options, const struct places *places)
{
    struct disk disk;
    return disk_find(options, places, &disk) && disk_set_timeout(options, &disk) &&
           disk_read_first_block(options, &disk) && disk_set_up_queue(options, &disk);
}

/* A call that was interrupted in the kernel may have ended in time by luck; late is late. */
static bool in_time(void)
{
    return !step_is_late() || step_failed("deadline", ETIMEDOUT, "attach");
}

void helper_attach(const struct options *options)
{
    struct places places;
    bool has_port = options->port[0] != '\0';
    bool ok = places_of(options, &places) && make_backstore(options, &places) && enable_backstore(options, &places) &&
              in_time() && (!has_port || (make_port(options, &places) && make_disk(options, &places)));
    if (!ok)
        step_undo_all(UNDO_GRACE_MS);
}
