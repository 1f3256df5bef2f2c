/* api/log: the log for Python.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/log.h"

#include "base/clock.h"
#include "base/status.h"

int obd_log_next(struct obd_log_record *record, uint32_t timeout_ms)
{
    return log_next(record, clock_deadline_ns(timeout_ms));
}

void obd_log_close(void)
{
    log_close();
}
