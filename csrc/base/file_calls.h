/* file_calls: the system calls that file.c makes, as a table.
 *
 * The release build has one table, which is the kernel.  The test build puts two
 * in front of it, and no code under test knows:
 *
 *   file.c -> fault_file.c   the n-th write or sync fails
 *          -> record_file.c  what changed the files is written down, in order
 *          -> the kernel
 *
 * A call behaves as its system call does: it may do less than
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
    int (*sync)(const char *path, int fd);     /* fdatasync */
    int (*sync_all)(const char *path, int fd); /* fsync */
    int (*truncate)(const char *path, int fd, uint64_t size);
    int (*reserve)(const char *path, int fd, uint64_t offset, uint64_t length);
    int (*punch)(const char *path, int fd, uint64_t offset, uint64_t length);
    int (*open)(const char *path, int flags, unsigned mode);
    int (*rename)(const char *path, const char *to);
    int (*remove)(const char *path);
};

extern const struct file_calls file_calls_of_kernel;

#ifdef OBD_TEST_BUILD
extern const struct file_calls file_calls_with_faults;
extern const struct file_calls file_calls_recorded;

/* The rules behind obd_test_file_fault(). */
int fault_file_add_rule(const char *suffix, const char *operation, uint32_t n, int error, int sticky);

/* What obd_test_record_files() does. */
int record_file_start(const char *folder, const char *tape_path);
void record_file_stop(void);
#endif

#endif
