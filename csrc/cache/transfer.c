/* transfer: one ranged GET.
 *
 * The head is judged before a byte of the body is used (response.h).  The body runs
 * over the jobs of the range in order: bytes gather in chunk until a job has all of
 * its own, and then go to its done at once.  Bytes of a job that was cancelled are
 * skipped.  When the last job is served or gone, the rest is not waited for.
 *
 * What a cut transfer leaves in chunk goes to its job as "partial", and the next
 * transfer begins behind it.
 *
 * The transfer is the thread's own; its list of jobs is guarded by the fetcher's
 * lock, because jobs may be cancelled and expire at any time.  A transfer counts as
 * a reference to its origin.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "cache/fetch_state.h"

/* A refusal may come with a page of text: it is read, so that the connection can be
 * used again, unless it is longer than this. */
#define MAX_IGNORED_BODY (64u << 10)

#define TRANSFER_OF(link_) LIST_ENTRY(link_, struct transfer, link)
#define JOB_OF(link_)      LIST_ENTRY(link_, struct fetch_job, link)

struct transfer {
    CURL *easy;
    struct fetcher *fetcher;
    struct origin *origin;         /* counted */
    struct resolution *resolution; /* counted */
    struct list jobs;              /* what is still wanted, by offset; guarded by the lock */
    struct list link;              /* in fetcher->running */
    bool has_read_ahead;
    uint64_t began_pauses; /* origin->nr_pauses at the start */

    uint64_t begin, end; /* of the range asked for */
    uint64_t at;         /* of the next byte to come */
    uint8_t *chunk;      /* what has come of the job at chunk_offset, or NULL */
    uint64_t chunk_offset;
    uint32_t chunk_length;

    struct response response;
    bool is_judged;
    enum response_verdict verdict;
    uint64_t nr_ignored; /* bytes of a body that is no data */
    uint64_t progress_ns;
    bool is_sent; /* connected, and the request is out */
    bool is_stalled;
    char error[CURL_ERROR_SIZE];
};

struct list *transfer_jobs(struct list *link)
{
    return &TRANSFER_OF(link)->jobs;
}

/* ---- the body -------------------------------------------------------------------- */

/* The job whose bytes come next, as values: it may be cancelled at any time. */
struct next_job {
    uint64_t offset;
    uint32_t length;
};

static bool find_next(struct transfer *transfer, struct next_job *next)
{
    pthread_mutex_lock(&transfer->fetcher->lock);
    bool is_wanted = !list_is_empty(&transfer->jobs);
    if (is_wanted) {
        const struct fetch_job *job = JOB_OF(transfer->jobs.next);
        *next = (struct next_job){job->offset, job->length};
    }
    pthread_mutex_unlock(&transfer->fetcher->lock);
    return is_wanted;
}

static void drop_chunk(struct transfer *transfer)
{
    free(transfer->chunk);
    transfer->chunk = NULL;
    transfer->chunk_length = 0;
}

/* The job whose chunk is complete, out of the transfer; NULL: it was cancelled. */
static struct fetch_job *take_served(struct transfer *transfer)
{
    struct fetch_job *served = NULL;
    pthread_mutex_lock(&transfer->fetcher->lock);
    if (!list_is_empty(&transfer->jobs) && JOB_OF(transfer->jobs.next)->offset == transfer->chunk_offset) {
        served = JOB_OF(transfer->jobs.next);
        job_leave(served);
        transfer->origin->stats.fetched_bytes += served->length;
        origin_chunk_came(transfer->origin);
    }
    pthread_mutex_unlock(&transfer->fetcher->lock);
    return served;
}

static void serve(struct transfer *transfer)
{
    struct fetch_job *job = take_served(transfer);
    if (job != NULL) {
        void *bytes = transfer->chunk; /* given */
        transfer->chunk = NULL;
        job->done(job, OBD_OK, bytes);
        origin_unref(transfer->origin); /* the job's; the transfer has its own */
    }
    drop_chunk(transfer);
}

