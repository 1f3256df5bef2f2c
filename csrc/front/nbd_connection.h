/* nbd_connection: what the files of the NBD front share (private to them).
 *
 * The life of a request, which is one of the connection's max_in_flight slots:
 *
 *   idle --header--> [receiving payload] --> with the core --> done --> sending --> idle
 *                  \--(refused, block status)---------------------------^
 *
 * and of a connection:
 *
 *   READING --(DISC, end of file, nbd_stop)--> ANSWERING --(nothing in flight)--> ended
 *      \----(bad magic, socket error, client that does not read)--> BROKEN --------^
 *
 * ANSWERING still sends replies; BROKEN drops them and waits for the core only.
 *
 * Threads: all fields belong to the connection's thread, but those under "shared".
 * Lock order: nbd->lock is a leaf.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_FRONT_NBD_CONNECTION_H
#define OBD_FRONT_NBD_CONNECTION_H

#include <pthread.h>
#include <stdatomic.h>

#include "command/core.h"
#include "front/nbd.h"
#include "front/nbd_wire.h"

#define NBD_INPUT_SIZE    (64u << 10)  /* read ahead: many small requests by one system call */
#define NBD_MAX_BUFFERED  (32u << 20)  /* bytes of payload and data in flight; one request always passes */
#define NBD_KEPT_BUFFER   (256u << 10) /* a slot keeps a buffer up to this for its next request */
#define NBD_INLINE_BYTES  (16u << 10)
#define NBD_MAX_SLOTS     1024u
#define NBD_SEND_LIMIT_NS (30 * NS_PER_SECOND)  /* without one byte taken by the client */
#define NBD_STOP_LIMIT_NS (5 * NS_PER_SECOND)   /* for all replies, once nbd_stop was called */
#define NBD_MAX_EXTENTS   512                   /* in one block status reply */
#define NBD_HEAD_SIZE     (NBD_CHUNK_SIZE + 12) /* the longest: chunk, offset 8, hole size 4 */

struct nbd_request {
    struct command command;
    struct nbd *nbd;
    struct nbd_header header;
    struct list link; /* in nbd->idle, nbd->done or nbd->sending */

    unsigned char *buffer; /* payload of a WRITE, data of a READ, descriptors */
    size_t capacity;
    size_t filled;    /* of a WRITE: bytes of payload that have come */
    struct iovec iov; /* the command's: all of buffer that is used */

    enum obd_status status;
    char message[STATUS_TEXT_SIZE]; /* when status is not OBD_OK */

    /* The reply: head, then body. */
    unsigned char head[NBD_HEAD_SIZE];
    size_t head_length;
    const void *body; /* in buffer or message */
    size_t body_length;
    size_t sent; /* of both */
};

enum nbd_phase { NBD_READING, NBD_ANSWERING, NBD_BROKEN };

struct nbd {
    struct device *device;
    int fd;
    uint32_t flags; /* enum obd_nbd_flags */
    enum nbd_phase phase;

    unsigned char input[NBD_INPUT_SIZE];
    size_t input_begin;           /* first byte not yet used */
    size_t input_end;             /* behind the last that has come */
    struct nbd_request *incoming; /* a WRITE whose payload is coming, or NULL */
    uint64_t nr_to_skip;          /* payload bytes of a refused WRITE, still to come */
    bool needs_room;              /* the next request waits for a slot or for buffered to fall */

    struct nbd_request *slots;
    uint32_t nr_slots;
    uint32_t nr_in_flight; /* slots not idle */
    uint64_t buffered;     /* sum of the buffers in flight */
    struct list idle;
    struct list sending; /* replies in the order in which they go */

    uint64_t progress_ns;  /* when the client last took a byte, or the first reply was queued */
    uint64_t stop_at_ns;   /* set once nbd_stop was noticed, else NEVER_NS */
    enum obd_status ended; /* with text: how it ended */
    char ended_text[STATUS_TEXT_SIZE];

    /* Shared. */
    pthread_t thread;
    int wake_fd; /* an eventfd: something was done, or stop */
    atomic_bool is_stopping;
    pthread_mutex_t lock;  /* guards what follows */
    pthread_cond_t change; /* has_ended became true */
    struct list done;      /* requests that the core has given back, in that order */
    bool is_asleep;        /* in poll: whoever adds to done writes to wake_fd */
    bool has_ended;        /* the thread touches nothing any more */
};

/* nbd.c */

/* Ends the connection at once: replies are dropped.  For the first call, keeps
 * status and this thread's sentence for nbd_wait. */
void nbd_break(struct nbd *nbd, enum obd_status status);

/* nbd_check.c */

/* What may be asked, by type. */
struct nbd_kind {
    const char *name;
    uint16_t flags; /* allowed; FUA is on every command */
    bool is_write;
    bool has_range;
    bool has_bytes; /* travels with data, so its length is bounded */
};

/* NULL: there is no such command. */
const struct nbd_kind *nbd_kind_of(const struct nbd_header *header);
/* OBD_OK, or why the request is refused. */
enum obd_status nbd_check(const struct nbd *nbd, const struct nbd_header *header);

/* nbd_request.c */

/* Reads what the socket has, once, without waiting. */
void nbd_receive(struct nbd *nbd);
/* Starts every request that has come whole and for which there is room. */
void nbd_take_requests(struct nbd *nbd);
/* Puts the request's slot back. */
void nbd_request_retire(struct nbd_request *request);

/* nbd_reply.c */

/* The request has status (and message): builds its reply and queues it. */
void nbd_reply_queue(struct nbd_request *request);
/* Sends as much as the socket takes; true when a slot came free. */
bool nbd_send(struct nbd *nbd);

/* nbd_extents.c */

/* Answers BLOCK_STATUS from the image's index: descriptors are in the buffer,
 * their bytes in iov.iov_len. */
enum obd_status nbd_extents_describe(struct nbd_request *request);

#endif
