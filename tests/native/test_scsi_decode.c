/* CDBs that touch data, into ranges; and every status into sense.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "check.h"

#include "front/scsi_decode.h"
#include "front/scsi_sense.h"

#define DISK_SIZE (UINT64_C(1000) * 512)

static uint8_t data[2u << 20];
static struct scsi_request request;

/* Decodes a CDB, given by its bytes, that came with length bytes of data. */
#define DECODE(length, ...) decode((const uint8_t[16]){__VA_ARGS__}, (length), DISK_SIZE)

static uint32_t decode(const uint8_t *cdb, size_t length, uint64_t disk_size)
{
    static struct iovec iov;
    iov = (struct iovec){data, length};
    return scsi_decode(cdb, iov_cursor_at(&iov, 1), disk_size, &request);
}

static bool is_one_range(enum command_kind kind, uint64_t lba, uint64_t nr)
{
    return request.kind == kind && request.nr_ranges == 1 && request.ranges[0].offset == lba * 512 &&
           request.ranges[0].length == nr * 512;
}

TEST(read_and_write_of_every_length_say_where_and_how_much)
{
    CHECK(DECODE(1024, 0x08, 0x00, 0x01, 0x02, 2) == 0);
    CHECK(is_one_range(COMMAND_READ, 0x102, 2) && request.uses_data);
    CHECK(DECODE(1024, 0x0a, 0x00, 0x01, 0x02, 2) == 0);
    CHECK(is_one_range(COMMAND_WRITE, 0x102, 2));
    CHECK(DECODE(1024, 0x28, 0, 0, 0, 1, 2, 0, 0, 2) == 0);
    CHECK(is_one_range(COMMAND_READ, 0x102, 2));
    CHECK(DECODE(1024, 0x2a, 0, 0, 0, 1, 2, 0, 0, 2) == 0);
    CHECK(is_one_range(COMMAND_WRITE, 0x102, 2));
    CHECK(DECODE(1024, 0xa8, 0, 0, 0, 1, 2, 0, 0, 0, 2) == 0);
    CHECK(is_one_range(COMMAND_READ, 0x102, 2));
    CHECK(DECODE(1024, 0xaa, 0, 0, 0, 1, 2, 0, 0, 0, 2) == 0);
    CHECK(is_one_range(COMMAND_WRITE, 0x102, 2));
    CHECK(DECODE(1024, 0x88, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 2) == 0);
    CHECK(is_one_range(COMMAND_READ, 0x102, 2));
    CHECK(DECODE(1024, 0x8a, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 2) == 0);
    CHECK(is_one_range(COMMAND_WRITE, 0x102, 2));
}

TEST(a_length_of_0_is_256_blocks_in_6_bytes_and_nothing_in_others)
{
    CHECK(DECODE(256 * 512, 0x08, 0, 0, 0, 0) == 0);
    CHECK(is_one_range(COMMAND_READ, 0, 256));
    CHECK(DECODE(0, 0x28, 0, 0, 0, 0, 5, 0, 0, 0) == 0);
    CHECK(request.nr_ranges == 0);
    CHECK(DECODE(0, 0x8a) == 0);
    CHECK(request.nr_ranges == 0);
}

TEST(reserved_bits_of_a_6_byte_cdb_are_no_part_of_the_lba)
{
    CHECK(DECODE(512, 0x08, 0xe0, 0, 7, 1) == 0);
    CHECK(is_one_range(COMMAND_READ, 7, 1));
}

TEST(blocks_behind_the_last_are_out_of_range)
{
    CHECK(DECODE(512, 0x28, 0, 0, 0, 0x03, 0xe7, 0, 0, 1) == 0);
    CHECK(DECODE(1024, 0x28, 0, 0, 0, 0x03, 0xe7, 0, 0, 2) == SENSE_LBA_OUT_OF_RANGE);
    CHECK(DECODE(0, 0x28, 0, 0, 0, 0x03, 0xe9, 0, 0, 0) == SENSE_LBA_OUT_OF_RANGE);
    CHECK(DECODE(512, 0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1) == SENSE_LBA_OUT_OF_RANGE);
    CHECK(DECODE(0, 0x91, 0, 0, 0, 0, 0, 0, 0, 0x03, 0xe8, 0, 0, 0, 1) == SENSE_LBA_OUT_OF_RANGE);
    CHECK(DECODE(512, 0x93, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff) == SENSE_LBA_OUT_OF_RANGE);
}