/* Makes room for the job's bytes; the chunk of a job that is gone is dropped. */
static bool prepare_chunk(struct transfer *transfer, const struct next_job *next)
{
    if (transfer->chunk != NULL && transfer->chunk_offset == next->offset)
        return true;
    drop_chunk(transfer);
    transfer->chunk_offset = next->offset;
    transfer->chunk = malloc(next->length);
    return transfer->chunk != NULL;
}

/* Uses some of the bytes; 0: there is nobody for them, or no memory. */
static size_t take_bytes(struct transfer *transfer, const char *bytes, size_t length)
{
    struct next_job next;
    if (transfer->at >= transfer->end || !find_next(transfer, &next))
        return 0;
    size_t used;
    if (transfer->at < next.offset) { /* of one that was cancelled */
        used = min_u64(length, next.offset - transfer->at);
    } else {
        if (!prepare_chunk(transfer, &next))
            return 0;
        used = min_u64(length, next.length - transfer->chunk_length);
        memcpy(transfer->chunk + transfer->chunk_length, bytes, used);
        transfer->chunk_length += used;
    }
    transfer->at += used;
    if (transfer->chunk != NULL && transfer->chunk_length == next.length)
        serve(transfer);
    return used;
}

static size_t ignore(struct transfer *transfer, size_t length)
{
    transfer->nr_ignored += length;
    return transfer->nr_ignored <= MAX_IGNORED_BODY ? length : 0;
}

/* curl's write callback: anything but length ends the transfer. */
static size_t on_body(char *bytes, size_t one, size_t length, void *argument)
{
    struct transfer *transfer = argument;
    (void)one;
    transfer->progress_ns = clock_now_ns();
    if (!transfer->is_judged || transfer->verdict != RESPONSE_DATA)
        return ignore(transfer, length);
    size_t used = 0, more = 1;
    while (used < length && more > 0) {
        more = take_bytes(transfer, bytes + used, length - used);
        used += more;
    }
    return used;
}

/* ---- the head ---------------------------------------------------------------------- */

static void judge(struct transfer *transfer)
{
    struct origin *origin = transfer->origin;
    transfer->verdict = response_judge(&transfer->response, transfer->begin, transfer->end, origin->size);
    transfer->is_judged = true;
    if (transfer->verdict != RESPONSE_DATA)
        return;
    pthread_mutex_lock(&origin->fetcher->lock);
    origin_accepted(origin);
    pthread_mutex_unlock(&origin->fetcher->lock);
}

static bool is_end_of_head(const char *line, size_t length)
{
    return length == 0 || line[0] == '\r' || line[0] == '\n';
}

/* curl's header callback.  A head that promises something else ends the transfer
 * before its body, which may be a whole blob, is sent. */
static size_t on_head(char *line, size_t one, size_t length, void *argument)
{
    struct transfer *transfer = argument;
    (void)one;
    transfer->progress_ns = clock_now_ns();
    if (!is_end_of_head(line, length)) {
        response_line(&transfer->response, line, length);
        return length;
    }
    if (transfer->response.status < 200) /* interim: the real one follows */
        return length;
    judge(transfer);
    return transfer->verdict == RESPONSE_WRONG ? 0 : length;
}

/* From here on it is the server's turn: until now the connect time-out was in force. */
static int on_sent(void *argument, char *remote, char *local, int remote_port, int local_port)
{
    struct transfer *transfer = argument;
    (void)remote, (void)local, (void)remote_port, (void)local_port;
    transfer->is_sent = true;
    transfer->progress_ns = clock_now_ns();
    return CURL_PREREQFUNC_OK;
}

/* ---- beginning ------------------------------------------------------------------------ */

