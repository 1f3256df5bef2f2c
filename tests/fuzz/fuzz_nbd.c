/* fuzz_nbd: a client of the NBD front that sends whatever it likes, over a socketpair.
 *
 * Input: u8 flags of the connection, then steps, each an u8 that names it.
 *   0  a request: u8 type, u16 flags, u32 offset in sectors, u16 length in 64 bytes, and
 *      for a write u8 n, n bytes that are repeated as its payload
 *   1  a request with nothing bounded: u16 type, u16 flags, u64 offset, u32 length
 *   2  bytes as they are: u8 n, n bytes
 * Then the client sends no more, and reads to the end.  The server must end by itself,
 * whatever it was sent.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define DISK_FOLDER "/dev/shm/fuzz_nbd.XXXXXX" /* a busy disk's sync would look like a server that hangs */
#include "nbd_disk.h"

#include "input.h"

/* A disk's log only grows, so there is a new one now and then. */
#define INPUTS_PER_DISK 2000
#define MAX_STEPS       16

static struct disk disk;

static void clean_up(void)
{
    disk_close(&disk);
}

static void use_disk(void)
{
    static unsigned nr_inputs;
    if (nr_inputs == 0)
        atexit(clean_up);
    if (nr_inputs > 0 && nr_inputs % INPUTS_PER_DISK == 0)
        disk_close(&disk);
    if (nr_inputs++ % INPUTS_PER_DISK == 0)
        disk = disk_open();
}

/* ---- a client that reads while it sends ---- */

/* libFuzzer's clock interrupts every wait. */
static short wait_ready(int fd, short events)
{
    struct pollfd ready = {.fd = fd, .events = events};
    int nr;
    do
        nr = poll(&ready, 1, WAIT_MS);
    while (nr < 0 && errno == EINTR);
    CHECK(nr == 1);
    return ready.revents;
}

static void read_what_is_there(int fd)
{
    static char dropped[1 << 16];
    while (recv(fd, dropped, sizeof dropped, MSG_DONTWAIT) > 0)
        continue;
}

/* False: the server has hung up, or stands still. */
static bool send_all(int fd, const unsigned char *message, size_t length)
{
    while (length > 0) {
        if (wait_ready(fd, POLLIN | POLLOUT) & POLLIN)
            read_what_is_there(fd);
        ssize_t nr = send(fd, message, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (nr < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        message += nr > 0 ? nr : 0;
        length -= nr > 0 ? (size_t)nr : 0;
    }
    return true;
}

static void read_to_the_end(int fd)
{
    static char dropped[1 << 16];
    ssize_t nr;
    shutdown(fd, SHUT_WR);
    do {
        wait_ready(fd, POLLIN);
        nr = recv(fd, dropped, sizeof dropped, MSG_DONTWAIT);
    } while (nr > 0 || (nr < 0 && (errno == EAGAIN || errno == EINTR)));
}

/* ---- what it sends ---- */

static size_t bounded_request(struct input *input, unsigned char *message)
{
    uint8_t type = take_u8(input), pattern[255];
    uint16_t flags = take_u16(input);
    uint64_t offset = (uint64_t)take_u32(input) << 9;
    uint32_t length = take_u16(input) * 64u;
    size_t size = put_request(message, type, flags, 7, offset % (2u * DISK_SIZE), length);
    if (type != NBD_WRITE)
        return size;
    size_t nr = take_u8(input);
    take_bytes(input, pattern, nr);
    for (uint32_t i = 0; i < length; i++)
        message[size + i] = nr == 0 ? 0 : pattern[i % nr];
    return size + length;
}

static size_t any_request(struct input *input, unsigned char *message)
{
    uint16_t type = take_u16(input), flags = take_u16(input);
    uint64_t offset = take_u64(input);
    return put_request(message, type, flags, 8, offset, take_u32(input));
}

static bool run_step(int fd, struct input *input)
{
    static unsigned char message[NBD_REQUEST_SIZE + 64 * UINT16_MAX];
    size_t length = 0;
    switch (take_u8(input) % 3) {
    case 0:
        length = bounded_request(input, message);
        break;
    case 1:
        length = any_request(input, message);
        break;
    default:
        length = take_u8(input);
        take_bytes(input, message, length);
    }
    return send_all(fd, message, length);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes_in, size_t size)
{
    struct input input = {bytes_in, size};
    use_disk();
    struct peer peer = peer_connect(disk.device, take_u8(&input));
    bool is_up = true;
    for (int i = 0; i < MAX_STEPS && is_up && !input_is_empty(&input); i++)
        is_up = run_step(peer.fd, &input);
    read_to_the_end(peer.fd);
    CHECK(obd_nbd_wait(peer.nbd, WAIT_MS) != OBD_E_TIMEOUT);
    obd_nbd_close(peer.nbd);
    close(peer.fd);
    return 0;
}
