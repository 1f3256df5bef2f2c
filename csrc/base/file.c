/* file: whole reads and writes of a local file.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include "base/file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/file_calls.h"

#ifdef OBD_TEST_BUILD
static const struct file_calls *const calls = &file_calls_with_faults;
#else
static const struct file_calls *const calls = &file_calls_of_kernel;
#endif

/* Pieces given to the kernel at once; a command's data area has up to 256. */
#define MAX_PIECES 256

struct file {
    int fd;
    atomic_bool has_no_nowait; /* the file system has refused RWF_NOWAIT */
    char path[];
};

enum obd_status file_open(const char *path, int flags, unsigned mode, struct file **out)
{
    size_t path_size = strlen(path) + 1;
    struct file *file = malloc(sizeof *file + path_size);
    if (file == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to open %s", path);
    memcpy(file->path, path, path_size);
    atomic_init(&file->has_no_nowait, false);
    do
        file->fd = calls->open(path, flags | O_CLOEXEC, mode);
    while (file->fd < 0 && errno == EINTR);
    if (file->fd < 0) {
        enum obd_status status = status_set_errno(errno, "cannot open %s", path);
        free(file);
        return status;
    }
    *out = file;
    return OBD_OK;
}

void file_close(struct file *file)
{
    if (file == NULL)
        return;
    close(file->fd);
    free(file);
}

const char *file_path(const struct file *file)
{
    return file->path;
}

int file_fd(const struct file *file)
{
    return file->fd;
}

enum obd_status file_lock(struct file *file, enum file_lock lock)
{
    static const int operations[] = {[FILE_UNLOCKED] = LOCK_UN, [FILE_SHARED] = LOCK_SH, [FILE_EXCLUSIVE] = LOCK_EX};
    if (flock(file->fd, operations[lock] | LOCK_NB) == 0)
        return OBD_OK;
    if (errno == EWOULDBLOCK)
        return status_set(OBD_E_BUSY, "%s is held by another process", file->path);
    return status_set_errno(errno, "cannot lock %s", file->path);
}

enum obd_status file_size(struct file *file, uint64_t *size)
{
    struct stat st;
    if (fstat(file->fd, &st) != 0)
        return status_set_errno(errno, "cannot ask for the size of %s", file->path);
    off_t end = S_ISBLK(st.st_mode) ? lseek(file->fd, 0, SEEK_END) : st.st_size;
    if (end < 0)
        return status_set_errno(errno, "cannot ask for the size of %s", file->path);
    *size = (uint64_t)end;
    return OBD_OK;
}

static enum obd_status shorter_than(const struct file *file, uint64_t end)
{
    return status_set(OBD_E_CORRUPT, "%s is shorter than %llu bytes", file->path, (unsigned long long)end);
}

/* What a failed read says; OBD_OK: try again. */
static enum obd_status read_error(const struct file *file, int error, size_t length, uint64_t offset)
{
    if (error == EINTR)
        return OBD_OK;
    return status_set_errno(error, "cannot read %zu bytes at %llu of %s", length, (unsigned long long)offset,
                            file->path);
}

enum obd_status file_read_iov(struct file *file, struct iov_cursor *cursor, size_t length, uint64_t offset)
{
    while (length > 0) {
        struct iovec pieces[MAX_PIECES];
        size_t described;
        int nr = iov_cursor_slice(cursor, length, pieces, MAX_PIECES, &described);
        ssize_t got = calls->read(file->path, file->fd, pieces, nr, offset, 0);
        if (got == 0)
            return shorter_than(file, offset + length);
        if (got < 0) {
            enum obd_status status = read_error(file, errno, length, offset);
            if (status != OBD_OK)
                return status;
            continue;
        }
        iov_cursor_advance(cursor, (uint64_t)got);
        offset += (uint64_t)got;
        length -= (size_t)got;
    }
    return OBD_OK;
}

/* File systems without RWF_NOWAIT have said so in each of these ways. */
static bool means_no_nowait(int error)
{
    return error == EOPNOTSUPP || error == ENOSYS || error == EINVAL;
}

enum obd_status file_read_iov_nowait(struct file *file, struct iov_cursor *cursor, size_t length, uint64_t offset)
{
    struct iov_cursor at = *cursor;
    while (length > 0) {
        if (atomic_load_explicit(&file->has_no_nowait, memory_order_relaxed)) {
            enum obd_status status = file_read_iov(file, &at, length, offset);
            *cursor = at;
            return status;
        }
        struct iovec pieces[MAX_PIECES];
        size_t described;
        int nr = iov_cursor_slice(&at, length, pieces, MAX_PIECES, &described);
        ssize_t got = calls->read(file->path, file->fd, pieces, nr, offset, RWF_NOWAIT);
        /* A zero may be the end or a kernel's way to say "not now": the plain read knows. */
        if (got == 0 || (got < 0 && errno == EAGAIN))
            return OBD_E_AGAIN;
        if (got < 0 && means_no_nowait(errno)) {
            atomic_store_explicit(&file->has_no_nowait, true, memory_order_relaxed);
            continue;
        }
        if (got < 0) {
            enum obd_status status = read_error(file, errno, length, offset);
            if (status != OBD_OK)
                return status;
            continue;
        }
        iov_cursor_advance(&at, (uint64_t)got);
        offset += (uint64_t)got;
        length -= (size_t)got;
    }
    *cursor = at;
    return OBD_OK;
}

enum obd_status file_write_iov(struct file *file, struct iov_cursor *cursor, size_t length, uint64_t offset)
{
    while (length > 0) {
        struct iovec pieces[MAX_PIECES];
        size_t described;
        int nr = iov_cursor_slice(cursor, length, pieces, MAX_PIECES, &described);
        ssize_t put = calls->write(file->path, file->fd, pieces, nr, offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return status_set_errno(put == 0 ? EIO : errno, "cannot write %zu bytes at %llu of %s", length,
                                    (unsigned long long)offset, file->path);
        iov_cursor_advance(cursor, (uint64_t)put);
        offset += (uint64_t)put;
        length -= (size_t)put;
    }
    return OBD_OK;
}

enum obd_status file_read(struct file *file, void *buffer, size_t length, uint64_t offset)
{
    struct iovec iov = {.iov_base = buffer, .iov_len = length};
    struct iov_cursor cursor = iov_cursor_at(&iov, 1);
    return file_read_iov(file, &cursor, length, offset);
}

enum obd_status file_write(struct file *file, const void *buffer, size_t length, uint64_t offset)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buffer, .iov_len = length};
    struct iov_cursor cursor = iov_cursor_at(&iov, 1);
    return file_write_iov(file, &cursor, length, offset);
}

