/* read_wait: a read that waits, for tools and for opening.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "source/demand_wait.h"
#include "source/source.h"

enum obd_status source_read_with_wait(struct source *source, struct demand_wait *wait, void *buffer, size_t length,
                                      uint64_t offset, uint64_t deadline_ns)
{
    struct read_context context = {.nowait = false, .demand = &wait->demand};
    struct iovec iov = {.iov_base = buffer, .iov_len = length};
    for (;;) {
        struct iov_cursor cursor = iov_cursor_at(&iov, 1);
        enum obd_status status = source_read(source, &context, &cursor, length, offset);
        if (status != OBD_E_MISS)
            return status;
        status = demand_wait_for_misses(wait, source->name, deadline_ns);
        if (status != OBD_OK)
            return status;
    }
}

enum obd_status source_read_wait(struct source *source, void *buffer, size_t length, uint64_t offset,
                                 uint64_t deadline_ns)
{
    struct demand_wait wait;
    demand_wait_init(&wait);
    enum obd_status status = source_read_with_wait(source, &wait, buffer, length, offset, deadline_ns);
    demand_wait_destroy(&wait);
    return status;
}