static CURLcode set_request(struct transfer *transfer)
{
    CURL *easy = transfer->easy;
    char range[64];
    snprintf(range, sizeof range, "%" PRIu64 "-%" PRIu64, transfer->begin, transfer->end - 1);
    CURLcode codes[] = {
        curl_easy_setopt(easy, CURLOPT_URL, transfer->resolution->url),
        curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->resolution->headers),
        curl_easy_setopt(easy, CURLOPT_RANGE, range),
        curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer),
        curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->error),
        curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body),
        curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer),
        curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_head),
        curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer),
        curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_sent),
        curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer),
    };
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (codes[i] != CURLE_OK)
            return codes[i];
    return CURLE_OK;
}

/* The first job may have some of its bytes from an earlier transfer. */
static void take_partial(struct transfer *transfer)
{
    struct fetch_job *first = JOB_OF(transfer->jobs.next);
    transfer->chunk = first->partial;
    transfer->chunk_offset = first->offset;
    transfer->chunk_length = first->partial_length;
    first->partial = NULL;
    first->partial_length = 0;
}

static struct transfer *new_transfer(struct fetcher *fetcher, const struct fetch_range *range)
{
    struct transfer *transfer = calloc(1, sizeof *transfer);
    if (transfer == NULL)
        return NULL;
    transfer->fetcher = fetcher;
    transfer->origin = range->origin;
    transfer->resolution = range->resolution;
    transfer->begin = transfer->at = range->begin;
    transfer->end = range->end;
    transfer->has_read_ahead = range->has_read_ahead;
    transfer->began_pauses = range->origin->nr_pauses;
    transfer->progress_ns = clock_now_ns();
    list_init(&transfer->jobs);
    transfer->easy = transfer_handle_new(fetcher);
    if (transfer->easy != NULL && set_request(transfer) == CURLE_OK &&
        curl_multi_add_handle(fetcher->multi, transfer->easy) == CURLM_OK)
        return transfer;
    curl_easy_cleanup(transfer->easy);
    free(transfer);
    return NULL;
}

static void move_jobs(struct list *from, struct list *to)
{
    struct list *link;
    while ((link = list_pop(from)) != NULL)
        list_append(to, link);
}

static void give_jobs_back(struct list *jobs)
{
    while (!list_is_empty(jobs))
        job_return(JOB_OF(jobs->previous)); /* from the end, as each goes to the head of its queue */
}

void transfer_start(struct fetcher *fetcher, struct fetch_range *range)
{
    struct transfer *transfer = new_transfer(fetcher, range);
    if (transfer == NULL) {
        give_jobs_back(&range->jobs);
        resolution_drop(range->resolution);
        origin_failed(range->origin, range->origin->nr_pauses, "no memory for a request", 0);
        origin_place(range->origin);
        return;
    }
    move_jobs(&range->jobs, &transfer->jobs);
    take_partial(transfer);
    transfer->origin->nr_references++;
    transfer->origin->stats.nr_requests++;
    transfer->resolution->host->nr_running++;
    transfer->resolution->host->nr_read_ahead += transfer->has_read_ahead;
    list_append(&fetcher->running, &transfer->link);
}

/* ---- ending ---------------------------------------------------------------------------- */

/* With the lock held. */
static void keep_partial(struct transfer *transfer)
{
    struct fetch_job *first = JOB_OF(transfer->jobs.next);
    if (transfer->chunk == NULL || first->offset != transfer->chunk_offset || transfer->chunk_length == 0)
        return;
    first->partial = transfer->chunk;
    first->partial_length = transfer->chunk_length;
    transfer->chunk = NULL;
}

static void describe(const struct transfer *transfer, CURLcode code, char *reason, size_t size)
{
    if (transfer->is_stalled)
        snprintf(reason, size, "the server sent nothing for %" PRIu32 " ms", transfer->fetcher->stall_timeout_ms);
    else if (transfer->is_judged && transfer->verdict != RESPONSE_DATA)
        response_describe(&transfer->response, reason, size);
    else if (code == CURLE_OK)
        snprintf(reason, size, "the body ended after %" PRIu64 " of %" PRIu64 " bytes", transfer->at - transfer->begin,
                 transfer->end - transfer->begin);
    else
        snprintf(reason, size, "%s", transfer->error[0] != '\0' ? transfer->error : curl_easy_strerror(code));
}