TEST(buffers_shorter_than_the_transfer_are_refused)
{
    CHECK(DECODE(1023, 0x28, 0, 0, 0, 0, 0, 0, 0, 2) == SENSE_INVALID_CDB_FIELD);
    CHECK(DECODE(0, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1) == SENSE_INVALID_CDB_FIELD);
    CHECK(DECODE(4096, 0x28, 0, 0, 0, 0, 0, 0, 0, 2) == 0);
}

TEST(a_transfer_above_the_promised_maximum_is_refused)
{
    const uint8_t at_most[16] = {[0] = 0x88, [12] = 0x08};
    const uint8_t too_much[16] = {[0] = 0x88, [12] = 0x08, [13] = 1};
    CHECK(decode(at_most, sizeof data, UINT64_C(1) << 30) == 0);
    CHECK(decode(too_much, sizeof data, UINT64_C(1) << 30) == SENSE_INVALID_CDB_FIELD);
}

TEST(protection_information_is_refused)
{
    CHECK(DECODE(512, 0x28, 0x20, 0, 0, 0, 0, 0, 0, 1) == SENSE_INVALID_CDB_FIELD);
    CHECK(DECODE(512, 0x8a, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1) == SENSE_INVALID_CDB_FIELD);
}

TEST(fua_counts_on_writes)
{
    CHECK(DECODE(512, 0x2a, 0x08, 0, 0, 0, 0, 0, 0, 1) == 0 && request.fua);
    CHECK(DECODE(512, 0x8a, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1) == 0 && request.fua);
    CHECK(DECODE(512, 0x2a, 0x10, 0, 0, 0, 0, 0, 0, 1) == 0 && !request.fua);
    CHECK(DECODE(512, 0x28, 0x08, 0, 0, 0, 0, 0, 0, 1) == 0 && !request.fua);
    CHECK(DECODE(512, 0x0a, 0x08, 0, 0, 1) == SENSE_LBA_OUT_OF_RANGE); /* there it belongs to the LBA */
}

TEST(verify_compares_only_when_it_is_asked_to)
{
    CHECK(DECODE(0, 0x2f, 0, 0, 0, 0, 5, 0, 0x03, 0xe3) == 0);
    CHECK(is_one_range(COMMAND_VERIFY, 5, 0x3e3) && !request.uses_data);
    CHECK(DECODE(512, 0xaf, 0x02, 0, 0, 0, 5, 0, 0, 0, 1) == 0);
    CHECK(is_one_range(COMMAND_VERIFY, 5, 1) && request.uses_data);
    CHECK(DECODE(0, 0x8f, 0x02, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1) == SENSE_INVALID_CDB_FIELD);
    CHECK(DECODE(512, 0x2f, 0x04, 0, 0, 0, 5, 0, 0, 1) == SENSE_INVALID_CDB_FIELD);
    CHECK(DECODE(512, 0x2f, 0x06, 0, 0, 0, 5, 0, 0, 1) == SENSE_INVALID_CDB_FIELD);
}

TEST(synchronize_cache_is_a_flush_of_everything)
{
    CHECK(DECODE(0, 0x35) == 0);
    CHECK(request.kind == COMMAND_FLUSH && request.nr_ranges == 1 && !request.uses_data);
    CHECK(DECODE(0, 0x91, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5) == 0);
    CHECK(request.kind == COMMAND_FLUSH && request.nr_ranges == 1);
}

TEST(write_same_with_unmap_of_zeros_is_a_discard)
{
    memset(data, 0, 512);
    CHECK(DECODE(512, 0x41, 0x08, 0, 0, 0, 3, 0, 0, 4) == 0);
    CHECK(is_one_range(COMMAND_DISCARD, 3, 4) && !request.uses_data);
    CHECK(DECODE(512, 0x93, 0x08, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4) == 0);
    CHECK(is_one_range(COMMAND_DISCARD, 3, 4));
    CHECK(DECODE(0, 0x93, 0x09, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4) == 0); /* NDOB */
}

