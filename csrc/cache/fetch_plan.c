/* fetch_plan: what is fetched next, and how much of it at once.
 *
 * Hosts are independent: each has its own bound, so that one that hangs takes no
 * connection from another.  Within a host
 *
 *   (1) no job begins while a more urgent one of it could
 *   (2) what nobody waits for has at most half of the connections, so that the next
 *       demand job finds one free; a transfer counts as the least urgent job in it
 *   (3) a background job begins only while nothing else runs: all bytes of a narrow
 *       line are for whoever waits
 *   (4) origins take turns; within an origin the oldest job goes first
 *
 * The oldest job is the seed of a range that grows over its neighbours, as far as the
 * host sends in a quarter of a second: who comes to want a byte from the middle of a
 * range that is under way waits for all before it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "cache/fetch_state.h"

#define RANGE_MS         250u
#define RANGE_MIN_BYTES  (1u << 20)   /* however slow the host is: each GET has a price too */
#define SAMPLE_MIN_BYTES (256u << 10) /* less says nothing about the rate */
#define MS_PER_S         1000u

#define JOB_OF(link_)      LIST_ENTRY(link_, struct fetch_job, link)
#define JOB_BY_OFFSET(at_) LIST_ENTRY(at_, struct fetch_job, by_offset)

/* ---- hosts --------------------------------------------------------------------- */

static struct host *find_host(struct fetcher *fetcher, const char *authority)
{
    for (struct list *link = fetcher->hosts.next; link != &fetcher->hosts; link = link->next) {
        struct host *host = LIST_ENTRY(link, struct host, link);
        if (strcmp(host->authority, authority) == 0)
            return host;
    }
    return NULL;
}

static struct host *new_host(struct fetcher *fetcher, const char *authority)
{
    struct host *host = calloc(1, sizeof *host);
    if (host == NULL || (host->authority = strdup(authority)) == NULL) {
        free(host);
        return NULL;
    }
    host->traffic = traffic_of(&fetcher->traffic, authority);
    list_init(&host->ready);
    list_append(&fetcher->hosts, &host->link);
    return host;
}

struct host *host_use(struct fetcher *fetcher, const char *authority)
{
    struct host *host = find_host(fetcher, authority);
    if (host == NULL)
        host = new_host(fetcher, authority);
    if (host != NULL)
        host->nr_users++;
    return host;
}

void host_drop(struct host *host)
{
    if (--host->nr_users > 0)
        return;
    list_remove(&host->link);
    free(host->authority);
    free(host);
}

void host_note_rate(struct host *host, uint64_t bytes, uint64_t elapsed_ns)
{
    if (bytes < SAMPLE_MIN_BYTES)
        return;
    uint64_t rate = bytes * MS_PER_S / (elapsed_ns / NS_PER_MS + 1);
    host->bytes_per_s = host->bytes_per_s == 0 ? rate : (3 * host->bytes_per_s + rate) / 4;
}

static uint64_t longest_range(const struct host *host)
{
    if (host->bytes_per_s == 0)
        return FETCH_MAX_BYTES;
    return min_u64(FETCH_MAX_BYTES, max_u64(RANGE_MIN_BYTES, host->bytes_per_s * RANGE_MS / MS_PER_S));
}

/* ---- a range --------------------------------------------------------------------- */

static uint64_t end_of(const struct fetch_job *job)
{
    return job->offset + job->length;
}

/* May job follow what is in the range, which shall be no longer than longest? */
static bool may_follow(const struct fetch_job *job, const struct fetch_range *range, uint64_t longest,
                       enum fetch_class least)
{
    return job->offset == range->end && end_of(job) - range->begin <= longest && job->partial == NULL &&
           job->class <= least;
}

/* The first of those before job that lead up to it and are as urgent. */
static struct fetch_job *first_of_run(struct fetch_job *job, uint64_t longest)
{
    const struct list *head = &job->origin->by_offset;
    uint64_t end = end_of(job);
    while (job->by_offset.previous != head && job->partial == NULL) {
        struct fetch_job *before = JOB_BY_OFFSET(job->by_offset.previous);
        if (before->class != job->class || end_of(before) != job->offset || end - before->offset > longest)
            break;
        job = before;
    }
    return job;
}

static void take(struct fetch_range *range, struct fetch_job *job)
{
    list_remove(&job->link);
    list_remove(&job->by_offset);
    job->state = FETCH_RUNNING;
    list_append(&range->jobs, &job->link);
    range->end = end_of(job);
    if (job->class > range->class)
        range->class = job->class;
}

static void take_run(struct origin *origin, struct fetch_job *seed, enum fetch_class least, struct fetch_range *range)
{
    uint64_t longest = longest_range(origin->resolution->host);
    struct fetch_job *job = first_of_run(seed, longest);
    struct list *next = job->by_offset.next;
    *range = (struct fetch_range){
        .origin = origin, .resolution = resolution_use(origin->resolution), .begin = job->offset + job->partial_length};
    list_init(&range->jobs);
    take(range, job);
    while (next != &origin->by_offset && may_follow(JOB_BY_OFFSET(next), range, longest, least)) {
        job = JOB_BY_OFFSET(next);
        next = next->next;
        take(range, job);
    }
}

/* ---- which ------------------------------------------------------------------------- */

/* least: the least urgent that may be in the range. */
static bool plan_class(struct host *host, enum fetch_class class, enum fetch_class least, struct fetch_range *range)
{
    for (struct list *place = host->ready.next; place != &host->ready; place = place->next) {
        struct origin *origin = LIST_ENTRY(place, struct origin, place);
        struct list *queue = &origin->pending[class];
        if (list_is_empty(queue))
            continue;
        take_run(origin, JOB_OF(queue->next), least, range);
        origin_place(origin); /* at the end, or nowhere when it has no more */
        return true;
    }
    return false;
}

static bool plan_for_host(struct fetcher *fetcher, struct host *host, struct fetch_range *range)
{
    if (host->nr_running >= fetcher->connections_per_host)
        return false;
    unsigned nr_unasked = host->nr_of_class[FETCH_READ_AHEAD] + host->nr_of_class[FETCH_BACKGROUND];
    if (nr_unasked >= fetcher->connections_per_host / 2)
        return plan_class(host, FETCH_DEMAND, FETCH_DEMAND, range);
    return plan_class(host, FETCH_DEMAND, FETCH_READ_AHEAD, range) ||
           plan_class(host, FETCH_READ_AHEAD, FETCH_READ_AHEAD, range) ||
           (host->nr_running == 0 && plan_class(host, FETCH_BACKGROUND, FETCH_BACKGROUND, range));
}

bool plan_next(struct fetcher *fetcher, struct fetch_range *range)
{
    for (struct list *link = fetcher->hosts.next; link != &fetcher->hosts; link = link->next)
        if (plan_for_host(fetcher, LIST_ENTRY(link, struct host, link), range))
            return true;
    return false;
}
