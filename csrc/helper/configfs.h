/* configfs: folders, links and attributes of the kernel's target tree.
 *
 * A folder made is an object made in the kernel, and a link from a LUN to a backstore
 * makes the disk; each function is one step (step.h) and returns false after
 * reporting its failure.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_HELPER_CONFIGFS_H
#define OBD_HELPER_CONFIGFS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "helper/options.h"

/* Where the objects of one device lie. */
struct places {
    char hba[PATH_MAX];       /* core/user_N, shared by all devices */
    char backstore[PATH_MAX]; /* core/user_N/NAME */
    char fabric[PATH_MAX];    /* loopback */
    char port[PATH_MAX];      /* loopback/naa... */
    char tpg[PATH_MAX];       /* .../tpgt_1 */
    char lun[PATH_MAX];       /* .../lun/lun_0 */
    char link[PATH_MAX];      /* .../NAME */
};

/* False, and a sentence, when a path would be too long. */
bool places_of(const struct options *options, struct places *places);

/* path = folder/name; false, and a sentence, when that is too long. */
bool path_join(char path[PATH_MAX], const char *folder, const char *name);

/* One write(2), as configfs and sysfs want it; an errno value, 0 when done. */
int attribute_put(const char *path, const char *text);

/* The attribute's text without its newline; an errno value. */
int attribute_get(const char *path, char *text, size_t room);

/* Steps. */
bool folder_make(const char *step, const char *path);
bool attribute_write(const char *step, const char *folder, const char *name, const char *text);
bool attribute_write_number(const char *step, const char *folder, const char *name, uint64_t number);

/* Steps of taking down: what is not there is done already. */
bool folder_remove(const char *step, const char *path);
bool link_remove(const char *step, const char *path);

#endif
