/* file: a local file that the upper, the journal and the file source use.
 *
 * Every call either does the whole of what was asked or fails with a sentence
 * that names the file: no short reads, no short writes, EINTR is not seen.
 * Reading past the end is OBD_E_CORRUPT ("... is shorter than ..."), never zeros
 * (architecture, rule 5).
 *
 * In the test build file_open puts a fault layer on top (fault_file.c) when a
 * rule given by obd_test_file_fault() matches the path, so that the n-th write,
 * sync or fallocate fails without a hook in the code under test.
 *
 * Safe for use by several threads, as the system calls are.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_BASE_FILE_H
#define OBD_BASE_FILE_H

#include <stdbool.h>

#include "base/iov.h"
#include "base/status.h"

struct file;

enum file_lock { FILE_UNLOCKED, FILE_SHARED, FILE_EXCLUSIVE };

/* flags as of open(2), O_CLOEXEC is added; mode is used with O_CREAT. */
enum obd_status file_open(const char *path, int flags, unsigned mode, struct file **out);
void file_close(struct file *file); /* takes file; NULL is fine */

const char *file_path(const struct file *file);
int file_fd(const struct file *file);

/* Takes a whole-file lock (flock) without waiting; OBD_E_BUSY when another
 * process has it.  It ends with the file, or with the process. */
enum obd_status file_lock(struct file *file, enum file_lock lock);

enum obd_status file_size(struct file *file, uint64_t *size);
enum obd_status file_read(struct file *file, void *buffer, size_t length, uint64_t offset);
enum obd_status file_write(struct file *file, const void *buffer, size_t length, uint64_t offset);

/* Reads or writes length bytes at the cursor and moves it. */
enum obd_status file_read_iov(struct file *file, struct iov_cursor *cursor, size_t length, uint64_t offset);
enum obd_status file_write_iov(struct file *file, struct iov_cursor *cursor, size_t length, uint64_t offset);

/* As file_read_iov, but OBD_E_AGAIN, with the cursor where it was, when the
 * kernel would have to wait for a disk.  Where the file system cannot tell
 * (tmpfs, overlay: EOPNOTSUPP) it is a plain read, and remembered. */
enum obd_status file_read_iov_nowait(struct file *file, struct iov_cursor *cursor, size_t length, uint64_t offset);

enum obd_status file_sync_data(struct file *file);
/* As file_sync_data, and the times in its inode with it. */
enum obd_status file_sync_all(struct file *file);

/* Of names: what they do survives a power cut after file_sync_folder_of. */
enum obd_status file_rename(const char *path, const char *to);
enum obd_status file_remove(const char *path);
enum obd_status file_sync_folder_of(const char *path);

enum obd_status file_truncate(struct file *file, uint64_t size);

/* Reserves disk space for [offset, offset + length) without changing the size
 * (fallocate KEEP_SIZE).  A file system that cannot reserve is OBD_OK. */
enum obd_status file_reserve(struct file *file, uint64_t offset, uint64_t length);

/* Gives the disk space of [offset, offset + length) back; it reads as zeros, and the
 * size stays.  OBD_E_UNSUPPORTED when the file system cannot. */
enum obd_status file_punch(struct file *file, uint64_t offset, uint64_t length);

/* The first byte of data at or after offset, and the first hole after that
 * (SEEK_DATA, SEEK_HOLE); *begin = *end = size when only a hole is left. */
enum obd_status file_next_data(struct file *file, uint64_t offset, uint64_t *begin, uint64_t *end);

#endif
