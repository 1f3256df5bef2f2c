/* nbd_reply: from results to bytes for the client.
 *
 * One reply is one head, built in its slot, and one body that lies in the slot's
 * buffer.  Replies go in the order in which they were queued, many by one system
 * call, and never wait: what the socket does not take stays queued.
 *
 * With structured replies a READ and every error is a chunk (an error brings its
 * sentence), the rest stays simple, which the protocol allows and is shorter.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <sys/socket.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/hook.h"
#include "front/nbd_connection.h"

#define MAX_PIECES 128 /* buffers in one sendmsg, two for a reply */

/* ---- building ---- */

static uint32_t errno_of(const struct nbd_request *request)
{
    const struct nbd_kind *kind = nbd_kind_of(&request->header);
    bool is_past_end = request->status == OBD_E_RANGE && kind && kind->is_write;
    return is_past_end ? NBD_ENOSPC : nbd_errno(request->status);
}

static void set_body(struct nbd_request *request, const void *body, size_t length)
{
    request->body = body;
    request->body_length = length;
}

static void build_simple(struct nbd_request *request)
{
    unsigned char *at = wire_put32(request->head, NBD_SIMPLE_MAGIC);
    at = wire_put32(at, errno_of(request));
    at = wire_put64(at, request->header.cookie);
    request->head_length = (size_t)(at - request->head);
}

/* Puts the chunk's head; head_bytes more follow it in head, then the body. */
static unsigned char *put_chunk(struct nbd_request *request, uint16_t type, size_t head_bytes)
{
    unsigned char *at = wire_put32(request->head, NBD_CHUNK_MAGIC);
    at = wire_put16(at, NBD_CHUNK_DONE);
    at = wire_put16(at, type);
    at = wire_put64(at, request->header.cookie);
    at = wire_put32(at, (uint32_t)(head_bytes + request->body_length));
    request->head_length = NBD_CHUNK_SIZE + head_bytes;
    return at;
}

static void build_error(struct nbd_request *request)
{
    size_t length = strlen(request->message);
    set_body(request, request->message, length);
    unsigned char *at = put_chunk(request, NBD_CHUNK_ERROR, 6);
    at = wire_put32(at, errno_of(request));
    wire_put16(at, (uint16_t)length);
}

static bool is_all_zero(const unsigned char *bytes, size_t length)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

/* The bytes asked for inside the sectors that were read. */
static void set_data_body(struct nbd_request *request)
{
    size_t skip = request->header.offset % SECTOR_SIZE;
    set_body(request, request->buffer + skip, request->header.length);
}

static void build_read(struct nbd_request *request)
{
    set_data_body(request);
    if (is_all_zero(request->body, request->body_length)) {
        set_body(request, NULL, 0);
        unsigned char *at = put_chunk(request, NBD_CHUNK_OFFSET_HOLE, 12);
        at = wire_put64(at, request->header.offset);
        wire_put32(at, request->header.length);
    } else {
        unsigned char *at = put_chunk(request, NBD_CHUNK_OFFSET_DATA, 8);
        wire_put64(at, request->header.offset);
    }
}

static void build_block_status(struct nbd_request *request)
{
    set_body(request, request->buffer, request->iov.iov_len);
    unsigned char *at = put_chunk(request, NBD_CHUNK_BLOCK_STATUS, 4);
    wire_put32(at, NBD_BASE_ALLOCATION);
}

static void build_reply(struct nbd_request *request)
{
    bool is_structured = request->nbd->flags & OBD_NBD_STRUCTURED;
    set_body(request, NULL, 0);
    if (is_structured && request->status != OBD_OK) {
        build_error(request);
    } else if (is_structured && request->header.type == NBD_READ) {
        build_read(request);
    } else if (request->status == OBD_OK && request->header.type == NBD_BLOCK_STATUS) {
        build_block_status(request);
    } else {
        build_simple(request);
        if (request->status == OBD_OK && request->header.type == NBD_READ)
            set_data_body(request);
    }
}

void nbd_reply_queue(struct nbd_request *request)
{
    struct nbd *nbd = request->nbd;
    build_reply(request);
    if (request->header.type == NBD_FLUSH)
        HOOK("nbd.flush_reply");
    if (list_is_empty(&nbd->sending))
        nbd->progress_ns = clock_now_ns();
    list_append(&nbd->sending, &request->link);
}

/* ---- sending ---- */

static int add_piece(struct iovec *iov, int nr_iov, const void *bytes, size_t length, size_t *skip)
{
    size_t skipped = min_u64(*skip, length);
    *skip -= skipped;
    if (skipped < length)
        iov[nr_iov++] = (struct iovec){.iov_base = (char *)bytes + skipped, .iov_len = length - skipped};
    return nr_iov;
}

static int gather_replies(const struct nbd *nbd, struct iovec *iov)
{
    int nr_iov = 0;
    for (struct list *at = nbd->sending.next; at != &nbd->sending && nr_iov + 2 <= MAX_PIECES; at = at->next) {
        const struct nbd_request *request = LIST_ENTRY(at, struct nbd_request, link);
        size_t skip = request->sent;
        nr_iov = add_piece(iov, nr_iov, request->head, request->head_length, &skip);
        nr_iov = add_piece(iov, nr_iov, request->body, request->body_length, &skip);
    }
    return nr_iov;
}

/* nr bytes of the queue have gone; true when a whole reply has. */
static bool account_sent(struct nbd *nbd, size_t nr)
{
    bool is_freed = false;
    while (nr > 0) {
        struct nbd_request *request = LIST_ENTRY(nbd->sending.next, struct nbd_request, link);
        size_t left = request->head_length + request->body_length - request->sent;
        size_t taken = min_u64(left, nr);
        request->sent += taken;
        nr -= taken;
        if (taken == left) {
            list_remove(&request->link);
            nbd_request_retire(request);
            is_freed = true;
        }
    }
    return is_freed;
}

static ssize_t send_pieces(struct nbd *nbd)
{
    struct iovec iov[MAX_PIECES];
    struct msghdr message = {.msg_iov = iov};
    message.msg_iovlen = (size_t)gather_replies(nbd, iov);
    return sendmsg(nbd->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

bool nbd_send(struct nbd *nbd)
{
    bool is_freed = false;
    while (nbd->phase != NBD_BROKEN && !list_is_empty(&nbd->sending)) {
        ssize_t nr = send_pieces(nbd);
        if (nr < 0 && errno == EINTR)
            continue;
        if (nr < 0 && errno == EAGAIN)
            break;
        if (nr < 0) {
            nbd_break(nbd, status_set_errno(errno, "nbd %s: writing to the client", device_name(nbd->device)));
            break;
        }
        nbd->progress_ns = clock_now_ns();
        is_freed |= account_sent(nbd, (size_t)nr);
    }
    return is_freed;
}
