/* Connections to a disk whose data comes late, or never: nobody waits for it but the
 * request that asked.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "disk_fixture.h"
#include "nbd_peer.h"

#define LATE 0            /* a place whose data is in the lower */
#define HERE (256u << 10) /* a place that the upper has */

static unsigned char bytes[64 << 10], read_back[64 << 10];

static struct core *core;

static struct disk late_disk(uint32_t slow_ms, uint32_t io_timeout_ms)
{
    return disk_make(
        core,
        (struct disk_params){
            .is_slow = true, .slow_ms = slow_ms, .keep_ms = 1000, .has_upper = true, .io_timeout_ms = io_timeout_ms});
}

TEST(there_is_a_core)
{
    core = core_make(2, 0);
}

TEST(a_read_whose_data_never_comes_holds_nobody_up_on_its_own_connection)
{
    struct disk disk = late_disk(NEVER_MS, 0);
    struct peer peer = peer_connect(disk.device, 0);
    peer_ask(&peer, NBD_READ, 0, 1, LATE, 4096);
    wait_until_parked(&disk, 1);
    fill_pattern(bytes, sizeof bytes, 1);
    for (uint32_t i = 0; i < 20; i++) {
        CHECK(peer_write(&peer, NBD_FLAG_FUA, HERE + i * sizeof bytes, bytes, sizeof bytes) == 0);
        CHECK(peer_read(&peer, HERE + i * sizeof bytes, read_back, sizeof bytes) == 0);
        CHECK(memcmp(bytes, read_back, sizeof bytes) == 0);
    }
    device_fail_parked(disk.device, OBD_E_CANCELLED);
    CHECK(peer_answer(&peer, 1) == NBD_ESHUTDOWN);
    peer_goodbye(&peer);
    disk_drop(&disk);
}

TEST(data_that_comes_late_is_answered_when_it_is_there)
{
    struct disk disk = late_disk(20, 0);
    struct peer peer = peer_connect(disk.device, 0);
    CHECK(peer_read(&peer, LATE, read_back, sizeof read_back) == 0);
    for (uint64_t i = 0; i < sizeof read_back / SECTOR_SIZE; i++)
        CHECK(sector_check((struct sector *)read_back + i, i) == LOWER_STAMP);
    peer_goodbye(&peer);
    disk_drop(&disk);
}

TEST(at_its_deadline_a_read_is_an_io_error_with_the_reason)
{
    struct disk disk = late_disk(NEVER_MS, 100);
    struct peer peer = peer_connect(disk.device, OBD_NBD_STRUCTURED);
    peer_ask(&peer, NBD_READ, 0, 1, LATE, 4096);
    CHECK(peer_error(&peer, 1, "disk: read of 4096 bytes at 0") == NBD_EIO);
    peer_goodbye(&peer);
    disk_drop(&disk);
}

TEST(stop_waits_for_what_is_parked_and_no_longer)
{
    struct disk disk = late_disk(NEVER_MS, 0);
    struct peer peer = peer_connect(disk.device, 0);
    for (uint64_t i = 0; i < 10; i++)
        peer_ask(&peer, NBD_READ, 0, i, LATE, 4096);
    wait_until_parked(&disk, 10);
    obd_nbd_stop(peer.nbd);
    CHECK(obd_nbd_wait(peer.nbd, 50) == OBD_E_TIMEOUT);
    device_fail_parked(disk.device, OBD_E_CANCELLED);
    unsigned char head[NBD_SIMPLE_SIZE];
    for (int i = 0; i < 10; i++) {
        CHECK(peer_receive(&peer, head, sizeof head));
        CHECK(wire_get32(head + 4) == NBD_ESHUTDOWN);
    }
    CHECK_OK(peer_ended(&peer));
    disk_drop(&disk);
}

TEST(a_client_that_leaves_its_parked_reads_behind_is_forgotten_at_their_deadline)
{
    struct disk disk = late_disk(NEVER_MS, 200);
    struct peer peer = peer_connect(disk.device, 0);
    for (uint64_t i = 0; i < 10; i++)
        peer_ask(&peer, NBD_READ, 0, i, LATE, 4096);
    wait_until_parked(&disk, 10);
    close(peer.fd);
    CHECK(obd_nbd_wait(peer.nbd, WAIT_MS) != OBD_E_TIMEOUT);
    obd_nbd_close(peer.nbd);
    disk_drop(&disk);
}

TEST(the_core_goes)
{
    core_close(core);
}

TEST_MAIN(T(there_is_a_core), T(a_read_whose_data_never_comes_holds_nobody_up_on_its_own_connection),
          T(data_that_comes_late_is_answered_when_it_is_there),
          T(at_its_deadline_a_read_is_an_io_error_with_the_reason), T(stop_waits_for_what_is_parked_and_no_longer),
          T(a_client_that_leaves_its_parked_reads_behind_is_forgotten_at_their_deadline), T(the_core_goes))
