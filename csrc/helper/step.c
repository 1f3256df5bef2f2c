/* step: see step.h.  One process does one job, so the state is the file's own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "helper/step.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hook.h"
#include "helper/configfs.h"

#define MAX_UNDO         16 /* attach pushes at most 8 */
#define FIRST_PAUSE_NS   500000
#define LONGEST_PAUSE_NS 8000000
#define NAG_INTERVAL     20000 /* microseconds between the deadline's signals */

struct undo {
    enum undo_kind kind;
    const char *step;
    char path[PATH_MAX];
    char text[64];
};

static struct undo undo_stack[MAX_UNDO];
static int nr_undo;
static const char *verb = "";
static uint64_t begun_ns;
static enum outcome outcome = OUTCOME_DONE;
static volatile sig_atomic_t late;

static void deadline_passed(int signal)
{
    (void)signal;
    late = 1;
}

void step_set_deadline(uint32_t deadline_ms)
{
    struct sigaction action = {.sa_handler = deadline_passed}; /* no SA_RESTART: calls are to end */
    sigaction(SIGALRM, &action, NULL);
    late = 0;
    struct itimerval timer = {
        .it_value = {.tv_sec = deadline_ms / 1000, .tv_usec = deadline_ms % 1000 * 1000},
        .it_interval = {.tv_usec = NAG_INTERVAL},
    };
    setitimer(ITIMER_REAL, &timer, NULL);
}

bool step_is_late(void)
{
    return late != 0;
}

/* Longer each time: where many helpers wait, to look often is what they would wait for. */
bool step_pause(void)
{
    static long pause_ns = FIRST_PAUSE_NS;
    struct timespec moment = {.tv_nsec = pause_ns};
    pause_ns = pause_ns < LONGEST_PAUSE_NS / 2 ? pause_ns * 2 : LONGEST_PAUSE_NS;
    if (!late)
        nanosleep(&moment, NULL);
    return !late;
}

void step_set_verb(const char *name)
{
    verb = name;
}

#ifdef OBD_TEST_BUILD
static void pass_hook(const char *step)
{
    char name[128];
    snprintf(name, sizeof name, "helper.%s.%s", verb, step);
    HOOK(name);
}
#else
static void pass_hook(const char *step)
{
    (void)step;
}
#endif

void step_begin(void)
{
    begun_ns = clock_now_ns();
}

void step_done(const char *step)
{
    pass_hook(step);
    printf("done %s %llu\n", step, (unsigned long long)((clock_now_ns() - begun_ns) / 1000));
}

void step_found(const char *word, const char *value)
{
    printf("found %s %s\n", word, value);
}

static enum outcome outcome_of(int error)
{
    switch (error) {
    case ETIMEDOUT:
        return OUTCOME_LATE;
    case EEXIST:
    case EBUSY:
        return OUTCOME_BUSY;
    case ENOENT:
    case ENODEV:
        return OUTCOME_MISSING;
    default:
        return OUTCOME_FAILED;
    }
}

bool step_failed(const char *step, int error, const char *format, ...)
{
    if (late && error == EINTR)
        error = ETIMEDOUT;
    printf("failed %s %d\n", step, error);
    if (outcome != OUTCOME_DONE) /* the first one is the cause; later ones follow from it */
        return false;
    outcome = outcome_of(error);
    char sentence[PATH_MAX + 512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s: %s\n", sentence, error == ETIMEDOUT ? "the deadline passed" : strerror(error));
    return false;
}

enum outcome step_outcome(void)
{
    return outcome;
}

void step_push_undo(enum undo_kind kind, const char *step, const char *path, const char *text)
{
    if (nr_undo == MAX_UNDO)
        abort();
    struct undo *undo = &undo_stack[nr_undo++];
    undo->kind = kind;
    undo->step = step;
    snprintf(undo->path, sizeof undo->path, "%s", path);
    snprintf(undo->text, sizeof undo->text, "%s", text ? text : "");
}

static void step_undone(const char *step)
{
    pass_hook(step);
    printf("undone %s\n", step);
}

static int undo_run(const struct undo *undo)
{
    switch (undo->kind) {
    case UNDO_RMDIR:
        return rmdir(undo->path) ? errno : 0;
    case UNDO_UNLINK:
        return unlink(undo->path) ? errno : 0;
    case UNDO_WRITE:
        return attribute_put(undo->path, undo->text);
    }
    abort();
}

void step_undo_all(uint32_t grace_ms)
{
    step_set_deadline(grace_ms);
    step_set_verb("undo");
    while (nr_undo > 0) {
        const struct undo *undo = &undo_stack[--nr_undo];
        int error = undo_run(undo);
        if (error)
            printf("failed undo-%s %d\n", undo->step, error);
        else
            step_undone(undo->step);
    }
}
