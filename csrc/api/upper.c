/* api/upper: uppers for Python.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/upper.h"

int obd_upper_open(const struct obd_upper_params *params, struct upper **out)
{
    return upper_open(params, out);
}

int obd_upper_close(struct upper *upper)
{
    return upper_close(upper);
}

void obd_upper_stats(struct upper *upper, struct obd_upper_stats *stats)
{
    upper_stats(upper, stats);
}
