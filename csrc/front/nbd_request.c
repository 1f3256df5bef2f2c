/* nbd_request: from bytes of the client to commands of the core.
 *
 * Only a wrong magic ends the connection, because the place of the next request is
 * then unknown; all else is answered, and a WRITE that is refused has its payload
 * skipped.  READs of half sectors are widened to the sectors that hold them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/checked.h"
#include "base/clock.h"
#include "front/nbd_connection.h"

/* ---- slots ---- */

/* The sectors that hold the bytes asked for.  Wraps to nonsense, harmlessly, for a
 * range that check_range refuses. */
static uint64_t sectors_begin(const struct nbd_header *header)
{
    return round_down(header->offset, SECTOR_SIZE);
}

static uint64_t sectors_length(const struct nbd_header *header)
{
    return round_up(header->offset % SECTOR_SIZE + header->length, SECTOR_SIZE);
}

/* The bytes of buffer that a request needs; 0 for one that will be refused. */
static uint64_t bytes_needed(const struct nbd_header *header)
{
    bool is_bounded = header->length <= NBD_MAX_PAYLOAD;
    switch (header->type) {
    case NBD_READ:
    case NBD_WRITE:
        return is_bounded ? sectors_length(header) : 0;
    case NBD_BLOCK_STATUS:
        return NBD_MAX_EXTENTS * NBD_EXTENT_SIZE;
    default:
        return 0;
    }
}

static bool has_room(const struct nbd *nbd, uint64_t bytes)
{
    bool fits = nbd->nr_in_flight == 0 || nbd->buffered + bytes <= NBD_MAX_BUFFERED;
    return fits && !list_is_empty(&nbd->idle);
}

static enum obd_status ensure_buffer(struct nbd_request *request, uint64_t bytes)
{
    if (request->capacity >= bytes)
        return OBD_OK;
    free(request->buffer);
    request->buffer = malloc(bytes);
    request->capacity = request->buffer ? bytes : 0;
    if (!request->buffer)
        return status_set(OBD_E_NO_MEMORY, "nbd %s: no memory for a request of %" PRIu64 " bytes",
                          device_name(request->nbd->device), bytes);
    return OBD_OK;
}

static struct nbd_request *take_slot(struct nbd *nbd, const struct nbd_header *header)
{
    struct nbd_request *request = LIST_ENTRY(list_pop(&nbd->idle), struct nbd_request, link);
    request->header = *header;
    request->filled = 0;
    request->sent = 0;
    request->iov = (struct iovec){.iov_base = NULL, .iov_len = 0};
    request->status = OBD_OK;
    nbd->nr_in_flight++;
    nbd->buffered += bytes_needed(header);
    return request;
}

void nbd_request_retire(struct nbd_request *request)
{
    struct nbd *nbd = request->nbd;
    nbd->nr_in_flight--;
    nbd->buffered -= bytes_needed(&request->header);
    if (request->capacity > NBD_KEPT_BUFFER) {
        free(request->buffer);
        request->buffer = NULL;
        request->capacity = 0;
    }
    /* In front: the buffer that was used last is the one still in the cache. */
    list_append(nbd->idle.next, &request->link);
}

/* ---- to the core ---- */

/* On any thread; from here on the request is the connection's thread's again. */
static void request_done(struct command *command)
{
    struct nbd_request *request = LIST_ENTRY(command, struct nbd_request, command);
    struct nbd *nbd = request->nbd;
    request->status = command->status;
    if (command->status != OBD_OK)
        snprintf(request->message, sizeof request->message, "%s", status_text());

    /* The wake-up is written under the lock, because the thread may end, and nbd
     * with it, as soon as it can see the request. */
    pthread_mutex_lock(&nbd->lock);
    list_append(&nbd->done, &request->link);
    if (nbd->is_asleep)
        eventfd_write(nbd->wake_fd, 1);
    nbd->is_asleep = false;
    pthread_mutex_unlock(&nbd->lock);
}

static enum command_kind command_kind_of(uint16_t type)
{
    switch (type) {
    case NBD_READ:
        return COMMAND_READ;
    case NBD_WRITE:
        return COMMAND_WRITE;
    case NBD_FLUSH:
        return COMMAND_FLUSH;
    default: /* TRIM, WRITE_ZEROES: both read as zeros afterwards */
        return COMMAND_DISCARD;
    }
}

static size_t input_left(const struct nbd *nbd)
{
    return nbd->input_end - nbd->input_begin;
}

/* A small read is done sooner than it is handed over: 4 KiB, 32 deep, 2.2 times as
 * many a second.  A larger one goes to the workers when there is more to do here,
 * so that several processors decompress. */
static bool may_run_inline(const struct nbd *nbd, uint64_t length)
{
    bool is_alone = input_left(nbd) < NBD_REQUEST_SIZE && list_is_empty(&nbd->sending);
    return is_alone || length <= NBD_INLINE_BYTES;
}

static void submit(struct nbd_request *request)
{
    struct nbd *nbd = request->nbd;
    struct command *command = &request->command;
    *command = (struct command){
        .kind = command_kind_of(request->header.type),
        .fua = request->header.flags & NBD_FLAG_FUA && nbd_kind_of(&request->header)->is_write,
        .done = request_done,
    };
    if (nbd_kind_of(&request->header)->has_range) {
        command->offset = sectors_begin(&request->header);
        command->length = sectors_length(&request->header);
    }
    if (command->kind == COMMAND_READ || command->kind == COMMAND_WRITE) {
        request->iov = (struct iovec){.iov_base = request->buffer, .iov_len = command->length};
        command->iov = &request->iov;
        command->nr_iov = 1;
    }
    command_submit(nbd->device, command, may_run_inline(nbd, command->length));
}

