/* fault_file: system calls that fail when a test says so.
 *
 * A rule names a path suffix, an operation and a number n: from the moment it is
 * given, the n-th such call fails with its errno and does nothing, and with
 * "sticky" every later one too.  "tear" is a write that fails after half of its
 * bytes are in the file.  A rename is of the path it leads to.
 *
 * Syncs that misbehave without failing, so that the errno is not used: "stall" hangs as
 * on a dead disk, while there is a file of that path with ".stall" behind it, so that
 * another process can end it; "forget" does nothing; "late" is made after the next sync
 * of any file, as by code that gets their order wrong.
 *
 * Without rules the layer costs one atomic load.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifdef OBD_TEST_BUILD

#include "base/file_calls.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"

#define MAX_RULES     16
#define STALL_POLL_US 5000

struct fault_rule {
    char suffix[256];
    char operation[16];
    uint32_t n;     /* calls until it strikes, this one included; 0: it has struck */
    int error;      /* errno */
    bool is_sticky; /* strikes again at every later call */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards rules */
static struct fault_rule rules[MAX_RULES];
static atomic_uint nr_rules;

static bool ends_in(const char *path, const char *suffix)
{
    size_t path_length = strlen(path), length = strlen(suffix);
    return path_length >= length && strcmp(path + path_length - length, suffix) == 0;
}

/* Counts this call; true when the rule strikes. */
static bool strikes(struct fault_rule *rule, const char *path, const char *operation)
{
    if (strcmp(rule->operation, operation) != 0 || !ends_in(path, rule->suffix))
        return false;
    if (rule->n == 0)
        return rule->is_sticky;
    return --rule->n == 0;
}

/* True, with errno set, when the call must fail. */
static bool is_faulty(const char *path, const char *operation)
{
    if (atomic_load(&nr_rules) == 0)
        return false;
    int error = 0;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < atomic_load(&nr_rules); i++)
        if (strikes(&rules[i], path, operation))
            error = rules[i].error;
    pthread_mutex_unlock(&lock);
    if (error != 0)
        errno = error;
    return error != 0;
}

static bool is_operation(const char *name)
{
    static const char *const known[] = {"write", "tear",     "sync",  "stall", "forget", "late",  "reserve",
                                        "read",  "truncate", "punch", "open",  "rename", "remove"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i]) == 0)
            return true;
    return false;
}

/* Under the lock. */
static enum obd_status add_rule(const struct fault_rule *rule)
{
    unsigned nr = atomic_load(&nr_rules);
    if (nr == MAX_RULES)
        return status_set(OBD_E_LIMIT, "there are %d fault rules already", MAX_RULES);
    rules[nr] = *rule;
    atomic_store(&nr_rules, nr + 1);
    return OBD_OK;
}

int fault_file_add_rule(const char *suffix, const char *operation, uint32_t n, int error, int sticky)
{
    if (n == 0) {
        pthread_mutex_lock(&lock);
        atomic_store(&nr_rules, 0);
        pthread_mutex_unlock(&lock);
        return OBD_OK;
    }
    struct fault_rule rule = {.n = n, .error = error, .is_sticky = sticky != 0};
    if (!is_operation(operation) || error <= 0 || strlen(suffix) >= sizeof rule.suffix)
        return status_set(OBD_E_INVALID, "fault rule \"%s\" on \"%s\" with errno %d makes no sense", operation, suffix,
                          error);
    snprintf(rule.suffix, sizeof rule.suffix, "%s", suffix);
    snprintf(rule.operation, sizeof rule.operation, "%s", operation);
    pthread_mutex_lock(&lock);
    enum obd_status status = add_rule(&rule);
    pthread_mutex_unlock(&lock);
    return status;
}

static ssize_t faulty_read(const char *path, int fd, const struct iovec *iov, int nr_iov, uint64_t offset,
                           int rwf_flags)
{
    if (is_faulty(path, "read"))
        return -1;
    return file_calls_recorded.read(path, fd, iov, nr_iov, offset, rwf_flags);
}

