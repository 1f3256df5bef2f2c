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

void shard_count(struct shard *shard, const struct command *command)
{
    add(&shard->nr_commands[command->kind], 1);
    add(&shard->nr_bytes[command->kind], command->length);
    if (command->status != OBD_OK)
        add(&shard->nr_errors[command->status], 1);
}
