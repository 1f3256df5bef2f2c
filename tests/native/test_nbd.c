/* The transmission phase: what is asked is done, and what cannot be is refused.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "nbd_disk.h"

/* ---- what is asked is done ---- */

TEST(what_one_connection_writes_another_reads)
{
    struct disk disk = disk_open();
    struct peer writer = peer_connect(disk.device, 0), reader = peer_connect(disk.device, 0);
    fill_pattern(bytes, 8192, 1);
    CHECK(peer_write(&writer, 0, 4096, bytes, 8192) == 0);
    CHECK(peer_read(&reader, 4096, read_back, 8192) == 0);
    CHECK(memcmp(bytes, read_back, 8192) == 0);
    peer_goodbye(&writer);
    peer_goodbye(&reader);
    disk_close(&disk);
}

TEST(a_payload_that_comes_in_small_pieces_is_put_together)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, 0);
    unsigned char message[NBD_REQUEST_SIZE + 1024];
    size_t length = put_request(message, NBD_WRITE, 0, 9, 512, 1024);
    fill_pattern(message + length, 1024, 2);
    for (size_t i = 0; i < sizeof message; i += 3)
        peer_send(&peer, message + i, sizeof message - i < 3 ? sizeof message - i : 3);
    CHECK(peer_answer(&peer, 9) == 0);
    CHECK(peer_read(&peer, 512, read_back, 1024) == 0);
    CHECK(memcmp(message + length, read_back, 1024) == 0);
    peer_goodbye(&peer);
    disk_close(&disk);
}

TEST(more_requests_than_slots_in_one_send_are_each_answered_once)
{
    enum { NR = 500 };
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, 0);
    static unsigned char message[NR * (NBD_REQUEST_SIZE + 512)];
    static bool is_answered[NR];
    memset(is_answered, 0, sizeof is_answered);
    size_t length = 0;
    for (int i = 0; i < NR; i++) {
        length += put_request(message + length, NBD_WRITE, 0, (uint64_t)i, (uint64_t)i * 512, 512);
        memset(message + length, i % 255 + 1, 512);
        length += 512;
    }
    peer_send(&peer, message, length);
    for (int i = 0; i < NR; i++) {
        unsigned char head[NBD_SIMPLE_SIZE];
        CHECK(peer_receive(&peer, head, sizeof head));
        uint64_t cookie = wire_get64(head + 8);
        CHECK(wire_get32(head + 4) == 0 && cookie < NR && !is_answered[cookie]);
        is_answered[cookie] = true;
    }
    CHECK(peer_read(&peer, 0, read_back, NR * 512) == 0);
    for (int i = 0; i < NR; i++)
        CHECK(read_back[i * 512] == i % 255 + 1 && read_back[i * 512 + 511] == i % 255 + 1);
    peer_goodbye(&peer);
    disk_close(&disk);
}

TEST(requests_larger_than_the_bound_of_all_together_take_turns)
{
    enum { NR = 5, LENGTH = NBD_MAX_PAYLOAD };
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, 0);
    for (uint64_t i = 0; i < NR; i++)
        peer_ask(&peer, NBD_READ, 0, 7, 0, LENGTH);
    for (int i = 0; i < NR; i++) {
        CHECK(peer_answer(&peer, 7) == 0);
        for (int piece = 0; piece < LENGTH / (int)sizeof read_back; piece++)
            CHECK(peer_receive(&peer, read_back, sizeof read_back));
    }
    peer_goodbye(&peer);
    disk_close(&disk);
}

TEST(trim_and_write_zeroes_read_as_zeros)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, 0);
    fill_pattern(bytes, 4096, 3);
    CHECK(peer_write(&peer, NBD_FLAG_FUA, 0, bytes, 4096) == 0);
    peer_ask(&peer, NBD_TRIM, NBD_FLAG_FUA, 1, 512, 512);
    CHECK(peer_answer(&peer, 1) == 0);
    peer_ask(&peer, NBD_WRITE_ZEROES, NBD_FLAG_NO_HOLE | NBD_FLAG_FAST_ZERO, 2, 2048, 1024);
    CHECK(peer_answer(&peer, 2) == 0);
    memset(bytes + 512, 0, 512);
    memset(bytes + 2048, 0, 1024);
    CHECK(peer_read(&peer, 0, read_back, 4096) == 0);
    CHECK(memcmp(bytes, read_back, 4096) == 0);
    peer_goodbye(&peer);
    disk_close(&disk);
}