TEST(write_same_of_anything_else_is_refused)
{
    memset(data, 0, 512);
    CHECK(DECODE(512, 0x41, 0x00, 0, 0, 0, 3, 0, 0, 4) == SENSE_INVALID_CDB_FIELD);
    CHECK(DECODE(512, 0x41, 0x18, 0, 0, 0, 3, 0, 0, 4) == SENSE_INVALID_CDB_FIELD);
    CHECK(DECODE(512, 0x41, 0x08, 0, 0, 0, 3, 0, 0, 0) == SENSE_INVALID_CDB_FIELD);
    CHECK(DECODE(511, 0x41, 0x08, 0, 0, 0, 3, 0, 0, 4) == SENSE_INVALID_CDB_FIELD);
    data[511] = 1;
    CHECK(DECODE(512, 0x41, 0x08, 0, 0, 0, 3, 0, 0, 4) == SENSE_INVALID_CDB_FIELD);
}

/* ---- UNMAP ---- */

static void put_descriptor(unsigned i, uint8_t lba, uint8_t nr)
{
    uint8_t *descriptor = data + 8 + 16 * i;
    memset(descriptor, 0, 16);
    descriptor[7] = lba;
    descriptor[11] = nr;
}

/* A list of nr descriptors, of which the header speaks of length bytes. */
static uint32_t unmap(unsigned length, unsigned sent)
{
    memset(data, 0, 8);
    data[0] = (uint8_t)((length + 6) >> 8);
    data[1] = (uint8_t)(length + 6);
    data[2] = (uint8_t)(length >> 8);
    data[3] = (uint8_t)length;
    return DECODE(sent, 0x42, 0, 0, 0, 0, 0, 0, (uint8_t)(sent >> 8), (uint8_t)sent);
}

TEST(unmap_gives_a_range_for_every_descriptor)
{
    put_descriptor(0, 8, 4);
    put_descriptor(1, 100, 0);
    put_descriptor(2, 200, 1);
    CHECK(unmap(48, 56) == 0);
    CHECK(request.kind == COMMAND_DISCARD && request.nr_ranges == 2);
    CHECK(request.ranges[0].offset == 8 * 512 && request.ranges[0].length == 4 * 512);
    CHECK(request.ranges[1].offset == 200 * 512 && request.ranges[1].length == 512);
}

TEST(unmap_of_nothing_is_good)
{
    CHECK(DECODE(0, 0x42) == 0 && request.nr_ranges == 0);
    CHECK(unmap(0, 8) == 0 && request.nr_ranges == 0);
    put_descriptor(0, 8, 4);
    CHECK(unmap(15, 24) == 0 && request.nr_ranges == 0); /* one that is not whole */
}

TEST(unmap_of_as_many_descriptors_as_promised_and_no_more)
{
    for (unsigned i = 0; i <= OBD_MAX_UNMAP_DESCRIPTORS; i++)
        put_descriptor(i, (uint8_t)i, 1);
    CHECK(unmap(16 * OBD_MAX_UNMAP_DESCRIPTORS, 8 + 16 * OBD_MAX_UNMAP_DESCRIPTORS) == 0);
    CHECK(request.nr_ranges == OBD_MAX_UNMAP_DESCRIPTORS);
    CHECK(unmap(16 * (OBD_MAX_UNMAP_DESCRIPTORS + 1), 8 + 16 * (OBD_MAX_UNMAP_DESCRIPTORS + 1)) ==
          SENSE_INVALID_PARAMETER_LIST);
}

TEST(unmap_with_a_bad_descriptor_or_length_does_nothing)
{
    put_descriptor(0, 8, 4);
    put_descriptor(1, 200, 1);
    data[8 + 16] = 1; /* the top byte of the second LBA */
    CHECK(unmap(32, 40) == SENSE_LBA_OUT_OF_RANGE);
    CHECK(unmap(32, 24) == SENSE_PARAMETER_LIST_LENGTH);
    CHECK(DECODE(7, 0x42, 0, 0, 0, 0, 0, 0, 0, 7) == SENSE_PARAMETER_LIST_LENGTH);
    CHECK(DECODE(8, 0x42, 0, 0, 0, 0, 0, 0, 0, 24) == SENSE_PARAMETER_LIST_LENGTH);
    CHECK(DECODE(8, 0x42, 1, 0, 0, 0, 0, 0, 0, 8) == SENSE_INVALID_CDB_FIELD);
}

/* ---- tables ---- */

