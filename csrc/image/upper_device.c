/* upper_device: see upper_device.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/upper_device.h"

#include "base/checked.h"

enum obd_status upper_device_find_end(struct upper *upper)
{
    struct segment batch[256];
    const size_t room = sizeof batch / sizeof batch[0];
    uint64_t size, end = UPPER_HEADER_SIZE >> SECTOR_SHIFT, from = 0;
    enum obd_status status = file_size(upper->data, &size);
    if (status != OBD_OK)
        return status;
    size_t nr = room;
    while (nr == room) {
        nr = upper_lookup(upper, from, SEGMENT_MAX_OFFSET, batch, room);
        for (size_t i = 0; i < nr; i++)
            if (!batch[i].zeroed) /* those point to where the log once ended, and to no bytes */
                end = max_u64(end, segment_mapped_end(batch[i]));
        from = nr > 0 ? segment_end(batch[nr - 1]) : from;
    }
    upper->log_written = upper->log_end = end << SECTOR_SHIFT;
    upper->log_room = round_down(size, SECTOR_SIZE);
    return OBD_OK;
}

enum obd_status upper_device_refuse_full(const struct upper *upper, uint64_t end)
{
    return status_set(OBD_E_NO_SPACE, "the device has %llu bytes, and its log would need %llu: commit it",
                      (unsigned long long)upper->log_room, (unsigned long long)end);
}
