/* Files: whole transfers or a sentence, and faults where a test wants them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "check.h"

#include "base/file.h"

static char path[] = "/tmp/obd-file-XXXXXX";

static struct file *open_empty(void)
{
    struct file *file;
    CHECK_OK(file_open(path, O_RDWR | O_CREAT | O_TRUNC, 0600, &file));
    return file;
}

TEST(what_was_written_is_read)
{
    struct file *file = open_empty();
    char buffer[6] = {0};
    uint64_t size;
    CHECK_OK(file_write(file, "abcdef", 6, 10));
    CHECK_OK(file_size(file, &size));
    CHECK(size == 16);
    CHECK_OK(file_read(file, buffer, 6, 10));
    CHECK(memcmp(buffer, "abcdef", 6) == 0);
    CHECK(strcmp(file_path(file), path) == 0);
    file_close(file);
}

TEST(a_file_that_is_not_there_is_not_found)
{
    struct file *file;
    CHECK_FAILS(file_open("/tmp/obd-no-such-file", O_RDONLY, 0, &file), OBD_E_NOT_FOUND,
                "cannot open /tmp/obd-no-such-file: No such file");
    file_close(NULL);
}

TEST(reading_past_the_end_is_corrupt_not_zeros)
{
    struct file *file = open_empty();
    char buffer[8];
    CHECK_OK(file_write(file, "1234", 4, 0));
    CHECK_FAILS(file_read(file, buffer, 8, 0), OBD_E_CORRUPT, "is shorter than 8 bytes");
    CHECK(strstr(status_text(), path) != NULL);
    file_close(file);
}

TEST(iovs_of_many_pieces_go_in_rounds)
{
    enum { NR = 300 };
    struct file *file = open_empty();
    uint8_t out[NR * 3], in[NR * 3];
    struct iovec iov[NR];
    for (int i = 0; i < NR; i++)
        iov[i] = (struct iovec){out + 3 * i, 3};
    for (size_t i = 0; i < sizeof out; i++)
        out[i] = (uint8_t)random();
    struct iov_cursor cursor = iov_cursor_at(iov, NR);
    CHECK_OK(file_write_iov(file, &cursor, sizeof out, 5));
    CHECK(iov_cursor_left(&cursor) == 0);
    for (int i = 0; i < NR; i++)
        iov[i].iov_base = in + 3 * i;
    cursor = iov_cursor_at(iov, NR);
    CHECK_OK(file_read_iov(file, &cursor, sizeof in, 5));
    CHECK(memcmp(in, out, sizeof in) == 0);
    file_close(file);
}

TEST(a_nowait_read_gives_the_bytes_or_says_again_with_the_cursor_unmoved)
{
    struct file *file = open_empty();
    uint8_t out[20000], in[20000];
    memset(out, 7, sizeof out);
    CHECK_OK(file_write(file, out, sizeof out, 0));
    struct iovec iov = {in, sizeof in};
    struct iov_cursor cursor = iov_cursor_at(&iov, 1);
    enum obd_status status = file_read_iov_nowait(file, &cursor, sizeof in, 0);
    CHECK(status == OBD_OK || status == OBD_E_AGAIN);
    CHECK(iov_cursor_left(&cursor) == (status == OBD_OK ? 0 : sizeof in));
    CHECK(status != OBD_OK || memcmp(in, out, sizeof in) == 0);
    file_close(file);
}

TEST(an_exclusive_lock_keeps_another_process_out)
{
    struct file *file = open_empty(), *other;
    CHECK_OK(file_lock(file, FILE_EXCLUSIVE));
    CHECK_OK(file_open(path, O_RDWR, 0, &other)); /* flock belongs to the open file: this stands for a process */
    CHECK_FAILS(file_lock(other, FILE_SHARED), OBD_E_BUSY, "is held by another process");
    CHECK_OK(file_lock(file, FILE_UNLOCKED));
    CHECK_OK(file_lock(other, FILE_SHARED));
    CHECK_OK(file_lock(file, FILE_SHARED));
    file_close(other);
    file_close(file);
}

TEST(data_and_holes_are_told_apart)
{
    struct file *file = open_empty();
    uint64_t begin, end;
    CHECK_OK(file_truncate(file, 4 << 20));
    CHECK_OK(file_write(file, "x", 1, 1 << 20));
    CHECK_OK(file_next_data(file, 0, &begin, &end));
    CHECK(begin <= 1 << 20 && end > 1 << 20 && end < 4 << 20);
    CHECK_OK(file_next_data(file, end, &begin, &end));
    CHECK(begin == 4 << 20 && end == 4 << 20);
    CHECK_OK(file_next_data(file, 8 << 20, &begin, &end));
    CHECK(begin == 4 << 20 && end == 4 << 20);
    file_close(file);
}

TEST(reserving_does_not_change_the_size)
{
    struct file *file = open_empty();
    uint64_t size;
    CHECK_OK(file_reserve(file, 0, 1 << 20));
    CHECK_OK(file_size(file, &size));
    CHECK(size == 0);
    file_close(file);
}

