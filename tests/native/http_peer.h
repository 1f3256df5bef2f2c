/* http_peer: a registry's blob endpoint as far as a ranged GET sees it, by script.
 *
 * It serves peer->blob on a loopback port, one thread a connection, keep-alive.
 * Each request takes the next act of the script; behind its end all is served right.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef HTTP_PEER_H
#define HTTP_PEER_H

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

#define PEER_BLOB_SIZE       ((40u << 20) + 1000) /* the last chunk is short */
#define PEER_MAX_ACTS        16
#define PEER_MAX_CONNECTIONS 64

enum act_kind {
    ACT_SERVE = 0,
    ACT_STATUS,      /* status and headers, with a short body */
    ACT_CUT,         /* the connection ends after number bytes of the body */
    ACT_SHORT,       /* Content-Length says number, and that many come */
    ACT_HANG,        /* nothing is ever sent */
    ACT_STALL,       /* number bytes of the body, then nothing */
    ACT_WHOLE,       /* 200 with the whole blob */
    ACT_OTHER_RANGE, /* 206 that says it begins number bytes later */
    ACT_OTHER_TOTAL, /* 206 of a blob that is number bytes longer */
    ACT_CLOSE,       /* the connection ends without an answer */
    ACT_WAIT,        /* served right once peer->is_released */
};

struct act {
    enum act_kind kind;
    uint64_t number;
    unsigned status;
    const char *headers; /* whole lines, or NULL */
};

struct http_peer {
    const uint8_t *blob;
    int listener;
    uint16_t port;
    pthread_t acceptor;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct act acts[PEER_MAX_ACTS];
    unsigned nr_acts, nr_acted;
    unsigned nr_requests, nr_connections, nr_busy, max_busy;
    uint64_t begins[4096], ends[4096]; /* of the requests, in order */
    char last_head[4096];
    bool is_released, is_closing;
    unsigned pace_ms; /* between pieces of a body; set before the first request */
    int sockets[PEER_MAX_CONNECTIONS * 16];
    pthread_t threads[PEER_MAX_CONNECTIONS * 16];
};

struct http_connection {
    struct http_peer *peer;
    int socket;
};

static inline uint8_t peer_byte(uint64_t offset)
{
    return (uint8_t)((offset * 2654435761u) >> 13);
}

