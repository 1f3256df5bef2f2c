/* histogram: see histogram.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/histogram.h"

unsigned histogram_bucket(uint64_t ns)
{
    uint64_t firsts = ns == 0 ? 0 : (ns - 1) / OBD_LATENCY_FIRST_NS; /* a bound is in its own bucket */
    unsigned bucket = firsts == 0 ? 0 : 64 - (unsigned)__builtin_clzll(firsts);
    return bucket < OBD_NR_LATENCY_BUCKETS ? bucket : OBD_NR_LATENCY_BUCKETS - 1;
}

void histogram_count(struct histogram *histogram, uint64_t ns)
{
    atomic_fetch_add_explicit(&histogram->nr[histogram_bucket(ns)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum_ns, ns, memory_order_relaxed);
}

void histogram_collect(const struct histogram *histogram, struct obd_latency *sum)
{
    for (unsigned i = 0; i < OBD_NR_LATENCY_BUCKETS; i++)
        sum->nr[i] += atomic_load_explicit(&histogram->nr[i], memory_order_relaxed);
    sum->sum_ns += atomic_load_explicit(&histogram->sum_ns, memory_order_relaxed);
}