/* Nothing that waiting mends: the certificate, or our own configuration. */
static bool is_final(CURLcode code)
{
    switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
        return true;
    default:
        return false;
    }
}

/* With the lock held: jobs are left, so something went wrong. */
static void settle(struct transfer *transfer, CURLcode code)
{
    struct origin *origin = transfer->origin;
    char reason[FETCH_REASON_SIZE];
    keep_partial(transfer);
    describe(transfer, code, reason, sizeof reason);
    if (is_final(code))
        while (!list_is_empty(&transfer->jobs))
            job_fail(JOB_OF(transfer->jobs.next), OBD_E_UNREACHABLE, reason);
    give_jobs_back(&transfer->jobs);
    if (transfer->is_judged && transfer->verdict == RESPONSE_REFUSED)
        origin_refused(origin, transfer->resolution, &transfer->response);
    else if (!is_final(code))
        origin_failed(origin, transfer->began_pauses, reason, transfer->response.retry_after_ms);
    origin_place(origin);
}

static void free_transfer(struct transfer *transfer)
{
    struct origin *origin = transfer->origin;
    drop_chunk(transfer);
    curl_easy_cleanup(transfer->easy); /* before the headers, which it borrows */
    pthread_mutex_lock(&transfer->fetcher->lock);
    transfer->resolution->host->nr_running--;
    transfer->resolution->host->nr_read_ahead -= transfer->has_read_ahead;
    resolution_drop(transfer->resolution);
    fetcher_wake(transfer->fetcher); /* a connection is free */
    pthread_mutex_unlock(&transfer->fetcher->lock);
    free(transfer);
    origin_unref(origin);
}

static void end_transfer(struct transfer *transfer, CURLcode code)
{
    struct fetcher *fetcher = transfer->fetcher;
    curl_multi_remove_handle(fetcher->multi, transfer->easy);
    pthread_mutex_lock(&fetcher->lock);
    list_remove(&transfer->link);
    if (!list_is_empty(&transfer->jobs))
        settle(transfer, code);
    pthread_mutex_unlock(&fetcher->lock);
    free_transfer(transfer);
}

void transfer_finish(CURL *easy, CURLcode code)
{
    char *transfer = NULL;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
    end_transfer((struct transfer *)transfer, code);
}

/* ---- those that run ----------------------------------------------------------------------- */

/* Before the request is out curl's connect time-out is in force, and it says more;
 * but a proxy that accepts and does nothing more is not to be waited for twice. */
static uint64_t stalls_at(const struct transfer *transfer)
{
    const struct fetcher *fetcher = transfer->fetcher;
    uint64_t patience_ms = fetcher->stall_timeout_ms + (transfer->is_sent ? 0 : fetcher->connect_timeout_ms);
    return transfer->progress_ns + patience_ms * NS_PER_MS;
}

static bool is_wanted(struct transfer *transfer)
{
    struct next_job next;
    return find_next(transfer, &next);
}

uint64_t transfers_check(struct fetcher *fetcher, uint64_t now_ns)
{
    uint64_t next_ns = NEVER_NS;
    struct list *next;
    for (struct list *link = fetcher->running.next; link != &fetcher->running; link = next) {
        struct transfer *transfer = TRANSFER_OF(link);
        next = link->next;
        transfer->is_stalled = stalls_at(transfer) <= now_ns;
        if (transfer->is_stalled || !is_wanted(transfer))
            end_transfer(transfer, CURLE_OK);
        else
            next_ns = min_u64(next_ns, stalls_at(transfer));
    }
    return next_ns;
}

void transfers_stop(struct fetcher *fetcher)
{
    while (!list_is_empty(&fetcher->running))
        end_transfer(TRANSFER_OF(fetcher->running.next), CURLE_OK);
}
