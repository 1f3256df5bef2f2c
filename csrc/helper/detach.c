/* detach: takes a device down in the reverse order of attach, whatever is left of it.
 *
 * The unlink of the LUN makes the kernel flush the disk, and that waits for an answer
 * where no signal reaches.  So when it might not come (spare_flush), the kernel is first
 * told that there is no cache to flush; and when no daemon is there at all (abandon),
 * everything fails that waits for one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "helper/verbs.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "helper/abandon.h"
#include "helper/configfs.h"
#include "helper/disk.h"
#include "helper/step.h"

static bool prepare_disk(const struct options *options, const struct places *places)
{
    struct disk disk;
    if (disk_look(options, places, &disk)) /* no disk: a device half made, or half taken down */
        return true;
    if ((options->spare_flush || options->abandon) && !disk_spare_flush(options, &disk))
        return false;
    if (options->abandon && !disk_set_offline(&disk))
        return false;
    return !options->claim || disk_claim(options, &disk);
}

/* A TPG whose nexus is gone says ENODEV; one that is gone, ENOENT. */
static void drop_nexus(const struct places *places)
{
    char path[PATH_MAX];
    step_begin();
    if (path_join(path, places->tpg, "nexus") && attribute_put(path, "NULL") == 0)
        step_done("nexus");
}

static bool remove_lun(const struct options *options, const struct places *places)
{
    if (!prepare_disk(options, places))
        return false;
    pid_t failing = options->abandon ? abandon_ring_begin(places) : -1;
    bool ok = link_remove("link", places->link) && folder_remove("lun", places->lun);
    abandon_ring_end(failing);
    return ok;
}

static bool remove_port(const struct options *options, const struct places *places)
{
    if (!remove_lun(options, places))
        return false;
    drop_nexus(places);
    return folder_remove("tpg", places->tpg) && folder_remove("port", places->port);
}

/* The HBA goes with its last device; other devices in it are no failure. */
static void remove_hba(const struct places *places)
{
    step_begin();
    if (rmdir(places->hba) == 0)
        step_done("hba");
}

void helper_detach(const struct options *options)
{
    struct places places;
    if (!places_of(options, &places))
        return;
    if (options->port[0] != '\0' && !remove_port(options, &places))
        return;
    if (folder_remove("backstore", places.backstore))
        remove_hba(&places);
}