/* Writes half of the first piece, and fails with the errno that is set. */
static ssize_t tear(const char *path, int fd, const struct iovec *iov, uint64_t offset)
{
    int error = errno;
    struct iovec half = {.iov_base = iov->iov_base, .iov_len = iov->iov_len / 2};
    file_calls_recorded.write(path, fd, &half, 1, offset);
    errno = error;
    return -1;
}

static ssize_t faulty_write(const char *path, int fd, const struct iovec *iov, int nr_iov, uint64_t offset)
{
    if (is_faulty(path, "write"))
        return -1;
    if (is_faulty(path, "tear"))
        return tear(path, fd, iov, offset);
    return file_calls_recorded.write(path, fd, iov, nr_iov, offset);
}

static void wait_while_stalled(const char *path)
{
    char stalled[4096];
    snprintf(stalled, sizeof stalled, "%s.stall", path);
    while (access(stalled, F_OK) == 0)
        usleep(STALL_POLL_US);
}

/* A sync that another one overtakes: it is made after that one. */
static struct {
    char path[4096];
    int fd;          /* -1: none waits */
} late = {.fd = -1}; /* under lock */

static void put_off(const char *path, int fd)
{
    pthread_mutex_lock(&lock);
    if (late.fd < 0) {
        snprintf(late.path, sizeof late.path, "%s", path);
        late.fd = dup(fd);
    }
    pthread_mutex_unlock(&lock);
}

static void make_up_for_late(void)
{
    pthread_mutex_lock(&lock);
    int fd = late.fd;
    late.fd = -1;
    pthread_mutex_unlock(&lock);
    if (fd < 0)
        return;
    file_calls_recorded.sync(late.path, fd);
    close(fd);
}

static int faulty_sync(const char *path, int fd)
{
    if (is_faulty(path, "stall"))
        wait_while_stalled(path);
    if (is_faulty(path, "forget"))
        return 0;
    if (is_faulty(path, "late")) {
        put_off(path, fd);
        return 0;
    }
    if (is_faulty(path, "sync"))
        return -1;
    int failed = file_calls_recorded.sync(path, fd);
    make_up_for_late();
    return failed;
}

static int faulty_sync_all(const char *path, int fd)
{
    return is_faulty(path, "sync") ? -1 : file_calls_recorded.sync_all(path, fd);
}

static int faulty_truncate(const char *path, int fd, uint64_t size)
{
    return is_faulty(path, "truncate") ? -1 : file_calls_recorded.truncate(path, fd, size);
}

static int faulty_reserve(const char *path, int fd, uint64_t offset, uint64_t length)
{
    return is_faulty(path, "reserve") ? -1 : file_calls_recorded.reserve(path, fd, offset, length);
}

static int faulty_punch(const char *path, int fd, uint64_t offset, uint64_t length)
{
    return is_faulty(path, "punch") ? -1 : file_calls_recorded.punch(path, fd, offset, length);
}

static int faulty_open(const char *path, int flags, unsigned mode)
{
    return is_faulty(path, "open") ? -1 : file_calls_recorded.open(path, flags, mode);
}

static int faulty_rename(const char *path, const char *to)
{
    return is_faulty(to, "rename") ? -1 : file_calls_recorded.rename(path, to);
}

static int faulty_remove(const char *path)
{
    return is_faulty(path, "remove") ? -1 : file_calls_recorded.remove(path);
}

const struct file_calls file_calls_with_faults = {
    .read = faulty_read,
    .write = faulty_write,
    .sync = faulty_sync,
    .sync_all = faulty_sync_all,
    .truncate = faulty_truncate,
    .reserve = faulty_reserve,
    .punch = faulty_punch,
    .open = faulty_open,
    .rename = faulty_rename,
    .remove = faulty_remove,
};

#endif
