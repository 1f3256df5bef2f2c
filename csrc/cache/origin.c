/* origin: one blob in one repository: what is wanted of it, and whether it can be had.
 *
 * A failure that may pass (busy, cut, unreachable) pauses the whole origin: its jobs
 * have nothing else to try.  The pause doubles with every failure in a row; of the
 * transfers that ran side by side when it began only the first one counts.  Who has
 * less time than the pause is long is not left without a try: the pause ends half-way
 * to his deadline, unless the server asked for it (Retry-After).
 *
 * A refusal drops the resolution and asks Python for another.  One that is refused
 * at once, with the status that the one before it had (401: the two before it), shows
 * that asking does not help; so do many refusals in a row, which catches redirects that
 * go in circles.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "cache/fetch_state.h"

#define FIRST_PAUSE_MS 100u
#define MAX_PAUSE_MS   5000u

/* Python follows a redirect by one step each time; the reference follows eight. */
#define MAX_REFUSALS      8u
#define MAX_SAME_REFUSALS 2u
/* The first 401 asks who we are, the second says that it was not accepted: Python knows
 * whether that was a token that may be renewed or a password that is wrong. */
#define MAX_UNAUTHORIZED 3u

/* ---- opening and closing ------------------------------------------------------- */

static struct origin *new_origin(struct fetcher *fetcher, uint64_t id, uint64_t size, const char *name)
{
    struct origin *origin = calloc(1, sizeof *origin);
    if (origin == NULL || (origin->name = strdup(name)) == NULL) {
        free(origin);
        return NULL;
    }
    origin->fetcher = fetcher;
    origin->id = id;
    origin->size = size;
    origin->nr_references = 1;
    origin->question = (struct obd_resolve){.origin_id = id, .reason = OBD_RESOLVE_FIRST};
    struct list *lists[] = {&origin->submitted, &origin->by_offset, &origin->place, &origin->question_link,
                            &origin->in_fetcher};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        list_init(lists[i]);
    for (int class = 0; class < NR_FETCH_CLASSES; class ++)
        list_init(&origin->pending[class]);
    return origin;
}

struct origin *origin_find(struct fetcher *fetcher, uint64_t id)
{
    for (struct list *link = fetcher->origins.next; link != &fetcher->origins; link = link->next) {
        struct origin *origin = LIST_ENTRY(link, struct origin, in_fetcher);
        if (origin->id == id)
            return origin;
    }
    return NULL;
}

