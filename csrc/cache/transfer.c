/* transfer: beginning and ending a ranged GET.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cache/transfer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/checked.h"

#define TRANSFER_OF(link_) LIST_ENTRY(link_, struct transfer, link)
#define JOB_OF(link_)      LIST_ENTRY(link_, struct fetch_job, link)

struct list *transfer_jobs(struct list *link)
{
    return &TRANSFER_OF(link)->jobs;
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
        transfer_receive(transfer),
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
    transfer->class = range->class;
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
    transfer->resolution->host->traffic->nr_requests++;
    transfer->resolution->host->nr_running++;
    transfer->resolution->host->nr_of_class[transfer->class]++;
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
    struct obd_host_traffic *traffic = transfer->resolution->host->traffic;
    bool is_refused = transfer->is_judged && transfer->verdict == RESPONSE_REFUSED;
    char reason[FETCH_REASON_SIZE];
    traffic->nr_refused += is_refused;
    traffic->nr_failed += !is_refused;
    keep_partial(transfer);
    describe(transfer, code, reason, sizeof reason);
    if (is_final(code))
        while (!list_is_empty(&transfer->jobs))
            job_fail(JOB_OF(transfer->jobs.next), OBD_E_UNREACHABLE, reason);
    give_jobs_back(&transfer->jobs);
    if (is_refused)
        origin_refused(origin, transfer->resolution, &transfer->response);
    else if (!is_final(code))
        origin_failed(origin, transfer->began_pauses, reason, transfer->response.retry_after_ms);
    origin_place(origin);
}

static void free_transfer(struct transfer *transfer)
{
    struct origin *origin = transfer->origin;
    transfer_drop_chunk(transfer);
    curl_easy_cleanup(transfer->easy); /* before the headers, which it borrows */
    pthread_mutex_lock(&transfer->fetcher->lock);
    struct host *host = transfer->resolution->host;
    host->nr_running--;
    host->nr_of_class[transfer->class]--;
    if (transfer->data_ns != 0 && transfer->at > transfer->data_at)
        host_note_rate(host, transfer->at - transfer->data_at, transfer->progress_ns - transfer->data_ns);
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

uint64_t transfers_check(struct fetcher *fetcher, uint64_t now_ns)
{
    uint64_t next_ns = NEVER_NS;
    struct list *next;
    for (struct list *link = fetcher->running.next; link != &fetcher->running; link = next) {
        struct transfer *transfer = TRANSFER_OF(link);
        next = link->next;
        transfer->is_stalled = stalls_at(transfer) <= now_ns;
        if (transfer->is_stalled || !transfer_is_wanted(transfer))
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