static enum obd_status sync_with(struct file *file, int (*sync)(const char *path, int fd))
{
    int failed;
    do
        failed = sync(file->path, file->fd);
    while (failed != 0 && errno == EINTR);
    return failed == 0 ? OBD_OK : status_set_errno(errno, "cannot sync %s", file->path);
}

enum obd_status file_sync_data(struct file *file)
{
    return sync_with(file, calls->sync);
}

enum obd_status file_sync_all(struct file *file)
{
    return sync_with(file, calls->sync_all);
}

enum obd_status file_rename(const char *path, const char *to)
{
    return calls->rename(path, to) == 0 ? OBD_OK : status_set_errno(errno, "cannot rename %s to %s", path, to);
}

enum obd_status file_remove(const char *path)
{
    return calls->remove(path) == 0 ? OBD_OK : status_set_errno(errno, "cannot remove %s", path);
}

enum obd_status file_sync_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
    if (folder == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to sync the folder of %s", path);
    struct file *file;
    enum obd_status status = file_open(folder, O_RDONLY | O_DIRECTORY, 0, &file);
    free(folder);
    if (status != OBD_OK)
        return status;
    status = file_sync_data(file);
    file_close(file);
    return status;
}

enum obd_status file_truncate(struct file *file, uint64_t size)
{
    int failed;
    do
        failed = calls->truncate(file->path, file->fd, size);
    while (failed != 0 && errno == EINTR);
    return failed == 0 ? OBD_OK
                       : status_set_errno(errno, "cannot set the size of %s to %llu bytes", file->path,
                                          (unsigned long long)size);
}

enum obd_status file_reserve(struct file *file, uint64_t offset, uint64_t length)
{
    int failed;
    do
        failed = calls->reserve(file->path, file->fd, offset, length);
    while (failed != 0 && errno == EINTR);
    if (failed == 0 || errno == EOPNOTSUPP || errno == ENOSYS)
        return OBD_OK;
    return status_set_errno(errno, "cannot reserve %llu bytes at %llu of %s", (unsigned long long)length,
                            (unsigned long long)offset, file->path);
}

enum obd_status file_punch(struct file *file, uint64_t offset, uint64_t length)
{
    int failed;
    do
        failed = calls->punch(file->path, file->fd, offset, length);
    while (failed != 0 && errno == EINTR);
    if (failed == 0)
        return OBD_OK;
    if (errno == EOPNOTSUPP || errno == ENOSYS)
        return status_set(OBD_E_UNSUPPORTED, "the file system of %s cannot give the space of a part of a file back",
                          file->path);
    return status_set_errno(errno, "cannot give %llu bytes at %llu of %s back", (unsigned long long)length,
                            (unsigned long long)offset, file->path);
}

enum obd_status file_next_data(struct file *file, uint64_t offset, uint64_t *begin, uint64_t *end)
{
    uint64_t size;
    enum obd_status status = file_size(file, &size);
    if (status != OBD_OK)
        return status;
    *begin = *end = size;
    if (offset >= size)
        return OBD_OK;
    off_t data = lseek(file->fd, (off_t)offset, SEEK_DATA);
    if (data < 0 && errno == ENXIO) /* only a hole is left */
        return OBD_OK;
    if (data < 0 && errno == EINVAL) { /* a file system without holes */
        *begin = offset;
        return OBD_OK;
    }
    off_t hole = data < 0 ? -1 : lseek(file->fd, data, SEEK_HOLE);
    if (hole < 0)
        return status_set_errno(errno, "cannot look for data after %llu of %s", (unsigned long long)offset, file->path);
    *begin = (uint64_t)data;
    *end = min_u64((uint64_t)hole, size);
    return OBD_OK;
}
