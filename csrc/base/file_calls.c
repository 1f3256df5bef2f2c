/* file_calls: the table that is the kernel.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include "base/file_calls.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static ssize_t kernel_read(const char *path, int fd, const struct iovec *iov, int nr_iov, uint64_t offset,
                           int rwf_flags)
{
    (void)path;
    if (nr_iov == 1 && rwf_flags == 0) /* the common case, and the cheaper call */
        return pread(fd, iov->iov_base, iov->iov_len, (off_t)offset);
    return preadv2(fd, iov, nr_iov, (off_t)offset, rwf_flags);
}

static ssize_t kernel_write(const char *path, int fd, const struct iovec *iov, int nr_iov, uint64_t offset)
{
    (void)path;
    return pwritev(fd, iov, nr_iov, (off_t)offset);
}

static int kernel_sync(const char *path, int fd)
{
    (void)path;
    return fdatasync(fd);
}

static int kernel_sync_all(const char *path, int fd)
{
    (void)path;
    return fsync(fd);
}

static int kernel_truncate(const char *path, int fd, uint64_t size)
{
    (void)path;
    return ftruncate(fd, (off_t)size);
}

static int kernel_reserve(const char *path, int fd, uint64_t offset, uint64_t length)
{
    (void)path;
    return fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length);
}

static int kernel_punch(const char *path, int fd, uint64_t offset, uint64_t length)
{
    (void)path;
    return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length);
}

static int kernel_open(const char *path, int flags, unsigned mode)
{
    return open(path, flags, (mode_t)mode);
}

const struct file_calls file_calls_of_kernel = {
    .read = kernel_read,
    .write = kernel_write,
    .sync = kernel_sync,
    .sync_all = kernel_sync_all,
    .truncate = kernel_truncate,
    .reserve = kernel_reserve,
    .punch = kernel_punch,
    .open = kernel_open,
    .rename = rename,
    .remove = remove,
};
