/* fetch_job: a job's way from its origin to done.
 *
 *   submitted --fetch_begin--> pending --transfer_start--> running --last byte--> ended
 *                                 ^                           |
 *                                 +-----(cut, refused)--------+
 *   all --(cancel)--> ended: done is not called
 *   all --(deadline, final error, close)--> ended: done is called
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "cache/fetch_state.h"

#define JOB_OF(link_)      LIST_ENTRY(link_, struct fetch_job, link)
#define JOB_BY_OFFSET(at_) LIST_ENTRY(at_, struct fetch_job, by_offset)

static struct list *queue_of(struct fetch_job *job)
{
    return &job->origin->pending[job->class];
}

/* From the end, where the next chunk of a run belongs. */
static void insert_by_offset(struct fetch_job *job)
{
    struct list *head = &job->origin->by_offset, *before = head->previous;
    while (before != head && JOB_BY_OFFSET(before)->offset > job->offset)
        before = before->previous;
    list_append(before->next, &job->by_offset);
}

void jobs_begin(struct origin *origin)
{
    struct list *link;
    while ((link = list_pop(&origin->submitted)) != NULL) {
        struct fetch_job *job = JOB_OF(link);
        job->state = FETCH_PENDING;
        list_append(queue_of(job), &job->link);
        insert_by_offset(job);
        origin_hurry(origin, job->deadline_ns);
    }
}

void job_return(struct fetch_job *job)
{
    list_remove(&job->link);
    job->state = FETCH_PENDING;
    list_append(queue_of(job)->next, &job->link);
    insert_by_offset(job);
}

void job_leave(struct fetch_job *job)
{
    list_remove(&job->link);
    if (job->state == FETCH_PENDING)
        list_remove(&job->by_offset);
    job->state = FETCH_ENDED;
    free(job->partial);
    job->partial = NULL;
}

void job_fail(struct fetch_job *job, enum obd_status status, const char *reason)
{
    struct origin *origin = job->origin;
    job_leave(job);
    job->status = status;
    job->reason = strdup(reason);
    origin->stats.nr_errors[status]++;
    origin->fetcher->nr_errors[status]++;
    list_append(&origin->fetcher->ended, &job->link);
    fetcher_wake(origin->fetcher);
}

/* What a job whose time is over was waiting for. */
static void expire(struct fetch_job *job)
{
    const struct origin *origin = job->origin;
    if (origin->failure[0] != '\0')
        job_fail(job, OBD_E_UNREACHABLE, origin->failure);
    else if (origin->state != ORIGIN_RESOLVED)
        job_fail(job, OBD_E_TIMEOUT, "where to fetch it from was not found out in time");
    else
        job_fail(job, OBD_E_TIMEOUT, "it did not come in time");
}

static void expire_of_list(struct fetcher *fetcher, struct list *jobs, uint64_t now_ns)
{
    struct list *next;
    for (struct list *link = jobs->next; link != jobs; link = next) {
        struct fetch_job *job = JOB_OF(link);
        next = link->next;
        if (job->deadline_ns <= now_ns)
            expire(job);
        else
            fetcher->expire_ns = min_u64(fetcher->expire_ns, job->deadline_ns);
    }
}

/* All jobs are looked at, but only when the earliest deadline of any that there was
 * at the last look, or came later, is over: about once in the time to live of one. */
void jobs_expire(struct fetcher *fetcher, uint64_t now_ns)
{
    if (now_ns < fetcher->expire_ns)
        return;
    fetcher->expire_ns = NEVER_NS;
    for (struct list *link = fetcher->origins.next; link != &fetcher->origins; link = link->next) {
        struct origin *origin = LIST_ENTRY(link, struct origin, in_fetcher);
        expire_of_list(fetcher, &origin->submitted, now_ns);
        for (int class = 0; class < NR_FETCH_CLASSES; class ++)
            expire_of_list(fetcher, &origin->pending[class], now_ns);
    }
    for (struct list *link = fetcher->running.next; link != &fetcher->running; link = link->next)
        expire_of_list(fetcher, transfer_jobs(link), now_ns);
}

static void finish(struct fetch_job *job)
{
    struct origin *origin = job->origin; /* the job is its owner's again once done is called */
    const char *reason = job->reason != NULL ? job->reason : "no memory for the reason";
    status_set(job->status, "%s: fetching %" PRIu32 " bytes at %" PRIu64 ": %s", origin->name, job->length, job->offset,
               reason);
    free(job->reason);
    job->reason = NULL;
    job->done(job, job->status, NULL);
    origin_unref(origin);
}

void jobs_finish(struct fetcher *fetcher)
{
    struct list *link;
    pthread_mutex_lock(&fetcher->lock);
    while ((link = list_pop(&fetcher->ended)) != NULL) {
        pthread_mutex_unlock(&fetcher->lock);
        finish(JOB_OF(link));
        pthread_mutex_lock(&fetcher->lock);
    }
    pthread_mutex_unlock(&fetcher->lock);
}
