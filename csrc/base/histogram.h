/* histogram: how often something took how long, in buckets whose bounds double.
 *
 *   bucket   0       1        2        ...   22         23
 *   up to    8 us    16 us    32 us    ...   33.6 s     for ever
 *
 * The bounds are fixed, so histograms of several threads, devices or machines can be
 * added up.  Counting takes no lock: any number of threads may, and whoever collects
 * sees each count sooner or later; a bucket and the sum may be one count apart.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_BASE_HISTOGRAM_H
#define OBD_BASE_HISTOGRAM_H

#include <stdatomic.h>

#include "obd.h"

struct histogram {
    _Atomic uint64_t nr[OBD_NR_LATENCY_BUCKETS];
    _Atomic uint64_t sum_ns;
};

/* The bucket of a duration: the first whose bound is not below it. */
unsigned histogram_bucket(uint64_t ns);
void histogram_count(struct histogram *histogram, uint64_t ns);
/* Adds what was counted to sum. */
void histogram_collect(const struct histogram *histogram, struct obd_latency *sum);

#endif