static inline bool peer_send(int socket, const void *bytes, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t n = send(socket, (const char *)bytes + done, length - done, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

#define PEER_PIECE (64u << 10)

static inline bool peer_send_body(int socket, const uint8_t *bytes, uint64_t length, unsigned pace_ms)
{
    if (pace_ms == 0)
        return peer_send(socket, bytes, length);
    for (uint64_t at = 0; at < length; at += PEER_PIECE) {
        usleep(pace_ms * 1000);
        if (!peer_send(socket, bytes + at, length - at < PEER_PIECE ? length - at : PEER_PIECE))
            return false;
    }
    return true;
}

/* Until the other side is gone. */
static inline void peer_sleep(int socket)
{
    char byte;
    while (recv(socket, &byte, 1, 0) > 0)
        ;
}

static inline bool peer_send_head(int socket, const char *first, uint64_t length, const char *headers)
{
    char head[4096];
    int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Length: %llu\r\n%s\r\n", first,
                     (unsigned long long)length, headers);
    return peer_send(socket, head, (size_t)n);
}

/* False: the connection is to be closed. */
static inline bool peer_serve(struct http_peer *peer, int socket, uint64_t begin, uint64_t end, const struct act *act)
{
    uint64_t moved = act->kind == ACT_OTHER_RANGE ? act->number : 0;
    uint64_t total = PEER_BLOB_SIZE + (act->kind == ACT_OTHER_TOTAL ? act->number : 0);
    uint64_t length = end - begin, sent = length;
    char range[128];
    snprintf(range, sizeof range, "Content-Range: bytes %llu-%llu/%llu\r\n", (unsigned long long)(begin + moved),
             (unsigned long long)(end - 1 + moved), (unsigned long long)total);
    if (act->kind == ACT_SHORT)
        length = sent = act->number < length ? act->number : length;
    if (act->kind == ACT_CUT || act->kind == ACT_STALL)
        sent = act->number < length ? act->number : length;
    if (!peer_send_head(socket, "206 Partial Content", length, range) ||
        !peer_send_body(socket, peer->blob + begin, sent, peer->pace_ms))
        return false;
    if (act->kind == ACT_STALL)
        peer_sleep(socket);
    return act->kind != ACT_CUT && act->kind != ACT_STALL;
}

static inline bool peer_act(struct http_peer *peer, int socket, uint64_t begin, uint64_t end, const struct act *act)
{
    char first[64];
    switch (act->kind) {
    case ACT_CLOSE:
        return false;
    case ACT_HANG:
        peer_sleep(socket);
        return false;
    case ACT_STATUS:
        snprintf(first, sizeof first, "%u Scripted", act->status);
        return peer_send_head(socket, first, 4, act->headers != NULL ? act->headers : "") &&
               peer_send(socket, "oops", 4);
    case ACT_WHOLE:
        return peer_send_head(socket, "200 OK", PEER_BLOB_SIZE, "") && peer_send(socket, peer->blob, PEER_BLOB_SIZE);
    case ACT_WAIT:
        pthread_mutex_lock(&peer->lock);
        while (!peer->is_released && !peer->is_closing)
            pthread_cond_wait(&peer->changed, &peer->lock);
        pthread_mutex_unlock(&peer->lock);
        break;
    default:
        break;
    }
    return peer_serve(peer, socket, begin, end, act);
}

static inline bool peer_read_head(int socket, char *head, size_t size)
{
    size_t length = 0;
    while (length + 1 < size) {
        ssize_t n = recv(socket, head + length, size - length - 1, 0);
        if (n <= 0)
            return false;
        length += (size_t)n;
        head[length] = '\0';
        if (strstr(head, "\r\n\r\n") != NULL)
            return true;
    }
    return false;
}

/* Notes the request and says how to answer it. */
static inline struct act peer_next_act(struct http_peer *peer, const char *head, uint64_t begin, uint64_t end)
{
    struct act act = {.kind = ACT_SERVE};
    pthread_mutex_lock(&peer->lock);
    if (peer->nr_acted < peer->nr_acts)
        act = peer->acts[peer->nr_acted++];
    CHECK(peer->nr_requests < 4096);
    peer->begins[peer->nr_requests] = begin;
    peer->ends[peer->nr_requests++] = end;
    snprintf(peer->last_head, sizeof peer->last_head, "%s", head);
    peer->nr_busy++;
    if (peer->nr_busy > peer->max_busy)
        peer->max_busy = peer->nr_busy;
    pthread_cond_broadcast(&peer->changed);
    pthread_mutex_unlock(&peer->lock);
    return act;
}

static inline void *peer_converse(void *argument)
{
    struct http_connection *connection = argument;
    struct http_peer *peer = connection->peer;
    int socket = connection->socket;
    char head[4096];
    bool goes_on = true;
    while (goes_on && peer_read_head(socket, head, sizeof head)) {
        unsigned long long first = 0, last = 0;
        const char *range = strstr(head, "Range: bytes=");
        CHECK(range != NULL && sscanf(range, "Range: bytes=%llu-%llu", &first, &last) == 2);
        CHECK(first <= last && last < PEER_BLOB_SIZE);
        struct act act = peer_next_act(peer, head, first, last + 1);
        goes_on = peer_act(peer, socket, first, last + 1, &act);
        pthread_mutex_lock(&peer->lock);
        peer->nr_busy--;
        pthread_mutex_unlock(&peer->lock);
    }
    shutdown(socket, SHUT_RDWR);
    free(connection);
    return NULL;
}

static inline void *peer_accept(void *argument)
{
    struct http_peer *peer = argument;
    int socket, one = 1;
    while ((socket = accept(peer->listener, NULL, NULL)) >= 0) {
        struct http_connection *connection = malloc(sizeof *connection);
        *connection = (struct http_connection){peer, socket};
        setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        pthread_mutex_lock(&peer->lock);
        unsigned place = peer->nr_connections++;
        CHECK(place < PEER_MAX_CONNECTIONS * 16);
        peer->sockets[place] = socket;
        CHECK(pthread_create(&peer->threads[place], NULL, peer_converse, connection) == 0);
        pthread_mutex_unlock(&peer->lock);
    }
    return NULL;
}

/* Made once, for all peers of a program; tests open them one after the other. */
static inline const uint8_t *peer_blob(void)
{
    static uint8_t blob[PEER_BLOB_SIZE];
    static bool is_made;
    for (uint64_t i = 0; i < PEER_BLOB_SIZE && !is_made; i++)
        blob[i] = peer_byte(i);
    is_made = true;
    return blob;
}

static inline void peer_open(struct http_peer *peer)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    memset(peer, 0, sizeof *peer);
    peer->blob = peer_blob();
    pthread_mutex_init(&peer->lock, NULL);
    pthread_cond_init(&peer->changed, NULL);
    peer->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(peer->listener, (struct sockaddr *)&address, size) == 0);
    CHECK(getsockname(peer->listener, (struct sockaddr *)&address, &size) == 0);
    CHECK(listen(peer->listener, 64) == 0);
    peer->port = ntohs(address.sin_port);
    CHECK(pthread_create(&peer->acceptor, NULL, peer_accept, peer) == 0);
}

