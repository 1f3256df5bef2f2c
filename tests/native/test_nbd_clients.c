/* The transmission phase against clumsy and hostile clients, and many at once.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "nbd_disk.h"

#include <pthread.h>

/* ---- clients that lie or linger ---- */

TEST(unknown_commands_and_flags_are_refused_and_the_connection_goes_on)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, OBD_NBD_STRUCTURED);
    peer_ask(&peer, 77, 0, 1, 0, 4096);
    CHECK(peer_error(&peer, 1, "unknown command 77") == NBD_EINVAL);
    peer_ask(&peer, NBD_CACHE, 0, 2, 0, 4096);
    CHECK(peer_error(&peer, 2, "unknown command 5") == NBD_EINVAL);
    peer_ask(&peer, NBD_READ, 1 << 9, 3, 0, 4096);
    CHECK(peer_error(&peer, 3, "flags 0x0200") == NBD_EINVAL);
    peer_ask(&peer, NBD_WRITE, NBD_FLAG_DF, 4, 0, 512);
    peer_send(&peer, bytes, 512);
    CHECK(peer_error(&peer, 4, "flags 0x0004") == NBD_EINVAL);
    CHECK(peer_write(&peer, 0, 0, bytes, 512) == 0);
    peer_goodbye(&peer);
    disk_close(&disk);
}

TEST(a_wrong_magic_ends_the_connection_only)
{
    struct disk disk = disk_open();
    struct peer liar = peer_connect(disk.device, 0), honest = peer_connect(disk.device, 0);
    peer_send(&liar, "GET / HTTP/1.1\r\nHost: example\r\n\r\n", 33);
    CHECK_FAILS(peer_ended(&liar), OBD_E_INVALID, "begins with 0x47455420");
    CHECK(peer_read(&honest, 0, read_back, 512) == 0);
    peer_goodbye(&honest);
    disk_close(&disk);
}

TEST(a_client_that_goes_in_the_middle_of_a_request_changes_nothing)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, 0);
    peer_ask(&peer, NBD_WRITE, 0, 1, 0, 4096);
    peer_send(&peer, bytes, 4095);
    CHECK(shutdown(peer.fd, SHUT_WR) == 0);
    CHECK_FAILS(peer_ended(&peer), OBD_E_CLOSED, "middle of a request");
    struct obd_upper_stats stats;
    CHECK_OK(obd_image_upper_stats(disk.image, &stats));
    CHECK(stats.nr_segments == 0);
    disk_close(&disk);
}

TEST(a_client_that_half_closes_still_gets_its_answers)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, 0);
    peer_ask(&peer, NBD_READ, 0, 1, 0, 1 << 20);
    CHECK(shutdown(peer.fd, SHUT_WR) == 0);
    CHECK(peer_answer(&peer, 1) == 0);
    CHECK(peer_receive(&peer, read_back, 1 << 20));
    CHECK_OK(peer_ended(&peer));
    disk_close(&disk);
}

TEST(a_client_that_does_not_read_hurts_nobody_else_and_stop_ends_it)
{
    struct disk disk = disk_open();
    struct peer lazy = peer_connect(disk.device, 0), busy = peer_connect(disk.device, 0);
    for (int i = 0; i < 64; i++)
        peer_ask(&lazy, NBD_READ, 0, 1, 0, 1 << 20);
    for (int i = 0; i < 100; i++)
        CHECK(peer_write(&busy, 0, 0, bytes, 4096) == 0);
    CHECK(obd_nbd_wait(lazy.nbd, 0) == OBD_E_TIMEOUT);
    struct obd_device_stats stats;
    obd_device_stats(disk.device, &stats);
    CHECK(stats.nr_commands[OBD_COMMAND_READ] <= 33); /* 32 MiB of replies wait, and one more is half sent */
    obd_nbd_stop(lazy.nbd);
    CHECK_FAILS(obd_nbd_wait(lazy.nbd, WAIT_MS), OBD_E_CLOSED, "does not read");
    obd_nbd_close(lazy.nbd);
    close(lazy.fd);
    peer_goodbye(&busy);
    disk_close(&disk);
}

TEST(stop_ends_an_idle_connection_and_one_with_half_a_payload)
{
    struct disk disk = disk_open();
    struct peer idle = peer_connect(disk.device, 0), half = peer_connect(disk.device, 0);
    peer_ask(&half, NBD_WRITE, 0, 1, 0, 4096);
    peer_send(&half, bytes, 100);
    obd_nbd_stop(idle.nbd);
    obd_nbd_stop(half.nbd);
    CHECK_OK(peer_ended(&idle));
    CHECK_OK(peer_ended(&half));
    disk_close(&disk);
}

