/* fuzz_cdb: any 16 bytes as a CDB, with any buffers, for a disk of any size.
 *
 * Input: u64 size of the disk in sectors, u8 how the buffers are cut, 16 bytes of CDB,
 * then what is in the buffers.  What is decoded must lie inside the disk, in whole
 * sectors, and claim no more of the buffers than there is: the core relies on it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "check.h"

#include "base/checked.h"
#include "front/scsi_decode.h"
#include "input.h"

#define MAX_PIECES 8

/* Buffers of exactly the bytes that are left, so that a read past any of them is found. */
static int cut_buffers(struct input *input, uint8_t how, struct iovec *pieces)
{
    int nr = 0;
    while (!input_is_empty(input) && nr < MAX_PIECES) {
        size_t length = nr == MAX_PIECES - 1 ? input->left : min_u64(input->left, 1 + how % 61u);
        pieces[nr].iov_base = malloc(length);
        pieces[nr].iov_len = take_bytes(input, pieces[nr].iov_base, length);
        nr++;
    }
    return nr;
}

static void check_request(const struct scsi_request *request, uint64_t disk_size, uint64_t data_length)
{
    CHECK(request->nr_ranges <= OBD_MAX_UNMAP_DESCRIPTORS);
    for (unsigned i = 0; i < request->nr_ranges; i++) {
        const struct scsi_range *range = &request->ranges[i];
        CHECK(is_aligned(range->offset | range->length, SECTOR_SIZE));
        CHECK(range_is_inside(range->offset, range->length, disk_size));
    }
    CHECK(!request->uses_data || request->nr_ranges <= 1);
    CHECK(!request->uses_data || request->nr_ranges == 0 || request->ranges[0].length <= data_length);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    struct iovec pieces[MAX_PIECES];
    uint8_t cdb[16];
    uint64_t disk_size = (take_u64(&input) & ((UINT64_C(1) << 50) - 1)) * SECTOR_SIZE;
    uint8_t how = take_u8(&input);
    take_bytes(&input, cdb, sizeof cdb);
    uint64_t data_length = input.left;
    int nr = cut_buffers(&input, how, pieces);
    (void)scsi_is_write(cdb);
    if (scsi_class(cdb[0]) == OBD_SCSI_DATA) {
        struct scsi_request request;
        memset(&request, 0xa5, sizeof request);
        if (scsi_decode(cdb, iov_cursor_at(pieces, nr), disk_size, &request) == 0)
            check_request(&request, disk_size, data_length);
    }
    for (int i = 0; i < nr; i++)
        free(pieces[i].iov_base);
    return 0;
}
