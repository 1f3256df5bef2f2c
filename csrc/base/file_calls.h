/* file_calls: the system calls that file.c makes, as a table.
 *
 * The release build has one table, which is the kernel.  The test build puts
 * fault_file.c in front of it, so that the n-th write or sync fails and no code
 * under test knows.  A call behaves as its system call does: it may do less than
 * was asked, and leaves its reason in errno.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_BASE_FILE_CALLS_H
#define OBD_BASE_FILE_CALLS_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct file_calls {
    ssize_t (*read)(const char *path, int fd, const struct iovec *iov, int nr_iov, uint64_t offset, int rwf_flags);
    ssize_t (*write)(const char *path, int fd, const struct iovec *iov, int nr_iov, uint64_t offset);
    int (*sync)(const char *path, int fd);
    int (*truncate)(const char *path, int fd, uint64_t size);
    int (*reserve)(const char *path, int fd, uint64_t offset, uint64_t length);
    int (*punch)(const char *path, int fd, uint64_t offset, uint64_t length);
};

extern const struct file_calls file_calls_of_kernel;

#ifdef OBD_TEST_BUILD
extern const struct file_calls file_calls_with_faults;

/* The rules behind obd_test_file_fault(). */
int fault_file_add_rule(const char *suffix, const char *operation, uint32_t n, int error, int sticky);
#endif

#endif