TEST(close_without_a_goodbye_ends_it_too)
{
    struct disk disk = disk_open();
    struct peer peer = peer_connect(disk.device, 0);
    for (int i = 0; i < 64; i++)
        peer_ask(&peer, NBD_READ, 0, 1, 0, 1 << 20);
    close(peer.fd);
    CHECK(obd_nbd_wait(peer.nbd, WAIT_MS) != OBD_E_TIMEOUT);
    obd_nbd_close(peer.nbd);
    disk_close(&disk);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Requests whose every field is random within a few values around the edges. */
static void send_random_requests(struct peer *peer, uint64_t *state)
{
    static const uint64_t offsets[] = {0, 1, 511, 512, DISK_SIZE - 512, DISK_SIZE, UINT64_MAX, UINT64_MAX - 511};
    static const uint32_t lengths[] = {0, 1, 511, 512, 513, 4096, NBD_MAX_PAYLOAD, UINT32_MAX};
    for (int i = 0; i < 8; i++) {
        unsigned char message[NBD_REQUEST_SIZE];
        uint64_t r = next_random(state);
        put_request(message, r & 15, (r >> 4) & 63, r, offsets[(r >> 10) & 7], lengths[(r >> 13) & 7]);
        if (send(peer->fd, message, sizeof message, MSG_NOSIGNAL) < 0)
            return; /* one of them said goodbye, or was no request any more */
    }
}

/* Reads replies as long as any come. */
static void drink(struct peer *peer)
{
    struct pollfd fd = {.fd = peer->fd, .events = POLLIN};
    while (poll(&fd, 1, 5) == 1 && recv(peer->fd, read_back, sizeof read_back, 0) > 0)
        ;
}

TEST(random_requests_never_break_the_server)
{
    struct disk disk = disk_open();
    uint64_t state = 88172645463325252u;
    for (int round = 0; round < 60; round++) {
        struct peer peer = peer_connect(disk.device, (uint32_t)round % 8);
        send_random_requests(&peer, &state);
        drink(&peer);
        close(peer.fd);
        CHECK(obd_nbd_wait(peer.nbd, WAIT_MS) != OBD_E_TIMEOUT);
        obd_nbd_close(peer.nbd);
    }
    struct peer after = peer_connect(disk.device, 0);
    CHECK(peer_read(&after, 0, read_back, 512) == 0);
    peer_goodbye(&after);
    disk_close(&disk);
}

/* ---- many at once ---- */

struct worker {
    struct disk *disk;
    uint64_t base; /* of the range that only this one writes */
};

static void *work_and_compare(void *argument)
{
    struct worker *worker = argument;
    struct peer peer = peer_connect(worker->disk->device, 0);
    unsigned char mine[4096], seen[4096];
    for (uint64_t i = 0; i < 100; i++) {
        fill_pattern(mine, sizeof mine, worker->base + i);
        uint64_t offset = worker->base + i % 16 * 4096;
        CHECK(peer_write(&peer, i % 7 ? 0 : NBD_FLAG_FUA, offset, mine, sizeof mine) == 0);
        CHECK(peer_read(&peer, offset, seen, sizeof seen) == 0);
        CHECK(memcmp(mine, seen, sizeof mine) == 0);
    }
    peer_ask(&peer, NBD_FLUSH, 0, 1, 0, 0);
    CHECK(peer_answer(&peer, 1) == 0);
    peer_goodbye(&peer);
    return NULL;
}

TEST(connections_at_once_each_see_their_own_writes)
{
    enum { NR = 4 };
    struct disk disk = disk_open();
    struct worker workers[NR];
    pthread_t threads[NR];
    for (uint64_t i = 0; i < NR; i++) {
        workers[i] = (struct worker){.disk = &disk, .base = i << 20};
        CHECK(pthread_create(&threads[i], NULL, work_and_compare, &workers[i]) == 0);
    }
    for (int i = 0; i < NR; i++)
        pthread_join(threads[i], NULL);
    disk_close(&disk);
}

TEST_MAIN(T(unknown_commands_and_flags_are_refused_and_the_connection_goes_on),
          T(a_wrong_magic_ends_the_connection_only), T(a_client_that_goes_in_the_middle_of_a_request_changes_nothing),
          T(a_client_that_half_closes_still_gets_its_answers),
          T(a_client_that_does_not_read_hurts_nobody_else_and_stop_ends_it),
          T(stop_ends_an_idle_connection_and_one_with_half_a_payload), T(close_without_a_goodbye_ends_it_too),
          T(random_requests_never_break_the_server), T(connections_at_once_each_see_their_own_writes))