enum obd_status origin_open(struct fetcher *fetcher, uint64_t id, uint64_t size, const char *name, struct origin **out)
{
    struct origin *origin = new_origin(fetcher, id, size, name);
    if (origin == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to fetch from %s", name);
    pthread_mutex_lock(&fetcher->lock);
    bool is_new = origin_find(fetcher, id) == NULL;
    if (is_new) {
        list_append(&fetcher->origins, &origin->in_fetcher);
        fetcher->nr_references++;
    }
    pthread_mutex_unlock(&fetcher->lock);
    if (is_new) {
        *out = origin;
        return OBD_OK;
    }
    free(origin->name);
    free(origin);
    return status_set(OBD_E_INVALID, "%s: there is an origin %llu already", name, (unsigned long long)id);
}

struct origin *origin_ref(struct origin *origin)
{
    pthread_mutex_lock(&origin->fetcher->lock);
    origin->nr_references++;
    pthread_mutex_unlock(&origin->fetcher->lock);
    return origin;
}

static void free_origin(struct origin *origin)
{
    assert(list_is_empty(&origin->by_offset));
    resolve_forget(origin);
    list_remove(&origin->place);
    list_remove(&origin->in_fetcher);
    resolution_drop(origin->resolution);
    free(origin->name);
    free(origin);
}

void origin_unref(struct origin *origin)
{
    struct fetcher *fetcher = origin->fetcher;
    pthread_mutex_lock(&fetcher->lock);
    if (--origin->nr_references > 0) {
        pthread_mutex_unlock(&fetcher->lock);
        return;
    }
    free_origin(origin);
    fetcher_unref_and_unlock(fetcher);
}

uint64_t origin_size(const struct origin *origin)
{
    return origin->size;
}

const char *origin_name(const struct origin *origin)
{
    return origin->name;
}

void origin_stats(struct origin *origin, struct origin_stats *stats)
{
    pthread_mutex_lock(&origin->fetcher->lock);
    *stats = origin->stats;
    pthread_mutex_unlock(&origin->fetcher->lock);
}

/* ---- where it stands ------------------------------------------------------------- */

static void unresolve(struct origin *origin, const struct obd_resolve *question)
{
    list_remove(&origin->place); /* the host it stands at may go with the resolution */
    resolution_drop(origin->resolution);
    origin->resolution = NULL;
    origin->state = ORIGIN_UNRESOLVED;
    origin->question = *question;
    origin->question.origin_id = origin->id;
}

void origin_place(struct origin *origin)
{
    uint64_t now_ns = clock_now_ns();
    list_remove(&origin->place);
    if (list_is_empty(&origin->by_offset))
        return;
    if (origin->state == ORIGIN_RESOLVED && origin->resolution->valid_until_ns <= now_ns)
        unresolve(origin, &(struct obd_resolve){.reason = OBD_RESOLVE_EXPIRED});
    if (origin->state != ORIGIN_RESOLVED)
        resolve_ask(origin);
    else if (origin->resume_ns > now_ns)
        list_append(&origin->fetcher->paused, &origin->place);
    else
        list_append(&origin->resolution->host->ready, &origin->place);
}

void origin_fail_jobs(struct origin *origin, enum obd_status status, const char *reason)
{
    jobs_begin(origin);
    while (!list_is_empty(&origin->by_offset))
        job_fail(LIST_ENTRY(origin->by_offset.next, struct fetch_job, by_offset), status, reason);
}

/* ---- what became of its transfers --------------------------------------------------- */

/* Half of it at random, so that many who failed together do not come back together. */
static uint64_t pause_ns(struct origin *origin)
{
    unsigned doublings = origin->nr_failures < 8 ? origin->nr_failures : 8;
    uint64_t pause = min_u64(MAX_PAUSE_MS, (uint64_t)FIRST_PAUSE_MS << doublings) * NS_PER_MS;
    origin->random = origin->random * 6364136223846793005u + 1442695040888963407u;
    return pause / 2 + (origin->random >> 33) % (pause / 2);
}

void origin_hurry(struct origin *origin, uint64_t deadline_ns)
{
    uint64_t now_ns = clock_now_ns();
    if (origin->is_told_to_wait || deadline_ns <= now_ns)
        return;
    uint64_t half_way_ns = now_ns + max_u64(FIRST_PAUSE_MS * NS_PER_MS, (deadline_ns - now_ns) / 2);
    origin->resume_ns = min_u64(origin->resume_ns, half_way_ns);
}

void origin_failed(struct origin *origin, uint64_t began_pauses, const char *reason, uint32_t retry_after_ms)
{
    snprintf(origin->failure, sizeof origin->failure, "%s", reason);
    if (began_pauses != origin->nr_pauses)
        return;
    uint64_t pause = max_u64(pause_ns(origin), retry_after_ms * NS_PER_MS);
    origin->nr_failures++;
    origin->nr_pauses++;
    origin->resume_ns = clock_now_ns() + pause;
    origin->is_told_to_wait = retry_after_ms > 0;
    for (struct list *link = origin->by_offset.next; link != &origin->by_offset; link = link->next)
        origin_hurry(origin, LIST_ENTRY(link, struct fetch_job, by_offset)->deadline_ns);
}

static bool does_asking_help(struct origin *origin, uint32_t status)
{
    bool is_redirect = status < 400;
    origin->nr_same_refusals = origin->refused_status == status && !is_redirect ? origin->nr_same_refusals + 1 : 1;
    origin->refused_status = status;
    origin->nr_refusals++;
    unsigned max_same = status == 401 ? MAX_UNAUTHORIZED : MAX_SAME_REFUSALS;
    return origin->nr_same_refusals < max_same && origin->nr_refusals < MAX_REFUSALS;
}

void origin_refused(struct origin *origin, const struct resolution *resolution, const struct response *response)
{
    if (resolution != origin->resolution)
        return; /* another transfer was refused before, and Python has been asked */
    struct obd_resolve question = {.reason = OBD_RESOLVE_REFUSED, .http_status = response->status};
    snprintf(question.location, sizeof question.location, "%s", response->location);
    snprintf(question.www_authenticate, sizeof question.www_authenticate, "%s", response->www_authenticate);
    response_describe(response, origin->failure, sizeof origin->failure);
    unresolve(origin, &question);
    if (does_asking_help(origin, response->status))
        return;
    origin->refused_status = 0; /* whoever wants something later has it tried again */
    origin->nr_refusals = 0;
    origin_fail_jobs(origin, OBD_E_UNREACHABLE, origin->failure);
}

void origin_accepted(struct origin *origin)
{
    origin->refused_status = 0;
    origin->nr_refusals = 0;
}

void origin_chunk_came(struct origin *origin)
{
    origin->nr_failures = 0;
    origin->failure[0] = '\0';
}