/* Whatever the bytes: no range outside the disk, no more ranges than there is room. */
TEST(no_cdb_of_the_data_class_leads_outside_the_disk)
{
    uint32_t random = 1;
    unsigned nr_good = 0;
    for (unsigned i = 0; i < 256 * 2000; i++) {
        uint8_t cdb[16];
        for (unsigned j = 0; j < sizeof cdb; j++) {
            random = random * 1664525 + 1013904223;
            cdb[j] = random >> 29 != 0 ? 0 : (uint8_t)(random >> 16);
            data[j + i % 64] = cdb[j];
        }
        cdb[0] = (uint8_t)i;
        if (scsi_class(cdb[0]) != OBD_SCSI_DATA || decode(cdb, i / 256 * 64, DISK_SIZE) != 0)
            continue;
        nr_good++;
        CHECK(request.nr_ranges <= OBD_MAX_UNMAP_DESCRIPTORS);
        for (unsigned k = 0; k < request.nr_ranges; k++)
            CHECK(request.ranges[k].offset + request.ranges[k].length <= DISK_SIZE);
    }
    CHECK(nr_good > 1000);
}

TEST(opcodes_of_vendors_do_not_exist)
{
    for (unsigned opcode = 0x60; opcode <= 0x7f; opcode++)
        CHECK(scsi_class((uint8_t)opcode) == OBD_SCSI_UNKNOWN);
    for (unsigned opcode = 0xc0; opcode <= 0xff; opcode++)
        CHECK(scsi_class((uint8_t)opcode) == OBD_SCSI_UNKNOWN);
}

/* What Linux retries (vm/README.md, section 7) must never be said. */
static bool is_retried(uint32_t sense)
{
    uint32_t key = sense >> 16;
    return key == 0x6 || key == 0xb || sense == SENSE(2, 4, 1) || sense == SENSE(3, 0x0c, 0) ||
           sense == SENSE(3, 0x44, 0) || sense == SENSE(3, 3, 0);
}

TEST(every_failure_has_a_sense_that_linux_does_not_retry)
{
    CHECK(scsi_sense_of_status(OBD_OK, false) == 0 && scsi_sense_of_status(OBD_OK, true) == 0);
    for (int status = OBD_OK + 1; status < OBD_NR_STATUS; status++)
        for (int is_write = 0; is_write < 2; is_write++) {
            uint32_t sense = scsi_sense_of_status((enum obd_status)status, is_write);
            CHECK(sense != 0 && !is_retried(sense));
        }
    CHECK(scsi_sense_of_status(OBD_NR_STATUS, false) == SENSE_TARGET_FAILURE);
    CHECK(scsi_sense_of_status((enum obd_status) - 1, false) == SENSE_TARGET_FAILURE);
}

TEST(the_statuses_that_people_meet_have_the_sense_of_the_architecture)
{
    CHECK(obd_status_sense(OBD_E_UNREACHABLE, 0) == 0x020800);
    CHECK(obd_status_sense(OBD_E_TIMEOUT, 1) == 0x020800);
    CHECK(obd_status_sense(OBD_E_CORRUPT, 0) == 0x031100);
    CHECK(obd_status_sense(OBD_E_IO, 0) == 0x044400);
    CHECK(obd_status_sense(OBD_E_NO_SPACE, 1) == 0x072707);
    CHECK(obd_status_sense(OBD_E_READ_ONLY, 1) == 0x072700);
    CHECK(obd_status_sense(OBD_E_RANGE, 0) == 0x052100);
    CHECK(obd_status_sense(OBD_E_MISCOMPARE, 0) == 0x0e1d00);
}

TEST_MAIN(T(read_and_write_of_every_length_say_where_and_how_much),
          T(a_length_of_0_is_256_blocks_in_6_bytes_and_nothing_in_others),
          T(reserved_bits_of_a_6_byte_cdb_are_no_part_of_the_lba), T(blocks_behind_the_last_are_out_of_range),
          T(buffers_shorter_than_the_transfer_are_refused), T(a_transfer_above_the_promised_maximum_is_refused),
          T(protection_information_is_refused), T(fua_counts_on_writes), T(verify_compares_only_when_it_is_asked_to),
          T(synchronize_cache_is_a_flush_of_everything), T(write_same_with_unmap_of_zeros_is_a_discard),
          T(write_same_of_anything_else_is_refused), T(unmap_gives_a_range_for_every_descriptor),
          T(unmap_of_nothing_is_good), T(unmap_of_as_many_descriptors_as_promised_and_no_more),
          T(unmap_with_a_bad_descriptor_or_length_does_nothing), T(no_cdb_of_the_data_class_leads_outside_the_disk),
          T(opcodes_of_vendors_do_not_exist), T(every_failure_has_a_sense_that_linux_does_not_retry),
          T(the_statuses_that_people_meet_have_the_sense_of_the_architecture))
