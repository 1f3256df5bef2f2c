/* upper_pair: a pair of files in a folder of its own, and an upper on it.
 *
 * The headers of the pair are zero: C does not read them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef UPPER_PAIR_H
#define UPPER_PAIR_H

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#include "image/journal_format.h"
#include "image/upper_state.h"

#define UUID      "00000001-1111-2222-3333-000000000001"
#define DISK_SIZE (UINT64_C(64) << 20)

static char folder[] = "/tmp/obd-upper-XXXXXX";
static char data_path[64], index_path[64], journal_path[80];

static inline void write_file(const char *path, const void *bytes, size_t length)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0 && write(fd, bytes, length) == (ssize_t)length);
    close(fd);
}

static inline uint64_t size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : UINT64_MAX;
}

/* A fresh, empty pair; the headers are Python's business and left zero. */
static inline void new_pair(void)
{
    static const char header[4096];
    write_file(data_path, header, sizeof header);
    write_file(index_path, header, sizeof header);
    remove(journal_path);
}

static inline struct obd_upper_params params(uint32_t flags)
{
    return (struct obd_upper_params){.data_path = data_path,
                                     .index_path = index_path,
                                     .uuid = UUID,
                                     .holder = "test",
                                     .virtual_size = DISK_SIZE,
                                     .journal_slots = 64,
                                     .flags = flags};
}

static inline struct upper *open_upper(uint32_t flags)
{
    struct obd_upper_params p = params(flags);
    struct upper *upper;
    CHECK_OK(upper_open(&p, &upper));
    return upper;
}

static inline enum obd_status write_fill(struct upper *upper, uint64_t offset, size_t length, int byte)
{
    char *buffer = malloc(length);
    memset(buffer, byte, length);
    struct iovec iov = {.iov_base = buffer, .iov_len = length};
    struct iov_cursor cursor = iov_cursor_at(&iov, 1);
    enum obd_status status = upper_write(upper, &cursor, length, offset);
    free(buffer);
    return status;
}

/* The byte that the sector at offset is filled with; -1: not in the upper. */
static inline int sector_byte(struct upper *upper, uint64_t offset)
{
    struct segment s;
    if (upper_lookup(upper, offset / 512, offset / 512 + 1, &s, 1) == 0)
        return -1;
    if (s.zeroed)
        return 0;
    char buffer[512];
    struct iovec iov = {.iov_base = buffer, .iov_len = sizeof buffer};
    struct iov_cursor cursor = iov_cursor_at(&iov, 1);
    CHECK_OK(upper_read_log(upper, &cursor, sizeof buffer, (uint64_t)s.moffset * 512, false));
    for (size_t i = 1; i < sizeof buffer; i++)
        CHECK(buffer[i] == buffer[0]);
    return buffer[0];
}

/* ---- what a process does that is killed ---- */

/* Runs work with an open upper in a process that never closes it. */
static inline void in_killed_process(void (*work)(struct upper *))
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        work(open_upper(0));
        kill(getpid(), SIGKILL);
    }
    int how;
    CHECK(waitpid(pid, &how, 0) == pid && WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
}

static inline void write_ten(struct upper *upper)
{
    for (int i = 0; i < 10; i++)
        CHECK_OK(write_fill(upper, (uint64_t)i * 4096, 4096, i + 1));
    CHECK_OK(upper_discard(upper, 4096, 4096));
}

static inline bool shows_ten(struct upper *upper)
{
    for (int i = 0; i < 10; i++)
        if (sector_byte(upper, (uint64_t)i * 4096 + 512) != (i == 1 ? 0 : i + 1))
            return false;
    return true;
}

static inline void flush_half(struct upper *upper)
{
    CHECK_OK(write_fill(upper, 0, 4096, 77));
    CHECK_OK(upper_flush(upper));
    write_ten(upper);
}

static inline void append_to_index(const void *bytes, size_t length)
{
    int fd = open(index_path, O_WRONLY | O_APPEND);
    CHECK(fd >= 0 && write(fd, bytes, length) == (ssize_t)length);
    close(fd);
}

/* ---- refusals, journals, faults ---- */

static inline void check_refused(uint32_t flags, enum obd_status status, const char *part)
{
    struct obd_upper_params p = params(flags);
    struct upper *upper;
    CHECK_FAILS(upper_open(&p, &upper), status, part);
}

/* Rewrites the journal's header through change. */
static inline void change_journal(void (*change)(struct journal_header *))
{
    uint8_t bytes[JOURNAL_HEADER_USED];
    struct journal_header header;
    int fd = open(journal_path, O_RDWR);
    CHECK(fd >= 0 && pread(fd, bytes, sizeof bytes, 0) == sizeof bytes);
    CHECK(journal_header_decode(&header, bytes) == NULL);
    change(&header);
    journal_header_encode(&header, bytes);
    CHECK(pwrite(fd, bytes, sizeof bytes, 0) == sizeof bytes);
    CHECK(pwrite(fd, bytes, sizeof bytes, JOURNAL_HEADER_COPY) == sizeof bytes);
    close(fd);
}

static inline void other_boot(struct journal_header *header)
{
    header->boot_id[3] ^= 1;
}

static inline void fail_file(const char *suffix, const char *operation, uint32_t n, int error, int sticky)
{
    CHECK(obd_test_file_fault(suffix, operation, n, error, sticky) == OBD_OK);
}

static inline void no_faults(void)
{
    CHECK(obd_test_file_fault("", "", 0, 0, 0) == OBD_OK);
}

/* The first and the last test of every file: the folder they work in. */
TEST(upper_has_a_folder)
{
    CHECK(mkdtemp(folder) != NULL);
    snprintf(data_path, sizeof data_path, "%s/data", folder);
    snprintf(index_path, sizeof index_path, "%s/index", folder);
    snprintf(journal_path, sizeof journal_path, "%s.journal", index_path);
}

TEST(upper_left_nothing_in_the_folder)
{
    remove(data_path);
    remove(index_path);
    remove(journal_path);
    char aside[100]; /* where a damaged one goes */
    snprintf(aside, sizeof aside, "%s.damaged", journal_path);
    remove(aside);
    CHECK(rmdir(folder) == 0);
}

#endif