/* ---- from the client ---- */

/* This thread's sentence is the message. */
static void refuse(struct nbd_request *request, enum obd_status status)
{
    request->status = status;
    snprintf(request->message, sizeof request->message, "%s", status_text());
    if (request->header.type == NBD_WRITE)
        request->nbd->nr_to_skip = request->header.length;
    nbd_reply_queue(request);
}

static void start_request(struct nbd *nbd, const struct nbd_header *header)
{
    struct nbd_request *request = take_slot(nbd, header);
    enum obd_status status = nbd_check(nbd, header);
    if (status == OBD_OK)
        status = ensure_buffer(request, bytes_needed(header));
    if (status == OBD_OK && header->type == NBD_BLOCK_STATUS)
        status = nbd_extents_describe(request);

    if (status != OBD_OK)
        refuse(request, status);
    else if (header->type == NBD_BLOCK_STATUS)
        nbd_reply_queue(request);
    else if (header->type == NBD_WRITE)
        nbd->incoming = request;
    else
        submit(request);
}

/* The take functions return false when they need more bytes, or room. */

static bool take_header(struct nbd *nbd)
{
    if (input_left(nbd) < NBD_REQUEST_SIZE)
        return false;
    struct nbd_header header = nbd_header_parse(nbd->input + nbd->input_begin);
    if (header.magic != NBD_REQUEST_MAGIC) {
        nbd_break(nbd, status_set(OBD_E_INVALID, "nbd %s: a request begins with 0x%08" PRIx32 " instead of 0x%08x",
                                  device_name(nbd->device), header.magic, NBD_REQUEST_MAGIC));
        return false;
    }
    if (header.type == NBD_DISCONNECT) {
        nbd->phase = NBD_ANSWERING;
        return false;
    }
    nbd->needs_room = !has_room(nbd, bytes_needed(&header));
    if (nbd->needs_room)
        return false;
    nbd->input_begin += NBD_REQUEST_SIZE;
    start_request(nbd, &header);
    return true;
}

static bool take_payload(struct nbd *nbd)
{
    struct nbd_request *request = nbd->incoming;
    size_t missing = request->header.length - request->filled;
    size_t taken = min_u64(missing, input_left(nbd));
    memcpy(request->buffer + request->filled, nbd->input + nbd->input_begin, taken);
    request->filled += taken;
    nbd->input_begin += taken;
    if (taken < missing)
        return false;
    nbd->incoming = NULL;
    submit(request);
    return true;
}

static bool skip_payload(struct nbd *nbd)
{
    size_t taken = min_u64(nbd->nr_to_skip, input_left(nbd));
    nbd->input_begin += taken;
    nbd->nr_to_skip -= taken;
    return nbd->nr_to_skip == 0;
}

static bool take_step(struct nbd *nbd)
{
    if (nbd->nr_to_skip > 0)
        return skip_payload(nbd);
    return nbd->incoming ? take_payload(nbd) : take_header(nbd);
}

void nbd_take_requests(struct nbd *nbd)
{
    while (nbd->phase == NBD_READING && take_step(nbd))
        ;
}

/* A payload goes straight into its buffer, what follows it into the input. */
static ssize_t receive_bytes(struct nbd *nbd)
{
    struct iovec iov[2];
    int nr_iov = 0;
    if (nbd->incoming)
        iov[nr_iov++] = (struct iovec){.iov_base = nbd->incoming->buffer + nbd->incoming->filled,
                                       .iov_len = nbd->incoming->header.length - nbd->incoming->filled};
    memmove(nbd->input, nbd->input + nbd->input_begin, input_left(nbd));
    nbd->input_end -= nbd->input_begin;
    nbd->input_begin = 0;
    iov[nr_iov++] = (struct iovec){.iov_base = nbd->input + nbd->input_end, .iov_len = NBD_INPUT_SIZE - nbd->input_end};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)nr_iov};
    return recvmsg(nbd->fd, &message, MSG_DONTWAIT);
}

static void account_received(struct nbd *nbd, size_t nr)
{
    if (nbd->incoming) {
        size_t missing = nbd->incoming->header.length - nbd->incoming->filled;
        size_t direct = min_u64(missing, nr);
        nbd->incoming->filled += direct;
        nr -= direct;
    }
    nbd->input_end += nr;
}

/* The client has closed its side. What it asked for before is still done. */
static void end_of_input(struct nbd *nbd)
{
    bool is_clean = !nbd->incoming && nbd->nr_to_skip == 0 && input_left(nbd) == 0;
    if (is_clean)
        nbd->phase = NBD_ANSWERING;
    else
        nbd_break(nbd, status_set(OBD_E_CLOSED, "nbd %s: the client went away in the middle of a request",
                                  device_name(nbd->device)));
}

void nbd_receive(struct nbd *nbd)
{
    ssize_t nr = receive_bytes(nbd);
    if (nr > 0)
        account_received(nbd, (size_t)nr);
    else if (nr == 0)
        end_of_input(nbd);
    else if (errno != EAGAIN && errno != EINTR)
        nbd_break(nbd, status_set_errno(errno, "nbd %s: reading from the client", device_name(nbd->device)));
}
