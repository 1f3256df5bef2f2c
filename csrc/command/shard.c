/* shard: counters that threads do not fight over.
 *
 * Every thread is given a number when it first counts, and adds to that shard of
 * whatever device it works for.  Two threads may share a shard once there are more
 * than NR_SHARDS of them, so the counters are atomic all the same; what is saved is
 * the cache line that would travel between processors with every command.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "command/state.h"

static atomic_uint nr_threads_seen;

struct shard *shard_of_thread(struct device *device)
{
    static _Thread_local unsigned number; /* from 1; 0: not given yet */
    if (number == 0)
        number = atomic_fetch_add_explicit(&nr_threads_seen, 1, memory_order_relaxed) % NR_SHARDS + 1;
    return &device->shards[number - 1];
}

static void add(_Atomic uint64_t *counter, uint64_t value)
{
    atomic_fetch_add_explicit(counter, value, memory_order_relaxed);
}

/* Of a command that failed nobody knows which bytes it moved. */
static void count_bytes(struct shard *shard, const struct command *command)
{
    add(&shard->nr_bytes[command->kind], command->length);
    if (command->kind != COMMAND_READ)
        return;
    for (unsigned i = 0; i < OBD_NR_PROVENANCES; i++)
        if (command->provenance.bytes[i] > 0)
            add(&shard->nr_bytes_from[i], command->provenance.bytes[i]);
}

void shard_count(struct shard *shard, const struct command *command)
{
    histogram_count(&shard->latency[command->kind][provenance_class(&command->provenance)], command->took_ns);
    if (command->status == OBD_OK)
        count_bytes(shard, command);
    else
        add(&shard->nr_errors[command->status], 1);
}

static void collect(const _Atomic uint64_t *counters, uint64_t *sums, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++)
        sums[i] += atomic_load_explicit(&counters[i], memory_order_relaxed);
}

static uint64_t nr_commands(const struct histogram *latency)
{
    uint64_t nr = 0;
    for (unsigned class = 0; class < OBD_NR_LATENCY_CLASSES; class ++)
        for (unsigned i = 0; i < OBD_NR_LATENCY_BUCKETS; i++)
            nr += atomic_load_explicit(&latency[class].nr[i], memory_order_relaxed);
    return nr;
}

void shard_add(const struct shard *shard, struct obd_device_stats *stats)
{
    for (unsigned kind = 0; kind < OBD_NR_COMMAND_KINDS; kind++)
        stats->nr_commands[kind] += nr_commands(shard->latency[kind]);
    collect(shard->nr_bytes, stats->nr_bytes, OBD_NR_COMMAND_KINDS);
    collect(shard->nr_bytes_from, stats->nr_bytes_from, OBD_NR_PROVENANCES);
    collect(shard->nr_errors, stats->nr_errors, OBD_NR_STATUS);
}

void shard_add_latency(const struct shard *shard, struct obd_latency *out)
{
    for (unsigned kind = 0; kind < OBD_NR_COMMAND_KINDS; kind++)
        for (unsigned class = 0; class < OBD_NR_LATENCY_CLASSES; class ++)
            histogram_collect(&shard->latency[kind][class], out++);
}

/* ---- which commands are timed -------------------------------------------------------- */

/* Two readings of the clock cost some percent of a read from the page cache, and where
 * the kernel has to be asked for the time, as in our test VM, a third of it. */
#define UNTIMED_IN_A_ROW 15u

uint64_t sampler_begin(struct sampler *sampler)
{
    return atomic_load_explicit(&sampler->nr_left, memory_order_relaxed) == 0 ? clock_now_ns() : 0;
}

/* Two threads that share a shard may lose a step of the countdown; nothing hangs on it. */
uint64_t sampler_end(struct sampler *sampler, uint64_t began_ns)
{
    unsigned nr_left = atomic_load_explicit(&sampler->nr_left, memory_order_relaxed);
    if (began_ns == 0) {
        atomic_store_explicit(&sampler->nr_left, nr_left > 0 ? nr_left - 1 : 0, memory_order_relaxed);
        return atomic_load_explicit(&sampler->last_ns, memory_order_relaxed);
    }
    uint64_t took_ns = clock_now_ns() - began_ns;
    atomic_store_explicit(&sampler->last_ns, took_ns, memory_order_relaxed);
    atomic_store_explicit(&sampler->nr_left, UNTIMED_IN_A_ROW, memory_order_relaxed);
    return took_ns;
}
