/* step: one thing asked of the kernel, reported, and taken back when a later one fails.
 *
 * Every step prints one line on stdout, so that the daemon's log says what was done
 * and how long the kernel took:
 *
 *     done STEP MICROSECONDS        undone STEP        found WORD VALUE
 *     failed STEP ERRNO
 *
 * The first failure writes its one sentence on stderr and is what the exit code
 * comes from.  What can be taken back is pushed on a stack; step_undo_all() runs it
 * in reverse.
 *
 * The deadline is an interval timer: its signal interrupts what can be interrupted
 * and goes on coming, so that one that arrives between two system calls is not lost.
 * What sleeps where no signal reaches stays the parent's to wait for.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_HELPER_STEP_H
#define OBD_HELPER_STEP_H

#include <stdbool.h>
#include <stdint.h>

/* What the process ends with; tcmu_overlaybd/lio/helper.py reads them. */
enum outcome {
    OUTCOME_DONE = 0,
    OUTCOME_FAILED = 1,
    OUTCOME_USAGE = 2,
    OUTCOME_BUSY = 3,    /* a name is taken, or the disk is in use */
    OUTCOME_MISSING = 4, /* a part of the kernel is not there */
    OUTCOME_LATE = 5     /* the deadline passed */
};

/* From now on a system call that can be interrupted fails with EINTR when
 * deadline_ms have passed. */
void step_set_deadline(uint32_t deadline_ms);
bool step_is_late(void);

/* Sleeps a moment between two looks at /sys; false when the deadline has passed. */
bool step_pause(void);

/* What is being done; in the test build each step is a hook, "helper.<verb>.<step>",
 * reached when it is done and before that is said. */
void step_set_verb(const char *verb);

void step_begin(void);
void step_done(const char *step);
void step_found(const char *word, const char *value);

/* Reports the failure with its sentence ("<sentence>: <text of error>") and returns
 * false, so that a step ends in "return step_failed(...)".  EINTR after the deadline
 * is reported as the deadline. */
bool step_failed(const char *step, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* What the failures so far amount to; OUTCOME_DONE when there was none. */
enum outcome step_outcome(void);

/* Remembers how to take a step back; text is written for UNDO_WRITE only.  The
 * strings are copied. */
enum undo_kind { UNDO_RMDIR, UNDO_UNLINK, UNDO_WRITE };
void step_push_undo(enum undo_kind kind, const char *step, const char *path, const char *text);

/* Takes everything back, newest first, within grace_ms. */
void step_undo_all(uint32_t grace_ms);

#endif