TEST(write_zeroes_may_be_longer_than_a_payload)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, 0);
    CHECK(peer_write(&peer, 0, DISK_SIZE - 512, bytes, 512) == 0);
    peer_ask(&peer, NBD_WRITE_ZEROES, 0, 1, 0, DISK_SIZE);
    CHECK(peer_answer(&peer, 1) == 0);
    CHECK(peer_read(&peer, DISK_SIZE - 512, read_back, 512) == 0);
    CHECK(read_back[0] == 0 && memcmp(read_back, read_back + 1, 511) == 0);
    peer_goodbye(&peer);
    disk_close(&disk);
}

TEST(flush_is_answered)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, 0);
    fill_pattern(bytes, 512, 4);
    CHECK(peer_write(&peer, 0, 0, bytes, 512) == 0);
    peer_ask(&peer, NBD_FLUSH, 0, 1, 0, 0);
    CHECK(peer_answer(&peer, 1) == 0);
    struct obd_upper_stats stats;
    CHECK_OK(obd_image_upper_stats(disk.image, &stats));
    CHECK(stats.nr_flushes >= 1 && stats.unflushed_bytes == 0);
    peer_goodbye(&peer);
    disk_close(&disk);
}

TEST(disconnect_answers_what_is_in_flight_first)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, 0);
    unsigned char message[3 * NBD_REQUEST_SIZE];
    size_t length = put_request(message, NBD_READ, 0, 5, 0, 512);
    length += put_request(message + length, NBD_DISCONNECT, 0, 0, 0, 0);
    length += put_request(message + length, NBD_READ, 0, 6, 0, 512);
    peer_send(&peer, message, length);
    CHECK(peer_answer(&peer, 5) == 0);
    CHECK(peer_receive(&peer, read_back, 512));
    CHECK_OK(peer_ended(&peer));
    disk_close(&disk);
}

/* ---- half sectors, ranges, lengths ---- */

TEST(a_read_of_half_sectors_is_widened)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, OBD_NBD_STRUCTURED);
    fill_pattern(bytes, 4096, 5);
    CHECK(peer_write(&peer, 0, 0, bytes, 4096) == 0);
    peer_ask(&peer, NBD_READ, NBD_FLAG_DF, 1, 511, 1026);
    struct chunk chunk;
    peer_chunk(&peer, 1, &chunk);
    CHECK(chunk.type == NBD_CHUNK_OFFSET_DATA && chunk.length == 8 + 1026);
    CHECK(wire_get64(chunk.payload) == 511);
    CHECK(memcmp(chunk.payload + 8, bytes + 511, 1026) == 0);
    peer_ask(&peer, NBD_READ, 0, 2, DISK_SIZE - 1, 1);
    peer_chunk(&peer, 2, &chunk);
    CHECK(chunk.type == NBD_CHUNK_OFFSET_HOLE);
    peer_goodbye(&peer);
    disk_close(&disk);
}

TEST(a_write_of_half_sectors_is_refused_and_its_payload_skipped)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, OBD_NBD_STRUCTURED);
    peer_ask(&peer, NBD_WRITE, 0, 1, 0, 100);
    peer_send(&peer, bytes, 100);
    CHECK(peer_error(&peer, 1, "multiples of 512") == NBD_EINVAL);
    peer_ask(&peer, NBD_TRIM, 0, 2, 100, 512);
    CHECK(peer_error(&peer, 2, "multiples of 512") == NBD_EINVAL);
    CHECK(peer_write(&peer, 0, 0, bytes, 512) == 0);
    peer_goodbye(&peer);
    disk_close(&disk);
}

TEST(a_range_outside_the_disk_is_refused)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, 0);
    CHECK(peer_read(&peer, DISK_SIZE, read_back, 512) == NBD_EINVAL);
    CHECK(peer_read(&peer, DISK_SIZE - 512, read_back, 1024) == NBD_EINVAL);
    CHECK(peer_read(&peer, UINT64_MAX - 511, read_back, 512) == NBD_EINVAL);
    CHECK(peer_read(&peer, UINT64_MAX, read_back, 4096) == NBD_EINVAL);
    CHECK(peer_write(&peer, 0, DISK_SIZE, bytes, 512) == NBD_ENOSPC);
    CHECK(peer_write(&peer, 0, UINT64_MAX - 511, bytes, 1024) == NBD_ENOSPC);
    peer_ask(&peer, NBD_WRITE_ZEROES, 0, 1, 512, UINT32_MAX);
    CHECK(peer_answer(&peer, 1) == NBD_ENOSPC);
    CHECK(peer_write(&peer, 0, DISK_SIZE - 512, bytes, 512) == 0);
    peer_goodbye(&peer);
    disk_close(&disk);
}

