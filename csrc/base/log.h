/* log: what C has to say, kept until Python pulls it.
 *
 * A bounded queue of short records.  Writing never waits and never fails: a full
 * queue drops the record and counts it.  What is fatal goes straight to stderr.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_BASE_LOG_H
#define OBD_BASE_LOG_H

#include "obd.h"

void log_write(enum obd_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The oldest record; waits for one until deadline_ns, then OBD_E_TIMEOUT.  Once
 * the log is closed and empty: OBD_E_CLOSED. */
enum obd_status log_next(struct obd_log_record *record, uint64_t deadline_ns);
void log_close(void); /* wakes whoever waits; what is queued can still be pulled */

/* To stderr at once, then abort(): a broken invariant of ours. */
void log_fatal(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
