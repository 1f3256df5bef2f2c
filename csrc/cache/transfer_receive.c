/* transfer_receive: what comes, judged and handed over.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "cache/transfer.h"

/* A refusal may come with a page of text: it is read, so that the connection can be
 * used again, unless it is longer than this. */
#define MAX_IGNORED_BODY (64u << 10)

#define JOB_OF(link_) LIST_ENTRY(link_, struct fetch_job, link)

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

void transfer_drop_chunk(struct transfer *transfer)
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
        transfer->resolution->host->traffic->fetched_bytes += served->length;
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
    transfer_drop_chunk(transfer);
}

/* Makes room for the job's bytes; the chunk of a job that is gone is dropped. */
static bool prepare_chunk(struct transfer *transfer, const struct next_job *next)
{
    if (transfer->chunk != NULL && transfer->chunk_offset == next->offset)
        return true;
    transfer_drop_chunk(transfer);
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
    if (transfer->data_ns == 0) {
        transfer->data_at = transfer->begin + length;
        transfer->data_ns = transfer->progress_ns;
    }
    size_t used = 0, more = 1;
    while (used < length && more > 0) {
        more = take_bytes(transfer, bytes + used, length - used);
        used += more;
    }
    return used;
}

bool transfer_is_wanted(struct transfer *transfer)
{
    struct next_job next;
    return find_next(transfer, &next);
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

CURLcode transfer_receive(struct transfer *transfer)
{
    CURL *easy = transfer->easy;
    CURLcode codes[] = {
        curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body),  curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer),
        curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_head), curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer),
        curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_sent), curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer),
    };
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (codes[i] != CURLE_OK)
            return codes[i];
    return CURLE_OK;
}