/* ---- faults -------------------------------------------------------------------- */

static void no_faults(void)
{
    CHECK_OK(obd_test_file_fault("", "", 0, 0, 0));
}

TEST(the_nth_write_fails_once)
{
    struct file *file = open_empty();
    CHECK_OK(obd_test_file_fault(path + 5, "write", 3, ENOSPC, 0));
    CHECK_OK(file_write(file, "1", 1, 0));
    CHECK_OK(file_write(file, "2", 1, 1));
    CHECK_FAILS(file_write(file, "3", 1, 2), OBD_E_NO_SPACE, "cannot write 1 bytes at 2 of /tmp/");
    CHECK_OK(file_write(file, "4", 1, 2));
    no_faults();
    file_close(file);
}

TEST(a_sticky_fault_strikes_until_the_rules_are_removed)
{
    struct file *file = open_empty();
    CHECK_OK(obd_test_file_fault(path + 5, "sync", 2, EIO, 1));
    CHECK_OK(file_sync_data(file));
    CHECK_FAILS(file_sync_data(file), OBD_E_IO, "cannot sync");
    CHECK_FAILS(file_sync_data(file), OBD_E_IO, "cannot sync");
    no_faults();
    CHECK_OK(file_sync_data(file));
    file_close(file);
}

TEST(a_torn_write_has_written_half)
{
    struct file *file = open_empty();
    uint64_t size;
    CHECK_OK(obd_test_file_fault(path + 5, "tear", 2, ENOSPC, 0));
    CHECK_OK(file_write(file, "12345678", 8, 0));
    CHECK_FAILS(file_write(file, "12345678", 8, 8), OBD_E_NO_SPACE, "cannot write 8 bytes at 8");
    CHECK_OK(file_size(file, &size));
    CHECK(size == 12);
    no_faults();
    file_close(file);
}

static void *sync_in_thread(void *argument)
{
    CHECK_OK(file_sync_data(argument));
    return NULL;
}

TEST(a_stalled_sync_lasts_until_its_marker_is_gone)
{
    struct file *file = open_empty();
    char marker[sizeof path + 8];
    snprintf(marker, sizeof marker, "%s.stall", path);
    CHECK_OK(obd_test_file_fault(path + 5, "stall", 1, EIO, 0));
    int fd = open(marker, O_CREAT | O_WRONLY, 0600);
    CHECK(fd >= 0);
    close(fd);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, sync_in_thread, file) == 0);
    usleep(50000);
    CHECK(pthread_tryjoin_np(thread, NULL) == EBUSY);
    unlink(marker);
    CHECK(pthread_join(thread, NULL) == 0);
    no_faults();
    file_close(file);
}

TEST(every_operation_can_fail_and_other_files_do_not)
{
    struct file *file = open_empty();
    char byte;
    CHECK_OK(file_write(file, "1", 1, 0));
    CHECK_OK(obd_test_file_fault("another-file", "read", 1, EIO, 1));
    CHECK_OK(file_read(file, &byte, 1, 0));
    no_faults();
    CHECK_OK(obd_test_file_fault(path + 5, "read", 1, EIO, 0));
    CHECK_FAILS(file_read(file, &byte, 1, 0), OBD_E_IO, "cannot read 1 bytes at 0");
    CHECK_OK(obd_test_file_fault(path + 5, "truncate", 1, EFBIG, 0));
    CHECK_FAILS(file_truncate(file, 100), OBD_E_NO_SPACE, "to 100 bytes");
    CHECK_OK(obd_test_file_fault(path + 5, "reserve", 1, ENOSPC, 0));
    CHECK_FAILS(file_reserve(file, 0, 4096), OBD_E_NO_SPACE, "cannot reserve 4096 bytes at 0");
    no_faults();
    file_close(file);
}

TEST(a_rule_that_makes_no_sense_is_refused)
{
    CHECK_FAILS(obd_test_file_fault("x", "fly", 1, EIO, 0), OBD_E_INVALID, "fly");
    CHECK_FAILS(obd_test_file_fault("x", "write", 1, 0, 0), OBD_E_INVALID, "errno 0");
}

TEST(remove_the_file)
{
    unlink(path);
}

static void make_path(void)
{
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
}

TEST_MAIN(T(make_path), T(what_was_written_is_read), T(a_file_that_is_not_there_is_not_found),
          T(reading_past_the_end_is_corrupt_not_zeros), T(iovs_of_many_pieces_go_in_rounds),
          T(a_nowait_read_gives_the_bytes_or_says_again_with_the_cursor_unmoved),
          T(an_exclusive_lock_keeps_another_process_out), T(data_and_holes_are_told_apart),
          T(reserving_does_not_change_the_size), T(the_nth_write_fails_once),
          T(a_sticky_fault_strikes_until_the_rules_are_removed), T(a_torn_write_has_written_half),
          T(a_stalled_sync_lasts_until_its_marker_is_gone), T(every_operation_can_fail_and_other_files_do_not),
          T(a_rule_that_makes_no_sense_is_refused), T(remove_the_file))
