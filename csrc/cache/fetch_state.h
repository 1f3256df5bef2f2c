/* fetch_state: what the files of the fetcher share: its thread, origins, hosts, transfers.
 *
 *   fetcher --+-- thread: curl, all transfers, all calls of done     (fetcher.c)
 *             +-- origins: a blob's jobs and where it is fetched     (origin.c, resolve.c)
 *             +-- hosts: how many transfers each has                 (fetch_plan.c)
 *             +-- running: transfers                                 (transfer.c)
 *             +-- ended: jobs whose done is to be called             (fetch_job.c)
 *
 * An origin that has jobs stands in one place, where origin_place puts it:
 *
 *   unresolved --asked--> questions --Python takes it--> (waits) --reply--> resolved
 *   resolved: in paused until resume_ns, else in ready of its host
 *
 * lock guards everything here but what is marked as the thread's own; it is never
 * held while done is called, nor while curl works.  Other threads submit, cancel,
 * promote and answer questions under the lock and wake the thread; only the thread
 * calls curl and done.
 *
 * Lifetimes: the fetcher's memory lives until it is closed and its last origin is
 * gone; an origin, until its last reference, of which every job not done is one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_FETCH_STATE_H
#define OBD_CACHE_FETCH_STATE_H

#include <curl/curl.h>
#include <pthread.h>

#include "base/clock.h"
#include "cache/fetcher.h"
#include "cache/response.h"
#include "cache/traffic.h"

/* Longest reason kept, with its NUL. */
#define FETCH_REASON_SIZE 256

/* ---- fetcher.c ------------------------------------------------------------- */

struct fetcher {
    char *user_agent, *ca_file, *client_cert, *client_key, *proxy; /* constant, as all of this group */
    unsigned connections_per_host;
    uint32_t connect_timeout_ms;
    uint32_t stall_timeout_ms;

    CURLM *multi; /* the thread's own, but for curl_multi_wakeup */
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t asked; /* there is a question, or there will be none any more */
    struct list origins;  /* all, by in_fetcher */
    struct list hosts;
    struct list running;   /* transfers */
    struct list paused;    /* origins, by place */
    struct list questions; /* origins, by question_link */
    struct list ended;     /* jobs */
    uint64_t expire_ns;    /* no job's deadline is earlier */
    struct traffic traffic;
    uint64_t nr_errors[OBD_NR_STATUS]; /* jobs that failed */
    unsigned nr_references;
    bool is_woken; /* something changed since the thread last looked */
    bool is_closed;
    bool is_resolve_closed;
};

/* With the lock held: the thread shall look again, soon. */
void fetcher_wake(struct fetcher *fetcher);
void fetcher_unref_and_unlock(struct fetcher *fetcher);

/* ---- fetch_job.c: with the lock held, but for the last ----------------------- */

void jobs_begin(struct origin *origin); /* what was submitted is pending from now on */
void job_return(struct fetch_job *job); /* out of a transfer, to the head of the queue */
void job_leave(struct fetch_job *job);  /* out of its origin or transfer; state is FETCH_ENDED */
/* Leaves, and done will be called with status; reason is what went wrong. */
void job_fail(struct fetch_job *job, enum obd_status status, const char *reason);
/* Fails those whose deadline has passed, and finds the next deadline. */
void jobs_expire(struct fetcher *fetcher, uint64_t now_ns);
/* With no lock held, on the thread: calls done of all that have ended. */
void jobs_finish(struct fetcher *fetcher);

/* ---- origin.c: with the lock held -------------------------------------------- */

/* A URL that worked, or may work; shared with the transfers that use it. */
struct resolution {
    char *url;
    struct curl_slist *headers;
    struct host *host; /* counted */
    uint64_t valid_until_ns;
    unsigned nr_users;
};

enum origin_state {
    ORIGIN_UNRESOLVED,
    ORIGIN_QUEUED, /* in questions */
    ORIGIN_ASKED,  /* Python has the question */
    ORIGIN_RESOLVED
};

struct origin {
    struct fetcher *fetcher;
    uint64_t id;
    uint64_t size;
    char *name;
    unsigned nr_references;
    struct list in_fetcher;

    enum origin_state state;
    struct obd_resolve question;   /* what to ask when it is to be resolved */
    struct list question_link;     /* queued: in fetcher->questions */
    uint64_t asked_ns;             /* asked: since when */
    struct resolution *resolution; /* resolved */
    uint32_t refused_status;       /* of the last answer, if that was a refusal; else 0 */
    unsigned nr_refusals;          /* in a row */
    unsigned nr_same_refusals;     /* of them, the last ones with refused_status */

