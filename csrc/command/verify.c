/* verify: reads a range in order to know that it can be read, or what it holds.
 *
 * A VERIFY may span the whole disk, so it goes through it stretch by stretch: what
 * one stretch misses is parked for and pinned, never what the disk misses.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "base/checked.h"
#include "command/state.h"

#define STRETCH (UINT64_C(1) << 20)
#define PIECE   (UINT64_C(64) << 10)

/* Compares bytes with what the command brought for them; progress is where they
 * lie in it. */
static enum obd_status compare(struct command *command, const unsigned char *bytes, size_t length, uint64_t progress)
{
    struct iov_cursor cursor = iov_cursor_at(command->iov, command->nr_iov);
    iov_cursor_advance(&cursor, progress);
    for (size_t done = 0, contiguous; done < length; done += contiguous) {
        const unsigned char *expected = iov_cursor_peek(&cursor, length - done, &contiguous);
        if (memcmp(bytes + done, expected, contiguous) != 0) {
            size_t i = 0;
            while (bytes[done + i] == expected[i])
                i++;
            command->miscompare_offset = progress + done + i;
            return status_set(OBD_E_MISCOMPARE, "byte %llu of the disk differs",
                              (unsigned long long)(command->offset + command->miscompare_offset));
        }
        iov_cursor_advance(&cursor, contiguous);
    }
    return OBD_OK;
}

static enum obd_status verify_piece(struct command *command, uint64_t progress, size_t length)
{
    unsigned char bytes[PIECE];
    const struct iovec piece = {.iov_base = bytes, .iov_len = length};
    struct iov_cursor cursor = iov_cursor_at(&piece, 1);
    const struct read_context context = {.nowait = false, .demand = &command->demand};
    enum obd_status status =
        image_read(device_image(command->device), &context, &cursor, length, command->offset + progress);
    if (status == OBD_OK && command->nr_iov > 0)
        status = compare(command, bytes, length, progress);
    return status;
}

enum obd_status command_verify(struct command *command)
{
    uint64_t end = command->progress + min_u64(STRETCH, command->length - command->progress);
    bool has_missed = false;
    for (uint64_t at = command->progress; at < end; at += PIECE) {
        enum obd_status status = verify_piece(command, at, min_u64(PIECE, end - at));
        has_missed |= status == OBD_E_MISS;
        if (status != OBD_OK && status != OBD_E_MISS)
            return status;
    }
    if (has_missed)
        return OBD_E_MISS; /* the stretch starts again, with all of it there */
    command->progress = end;
    return OBD_OK;
}
