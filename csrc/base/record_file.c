/* record_file: a tape of what changed the files of a folder, for tests that cut the power.
 *
 * While it is on, every call that went well and could matter to a power cut is appended
 * to a tape, in the order in which the kernel saw it: the lock is held over call and
 * note.  tests/fault/file_tape.py reads the tape and builds from it what a disk may
 * hold when the power goes between any two calls.
 *
 * An event on the tape, in the machine's byte order: u32 kind, u32 length of the path,
 * u32 length of "to", u32 length of the data, u64 offset or size (of a sync: 1 when it
 * took the times along), then these three.
 *
 * Off, it costs one atomic load.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifdef OBD_TEST_BUILD

#include "base/file_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"

enum event_kind { EVENT_WRITE = 1, EVENT_SYNC, EVENT_TRUNCATE, EVENT_PUNCH, EVENT_CREATE, EVENT_RENAME, EVENT_REMOVE };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static FILE *tape;                                       /* NULL: off */
static char folder[4096];
static atomic_bool is_on;

int record_file_start(const char *of_folder, const char *tape_path)
{
    record_file_stop();
    pthread_mutex_lock(&lock);
    snprintf(folder, sizeof folder, "%s/", of_folder);
    tape = fopen(tape_path, "we");
    int status = tape != NULL ? OBD_OK : (int)status_set_errno(errno, "cannot make the tape %s", tape_path);
    atomic_store(&is_on, tape != NULL);
    pthread_mutex_unlock(&lock);
    return status;
}

void record_file_stop(void)
{
    pthread_mutex_lock(&lock);
    atomic_store(&is_on, false);
    if (tape != NULL)
        fclose(tape);
    tape = NULL;
    pthread_mutex_unlock(&lock);
}

/* ---- notes ---- */

struct event {
    enum event_kind kind;
    const char *path;
    const char *to;
    uint64_t offset;
    const struct iovec *iov; /* the data: of these, the first length bytes */
    size_t length;
};

static void put_data(const struct iovec *iov, size_t length)
{
    for (; length > 0; iov++) {
        size_t part = iov->iov_len < length ? iov->iov_len : length;
        fwrite(iov->iov_base, 1, part, tape);
        length -= part;
    }
}

/* Under the lock.  Flushed at once, so that a test sees where on the tape it is. */
static void note(const struct event *event)
{
    if (tape == NULL || strncmp(event->path, folder, strlen(folder)) != 0)
        return;
    const char *to = event->to == NULL ? "" : event->to;
    uint32_t numbers[4] = {event->kind, (uint32_t)strlen(event->path), (uint32_t)strlen(to), (uint32_t)event->length};
    fwrite(numbers, sizeof numbers, 1, tape);
    fwrite(&event->offset, sizeof event->offset, 1, tape);
    fputs(event->path, tape);
    fputs(to, tape);
    put_data(event->iov, event->length);
    fflush(tape);
}

/* Errno is the call's, not the tape's. */
static void end_call(bool went_well, const struct event *event)
{
    int error = errno;
    if (went_well)
        note(event);
    pthread_mutex_unlock(&lock);
    errno = error;
}

/* ---- the calls ---- */

static ssize_t recorded_write(const char *path, int fd, const struct iovec *iov, int nr_iov, uint64_t offset)
{
    if (!atomic_load(&is_on))
        return file_calls_of_kernel.write(path, fd, iov, nr_iov, offset);
    pthread_mutex_lock(&lock);
    ssize_t put = file_calls_of_kernel.write(path, fd, iov, nr_iov, offset);
    struct event event = {
        .kind = EVENT_WRITE, .path = path, .offset = offset, .iov = iov, .length = put > 0 ? (size_t)put : 0};
    end_call(put > 0, &event);
    return put;
}

static int recorded_sync(const char *path, int fd)
{
    if (!atomic_load(&is_on))
        return file_calls_of_kernel.sync(path, fd);
    pthread_mutex_lock(&lock);
    int failed = file_calls_of_kernel.sync(path, fd);
    end_call(failed == 0, &(struct event){.kind = EVENT_SYNC, .path = path});
    return failed;
}

static int recorded_sync_all(const char *path, int fd)
{
    if (!atomic_load(&is_on))
        return file_calls_of_kernel.sync_all(path, fd);
    pthread_mutex_lock(&lock);
    int failed = file_calls_of_kernel.sync_all(path, fd);
    end_call(failed == 0, &(struct event){.kind = EVENT_SYNC, .path = path, .offset = 1});
    return failed;
}

static int recorded_truncate(const char *path, int fd, uint64_t size)
{
    if (!atomic_load(&is_on))
        return file_calls_of_kernel.truncate(path, fd, size);
    pthread_mutex_lock(&lock);
    int failed = file_calls_of_kernel.truncate(path, fd, size);
    end_call(failed == 0, &(struct event){.kind = EVENT_TRUNCATE, .path = path, .offset = size});
    return failed;
}

static int recorded_open(const char *path, int flags, unsigned mode)
{
    if (!atomic_load(&is_on) || (flags & O_CREAT) == 0)
        return file_calls_of_kernel.open(path, flags, mode);
    pthread_mutex_lock(&lock);
    bool is_new = (flags & O_TRUNC) != 0 || access(path, F_OK) != 0;
    int fd = file_calls_of_kernel.open(path, flags, mode);
    end_call(fd >= 0 && is_new, &(struct event){.kind = EVENT_CREATE, .path = path});
    return fd;
}

static int recorded_rename(const char *path, const char *to)
{
    if (!atomic_load(&is_on))
        return file_calls_of_kernel.rename(path, to);
    pthread_mutex_lock(&lock);
    int failed = file_calls_of_kernel.rename(path, to);
    end_call(failed == 0, &(struct event){.kind = EVENT_RENAME, .path = path, .to = to});
    return failed;
}

static int recorded_remove(const char *path)
{
    if (!atomic_load(&is_on))
        return file_calls_of_kernel.remove(path);
    pthread_mutex_lock(&lock);
    int failed = file_calls_of_kernel.remove(path);
    end_call(failed == 0, &(struct event){.kind = EVENT_REMOVE, .path = path});
    return failed;
}

/* Reads change nothing; reserved space is no bytes. */
static ssize_t passed_read(const char *path, int fd, const struct iovec *iov, int nr_iov, uint64_t offset,
                           int rwf_flags)
{
    return file_calls_of_kernel.read(path, fd, iov, nr_iov, offset, rwf_flags);
}

static int passed_reserve(const char *path, int fd, uint64_t offset, uint64_t length)
{
    return file_calls_of_kernel.reserve(path, fd, offset, length);
}

static int recorded_punch(const char *path, int fd, uint64_t offset, uint64_t length)
{
    if (!atomic_load(&is_on))
        return file_calls_of_kernel.punch(path, fd, offset, length);
    pthread_mutex_lock(&lock);
    int failed = file_calls_of_kernel.punch(path, fd, offset, length);
    uint64_t bytes = length;
    struct iovec iov = {.iov_base = &bytes, .iov_len = sizeof bytes};
    struct event event = {.kind = EVENT_PUNCH, .path = path, .offset = offset, .iov = &iov, .length = sizeof bytes};
    end_call(failed == 0, &event);
    return failed;
}

const struct file_calls file_calls_recorded = {
    .read = passed_read,
    .write = recorded_write,
    .sync = recorded_sync,
    .sync_all = recorded_sync_all,
    .truncate = recorded_truncate,
    .reserve = passed_reserve,
    .punch = recorded_punch,
    .open = recorded_open,
    .rename = recorded_rename,
    .remove = recorded_remove,
};

#endif