    struct list submitted;                 /* jobs that shall begin together */
    struct list pending[NR_FETCH_CLASSES]; /* jobs, oldest first */
    struct list by_offset;                 /* all of them, by offset */
    struct list place;                     /* in host->ready or fetcher->paused */

    uint64_t resume_ns;              /* paused until then */
    bool is_told_to_wait;            /* that long, by the server */
    unsigned nr_failures;            /* in a row */
    uint64_t nr_pauses;              /* ever */
    uint64_t random;                 /* for the next pause */
    char failure[FETCH_REASON_SIZE]; /* the last, "" when a chunk has come since */
    struct origin_stats stats;
};

/* Puts the origin where its jobs and its state say. */
void origin_place(struct origin *origin);
/* A transfer with this resolution failed; it was begun after began_pauses pauses. */
void origin_failed(struct origin *origin, uint64_t began_pauses, const char *reason, uint32_t retry_after_ms);
/* Somebody has time until then only: the pause shall not be all of it. */
void origin_hurry(struct origin *origin, uint64_t deadline_ns);
/* A transfer with this resolution was refused. */
void origin_refused(struct origin *origin, const struct resolution *resolution, const struct response *response);
/* The server sends what was asked for: its resolution works. */
void origin_accepted(struct origin *origin);
/* A whole chunk has come: the server works. */
void origin_chunk_came(struct origin *origin);
struct origin *origin_find(struct fetcher *fetcher, uint64_t id); /* NULL: none */
/* All pending jobs fail. */
void origin_fail_jobs(struct origin *origin, enum obd_status status, const char *reason);

/* ---- resolve.c: with the lock held -------------------------------------------- */

/* Python shall be asked, if it has not been. */
void resolve_ask(struct origin *origin);
void resolve_forget(struct origin *origin); /* out of the queue */
struct resolution *resolution_use(struct resolution *resolution);
void resolution_drop(struct resolution *resolution); /* NULL is fine */

/* ---- fetch_plan.c: with the lock held ------------------------------------------ */

struct host {
    char *authority;                  /* scheme://name:port */
    struct obd_host_traffic *traffic; /* in fetcher->traffic */
    unsigned nr_users;
    unsigned nr_running;                    /* transfers */
    unsigned nr_of_class[NR_FETCH_CLASSES]; /* of them, by the least urgent job that they began with */
    uint64_t bytes_per_s;                   /* of one transfer, lately; 0: not known yet */
    struct list ready;                      /* origins, by place, in turn */
    struct list link;
};

/* The host with that authority, counted; NULL without memory. */
struct host *host_use(struct fetcher *fetcher, const char *authority);
void host_drop(struct host *host);
/* A transfer has brought bytes in that time, its wait for the first of them not counted. */
void host_note_rate(struct host *host, uint64_t bytes, uint64_t elapsed_ns);

/* A run of jobs, side by side. */
struct fetch_range {
    struct origin *origin;
    struct resolution *resolution; /* counted */
    struct list jobs;
    uint64_t begin; /* behind what has come of the first */
    uint64_t end;
    enum fetch_class class; /* the least urgent in it */
};

/* Takes the next range that may be fetched now out of its origin; false: none may. */
bool plan_next(struct fetcher *fetcher, struct fetch_range *range);

/* ---- transfer.c (transfer.h): on the thread -------------------------------------------------- */

struct transfer;

/* With the lock held.  Takes the range's jobs, and its use of the resolution. */
void transfer_start(struct fetcher *fetcher, struct fetch_range *range);
/* With no lock held: curl is done with the request. */
void transfer_finish(CURL *easy, CURLcode code);
/* Ends transfers that nobody wants any more, or of which no byte has come for too
 * long; returns when to look again. */
uint64_t transfers_check(struct fetcher *fetcher, uint64_t now_ns);
void transfers_stop(struct fetcher *fetcher);  /* all of them; their jobs go back */
struct list *transfer_jobs(struct list *link); /* of the transfer that is linked so in running */

/* ---- transfer_options.c ----------------------------------------------------------- */

/* All options that are the same for every request.  NULL without memory. */
CURL *transfer_handle_new(const struct fetcher *fetcher);

#endif
