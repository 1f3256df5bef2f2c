/* configfs: see configfs.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "helper/configfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "helper/step.h"

bool path_join(char path[PATH_MAX], const char *folder, const char *name)
{
    int length = snprintf(path, PATH_MAX, "%s/%s", folder, name);
    if (length < 0 || length >= PATH_MAX)
        return step_failed("path", ENAMETOOLONG, "%.200s...", folder);
    return true;
}

bool places_of(const struct options *options, struct places *places)
{
    char core[PATH_MAX];
    return path_join(core, options->configfs, "core") && path_join(places->hba, core, options->hba) &&
           path_join(places->backstore, places->hba, options->name) &&
           path_join(places->fabric, options->configfs, "loopback") &&
           path_join(places->port, places->fabric, options->port) && path_join(places->tpg, places->port, "tpgt_1") &&
           path_join(places->lun, places->tpg, "lun/lun_0") && path_join(places->link, places->lun, options->name);
}

int attribute_put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    size_t length = strlen(text);
    ssize_t written = write(fd, text, length);
    int error = written < 0 ? errno : (size_t)written < length ? EIO : 0;
    close(fd);
    return error;
}

int attribute_get(const char *path, char *text, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    ssize_t length = read(fd, text, room - 1);
    int error = length < 0 ? errno : 0;
    close(fd);
    text[length < 0 ? 0 : length] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return error;
}

bool folder_make(const char *step, const char *path)
{
    step_begin();
    if (mkdir(path, 0755))
        return step_failed(step, errno, "%s: make", path);
    step_push_undo(UNDO_RMDIR, step, path, NULL);
    step_done(step);
    return true;
}

bool attribute_write(const char *step, const char *folder, const char *name, const char *text)
{
    char path[PATH_MAX];
    if (!path_join(path, folder, name))
        return false;
    step_begin();
    int error = attribute_put(path, text);
    if (error)
        return step_failed(step, error, "%s: write \"%s\"", path, text);
    step_done(step);
    return true;
}

bool attribute_write_number(const char *step, const char *folder, const char *name, uint64_t number)
{
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    return attribute_write(step, folder, name, text);
}

static bool removed(const char *step, const char *path, int error)
{
    if (error && error != ENOENT)
        return step_failed(step, error, "%s: remove", path);
    step_done(step);
    return true;
}

bool folder_remove(const char *step, const char *path)
{
    step_begin();
    return removed(step, path, rmdir(path) ? errno : 0);
}

bool link_remove(const char *step, const char *path)
{
    step_begin();
    return removed(step, path, unlink(path) ? errno : 0);
}