/* The core and the image would find it too, or loop: the front does not let it in. */
TEST(a_range_that_wraps_round_stops_at_the_front)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, OBD_NBD_STRUCTURED | OBD_NBD_BLOCK_STATUS);
    peer_ask(&peer, NBD_READ, 0, 1, UINT64_MAX - 511, 512);
    CHECK(peer_error(&peer, 1, "READ of 512 bytes at 18446744073709551104 of a disk of 67108864") == NBD_EINVAL);
    peer_ask(&peer, NBD_BLOCK_STATUS, 0, 2, UINT64_MAX - 511, 1024);
    CHECK(peer_error(&peer, 2, "BLOCK_STATUS of 1024 bytes at 18446744073709551104") == NBD_EINVAL);
    peer_ask(&peer, NBD_BLOCK_STATUS, 0, 3, DISK_SIZE - 512, 1024);
    CHECK(peer_error(&peer, 3, "BLOCK_STATUS of 1024 bytes") == NBD_EINVAL);
    peer_goodbye(&peer);
    disk_close(&disk);
}

TEST(a_length_of_zero_or_over_the_bound_is_refused)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, OBD_NBD_STRUCTURED);
    peer_ask(&peer, NBD_READ, 0, 1, 0, 0);
    CHECK(peer_error(&peer, 1, "READ of 0 bytes") == NBD_EINVAL);
    peer_ask(&peer, NBD_READ, 0, 2, 0, NBD_MAX_PAYLOAD + 512);
    CHECK(peer_error(&peer, 2, "the most is 33554432") == NBD_EINVAL);
    peer_ask(&peer, NBD_WRITE, 0, 3, 0, NBD_MAX_PAYLOAD + 512);
    for (uint32_t sent = 0; sent < NBD_MAX_PAYLOAD; sent += sizeof bytes)
        peer_send(&peer, bytes, sizeof bytes);
    peer_send(&peer, bytes, 512);
    CHECK(peer_error(&peer, 3, "the most is 33554432") == NBD_EINVAL);
    CHECK(peer_write(&peer, 0, 0, bytes, 512) == 0);
    peer_goodbye(&peer);
    disk_close(&disk);
}

TEST(a_disk_that_is_exported_read_only_is_not_written)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, OBD_NBD_READ_ONLY);
    CHECK(peer_write(&peer, 0, 0, bytes, 512) == NBD_EPERM);
    peer_ask(&peer, NBD_TRIM, 0, 1, 0, 512);
    CHECK(peer_answer(&peer, 1) == NBD_EPERM);
    peer_ask(&peer, NBD_WRITE_ZEROES, 0, 2, 0, 512);
    CHECK(peer_answer(&peer, 2) == NBD_EPERM);
    CHECK(peer_read(&peer, 0, read_back, 512) == 0);
    peer_goodbye(&peer);
    disk_close(&disk);
}

/* ---- structured replies and block status ---- */

TEST(a_structured_read_is_one_chunk_of_data_or_a_hole)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, OBD_NBD_STRUCTURED);
    memset(bytes, 0, 1024);
    bytes[1023] = 1;
    CHECK(peer_write(&peer, 0, 0, bytes, 1024) == 0);
    struct chunk chunk;
    peer_ask(&peer, NBD_READ, 0, 1, 0, 1024);
    peer_chunk(&peer, 1, &chunk);
    CHECK(chunk.type == NBD_CHUNK_OFFSET_DATA && memcmp(chunk.payload + 8, bytes, 1024) == 0);
    peer_ask(&peer, NBD_READ, 0, 2, 0, 512);
    peer_chunk(&peer, 2, &chunk);
    CHECK(chunk.type == NBD_CHUNK_OFFSET_HOLE && chunk.length == 12);
    CHECK(wire_get64(chunk.payload) == 0 && wire_get32(chunk.payload + 8) == 512);
    peer_ask(&peer, NBD_READ, 0, 3, DISK_SIZE, 512);
    CHECK(peer_error(&peer, 3, "READ of 512 bytes at 67108864 of a disk of 67108864") == NBD_EINVAL);
    peer_goodbye(&peer);
    disk_close(&disk);
}

struct expected_extent {
    uint32_t length, flags;
};

static void check_extents(struct peer *peer, uint16_t flags, uint64_t offset, uint32_t length,
                          const struct expected_extent *expected, size_t nr)
{
    struct chunk chunk;
    peer_ask(peer, NBD_BLOCK_STATUS, flags, 77, offset, length);
    peer_chunk(peer, 77, &chunk);
    CHECK(chunk.type == NBD_CHUNK_BLOCK_STATUS);
    CHECK(wire_get32(chunk.payload) == NBD_BASE_ALLOCATION);
    CHECK(chunk.length == 4 + nr * NBD_EXTENT_SIZE);
    for (size_t i = 0; i < nr; i++) {
        CHECK(wire_get32(chunk.payload + 4 + 8 * i) == expected[i].length);
        CHECK(wire_get32(chunk.payload + 8 + 8 * i) == expected[i].flags);
    }
}