static inline void peer_script(struct http_peer *peer, const struct act *acts, unsigned nr)
{
    pthread_mutex_lock(&peer->lock);
    CHECK(nr <= PEER_MAX_ACTS);
    memcpy(peer->acts, acts, nr * sizeof *acts);
    peer->nr_acts = nr;
    peer->nr_acted = 0;
    pthread_mutex_unlock(&peer->lock);
}

#define PEER_SCRIPT(peer, ...)                                                                                         \
    do {                                                                                                               \
        const struct act acts_[] = {__VA_ARGS__};                                                                      \
        peer_script((peer), acts_, sizeof acts_ / sizeof acts_[0]);                                                    \
    } while (0)

static inline void peer_release(struct http_peer *peer)
{
    pthread_mutex_lock(&peer->lock);
    peer->is_released = true;
    pthread_cond_broadcast(&peer->changed);
    pthread_mutex_unlock(&peer->lock);
}

static inline unsigned peer_nr_requests(struct http_peer *peer)
{
    pthread_mutex_lock(&peer->lock);
    unsigned nr = peer->nr_requests;
    pthread_mutex_unlock(&peer->lock);
    return nr;
}

static inline void peer_wait_for_requests(struct http_peer *peer, unsigned nr)
{
    pthread_mutex_lock(&peer->lock);
    while (peer->nr_requests < nr)
        pthread_cond_wait(&peer->changed, &peer->lock);
    pthread_mutex_unlock(&peer->lock);
}

static inline void peer_close(struct http_peer *peer)
{
    shutdown(peer->listener, SHUT_RDWR);
    pthread_join(peer->acceptor, NULL);
    pthread_mutex_lock(&peer->lock);
    peer->is_closing = true;
    pthread_cond_broadcast(&peer->changed);
    unsigned nr = peer->nr_connections;
    for (unsigned i = 0; i < nr; i++)
        shutdown(peer->sockets[i], SHUT_RDWR);
    pthread_mutex_unlock(&peer->lock);
    for (unsigned i = 0; i < nr; i++) {
        pthread_join(peer->threads[i], NULL);
        close(peer->sockets[i]);
    }
    close(peer->listener);
    pthread_cond_destroy(&peer->changed);
    pthread_mutex_destroy(&peer->lock);
}

#endif
