/* fetch_fixture: a fetcher, an origin of a scripted peer, a thread that answers
 * questions, and jobs that note what became of them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FETCH_FIXTURE_H
#define FETCH_FIXTURE_H

#include <semaphore.h>

#include "http_peer.h"

#include "base/clock.h"
#include "cache/fetcher.h"

#define CHUNK      (64u << 10)
#define SECONDS(n) (clock_now_ns() + (n)*NS_PER_SECOND)

struct fetch_fixture {
    struct http_peer peer;
    struct fetcher *fetcher;
    struct origin *origin;
    pthread_t resolver;
    atomic_uint nr_questions;
    pthread_mutex_t lock;    /* guards last */
    struct obd_resolve last; /* question */
    const char *headers;     /* of every reply; set before the first */
    uint64_t valid_ms;       /* likewise */
    enum obd_status refusal; /* of every question, when not OBD_OK; likewise */
    char url_of_peer[128];
};

static inline void fixture_answer(struct fetch_fixture *fixture, const struct obd_resolve *question)
{
    if (fixture->refusal != OBD_OK) {
        resolve_fail(fixture->fetcher, question->origin_id, fixture->refusal, "the resolver says no");
        return;
    }
    struct obd_resolve_reply reply = {.origin_id = question->origin_id,
                                      .url = fixture->url_of_peer,
                                      .headers = fixture->headers,
                                      .valid_ms = fixture->valid_ms};
    enum obd_status status = resolve_reply(fixture->fetcher, &reply);
    CHECK(status == OBD_OK || status == OBD_E_NOT_FOUND);
}

static inline void *fixture_resolve(void *argument)
{
    struct fetch_fixture *fixture = argument;
    struct obd_resolve question;
    while (resolve_next(fixture->fetcher, &question, NEVER_NS) == OBD_OK) {
        pthread_mutex_lock(&fixture->lock);
        fixture->last = question;
        pthread_mutex_unlock(&fixture->lock);
        atomic_fetch_add(&fixture->nr_questions, 1);
        fixture_answer(fixture, &question);
    }
    return NULL;
}

static inline void fixture_open_with(struct fetch_fixture *fixture, const struct obd_fetcher_params *params)
{
    peer_open(&fixture->peer);
    snprintf(fixture->url_of_peer, sizeof fixture->url_of_peer, "http://127.0.0.1:%u/v2/x/blobs/y?signature=secret",
             fixture->peer.port);
    pthread_mutex_init(&fixture->lock, NULL);
    CHECK_OK(fetcher_open(params, &fixture->fetcher));
    CHECK_OK(origin_open(fixture->fetcher, 7, PEER_BLOB_SIZE, "the blob", &fixture->origin));
    CHECK(pthread_create(&fixture->resolver, NULL, fixture_resolve, fixture) == 0);
}

static inline void fixture_open(struct fetch_fixture *fixture)
{
    memset(fixture, 0, sizeof *fixture);
    fixture_open_with(fixture, &(struct obd_fetcher_params){.proxy = ""});
}

static inline void fixture_close_fetcher(struct fetch_fixture *fixture)
{
    resolve_close(fixture->fetcher);
    pthread_join(fixture->resolver, NULL);
    fetcher_close(fixture->fetcher);
}

static inline void fixture_close(struct fetch_fixture *fixture)
{
    origin_unref(fixture->origin);
    fixture_close_fetcher(fixture);
    pthread_mutex_destroy(&fixture->lock);
    peer_close(&fixture->peer);
}

/* One job, and what became of it. */
struct noted_job {
    struct fetch_job job;
    enum obd_status status;
    char text[STATUS_TEXT_SIZE];
    bool is_right; /* the bytes */
    sem_t is_done;
};

static inline void note_done(struct fetch_job *job, enum obd_status status, void *bytes)
{
    struct noted_job *noted = LIST_ENTRY(job, struct noted_job, job);
    noted->status = status;
    snprintf(noted->text, sizeof noted->text, "%s", status_text());
    noted->is_right = bytes != NULL;
    for (uint32_t i = 0; bytes != NULL && i < job->length; i++)
        noted->is_right &= ((uint8_t *)bytes)[i] == peer_byte(job->offset + i);
    free(bytes);
    sem_post(&noted->is_done);
}

static inline void noted_init(struct noted_job *noted, struct fetch_fixture *fixture, uint64_t chunk)
{
    memset(noted, 0, sizeof *noted);
    uint64_t offset = chunk * CHUNK;
    noted->job.origin = fixture->origin;
    noted->job.offset = offset;
    noted->job.length = (uint32_t)(PEER_BLOB_SIZE - offset < CHUNK ? PEER_BLOB_SIZE - offset : CHUNK);
    noted->job.deadline_ns = SECONDS(20);
    noted->job.done = note_done;
    sem_init(&noted->is_done, 0, 0);
}

static inline void noted_wait(struct noted_job *noted)
{
    while (sem_wait(&noted->is_done) != 0)
        ;
    sem_destroy(&noted->is_done);
}

/* Submits jobs for chunks [first, first + nr) and begins. */
static inline void fetch_chunks(struct fetch_fixture *fixture, struct noted_job *jobs, uint64_t first, unsigned nr,
                                enum fetch_class class)
{
    for (unsigned i = 0; i < nr; i++) {
        noted_init(&jobs[i], fixture, first + i);
        jobs[i].job.class = class;
        CHECK_OK(fetch_submit(&jobs[i].job));
    }
    fetch_begin(fixture->origin);
}

static inline void all_came_right(struct noted_job *jobs, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        noted_wait(&jobs[i]);
        if (jobs[i].status != OBD_OK)
            fprintf(stderr, "%s\n", jobs[i].text);
        CHECK(jobs[i].status == OBD_OK && jobs[i].is_right);
    }
}

static inline void all_failed(struct noted_job *jobs, unsigned nr, enum obd_status status, const char *part)
{
    for (unsigned i = 0; i < nr; i++) {
        noted_wait(&jobs[i]);
        if (jobs[i].status != status || strstr(jobs[i].text, part) == NULL)
            fprintf(stderr, "status %d, text \"%s\"\n", jobs[i].status, jobs[i].text);
        CHECK(jobs[i].status == status && strstr(jobs[i].text, part) != NULL);
        CHECK(strstr(jobs[i].text, "secret") == NULL);
    }
}

#endif