TEST(block_status_tells_data_zeros_and_holes)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, OBD_NBD_STRUCTURED | OBD_NBD_BLOCK_STATUS);
    CHECK(peer_write(&peer, 0, 4096, bytes, 4096) == 0);
    CHECK(peer_write(&peer, 0, 8192, bytes, 4096) == 0);
    peer_ask(&peer, NBD_TRIM, 0, 1, 12288, 4096);
    CHECK(peer_answer(&peer, 1) == 0);
    const struct expected_extent all[] = {
        {4096, NBD_EXTENT_HOLE | NBD_EXTENT_ZERO}, {8192, 0}, {4096, NBD_EXTENT_ZERO}, {4096, 3}};
    check_extents(&peer, 0, 0, 20480, all, 4);
    check_extents(&peer, NBD_FLAG_REQ_ONE, 0, 20480, all, 1);
    const struct expected_extent parts[] = {{1, 3}, {8192, 0}, {7, NBD_EXTENT_ZERO}};
    check_extents(&peer, 0, 4095, 8200, parts, 3);
    peer_goodbye(&peer);
    disk_close(&disk);
}

TEST(block_status_of_more_extents_than_fit_is_cut_not_wrong)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, OBD_NBD_STRUCTURED | OBD_NBD_BLOCK_STATUS);
    for (uint64_t i = 0; i < 600; i++)
        CHECK(peer_write(&peer, 0, i * 1024, bytes, 512) == 0);
    struct chunk chunk;
    peer_ask(&peer, NBD_BLOCK_STATUS, 0, 1, 0, DISK_SIZE);
    peer_chunk(&peer, 1, &chunk);
    CHECK(chunk.length >= 4 + 8 && (chunk.length - 4) % 8 == 0);
    for (uint32_t at = 4; at < chunk.length; at += 8) {
        CHECK(wire_get32(chunk.payload + at) == 512);
        CHECK(wire_get32(chunk.payload + at + 4) == (at / 8 % 2 ? 3 : 0));
    }
    peer_goodbye(&peer);
    disk_close(&disk);
}

TEST(block_status_that_was_not_negotiated_is_refused)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, OBD_NBD_STRUCTURED);
    peer_ask(&peer, NBD_BLOCK_STATUS, 0, 1, 0, 512);
    CHECK(peer_error(&peer, 1, "no metadata context") == NBD_EINVAL);
    peer_goodbye(&peer);
    disk_close(&disk);
}

/* ---- the table ---- */

TEST(every_status_has_an_errno_that_the_protocol_lists)
{
    static const uint32_t listed[] = {NBD_EPERM,  NBD_EIO,     NBD_ENOMEM,   NBD_EINVAL,
                                      NBD_ENOSPC, NBD_ENOTSUP, NBD_ESHUTDOWN};
    CHECK(obd_status_nbd_errno(OBD_OK) == 0);
    for (int status = 1; status < OBD_NR_STATUS; status++) {
        bool is_listed = false;
        for (size_t i = 0; i < sizeof listed / sizeof listed[0]; i++)
            is_listed |= obd_status_nbd_errno(status) == listed[i];
        CHECK(is_listed);
    }
    CHECK(obd_status_nbd_errno(OBD_E_NO_SPACE) == NBD_ENOSPC);
    CHECK(obd_status_nbd_errno(OBD_E_CORRUPT) == NBD_EIO);
    CHECK(obd_status_nbd_errno(OBD_NR_STATUS + 5) == NBD_EIO);
}

TEST_MAIN(T(what_one_connection_writes_another_reads), T(a_payload_that_comes_in_small_pieces_is_put_together),
          T(more_requests_than_slots_in_one_send_are_each_answered_once),
          T(requests_larger_than_the_bound_of_all_together_take_turns), T(trim_and_write_zeroes_read_as_zeros),
          T(write_zeroes_may_be_longer_than_a_payload), T(flush_is_answered),
          T(disconnect_answers_what_is_in_flight_first), T(a_read_of_half_sectors_is_widened),
          T(a_write_of_half_sectors_is_refused_and_its_payload_skipped), T(a_range_outside_the_disk_is_refused),
          T(a_range_that_wraps_round_stops_at_the_front), T(a_length_of_zero_or_over_the_bound_is_refused),
          T(a_disk_that_is_exported_read_only_is_not_written), T(a_structured_read_is_one_chunk_of_data_or_a_hole),
          T(block_status_tells_data_zeros_and_holes), T(block_status_of_more_extents_than_fit_is_cut_not_wrong),
          T(block_status_that_was_not_negotiated_is_refused), T(every_status_has_an_errno_that_the_protocol_lists))
