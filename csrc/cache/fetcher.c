/* fetcher: the thread, and what other threads may ask of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cache/fetcher.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/thread.h"
#include "cache/fetch_state.h"

#define DEFAULT_CONNECTIONS        8u
#define DEFAULT_CONNECT_TIMEOUT_MS 10000u
#define DEFAULT_STALL_TIMEOUT_MS   10000u

/* Longest sleep; only so that its length fits the type that curl takes. */
#define MAX_SLEEP_MS 60000u

/* ---- the thread ------------------------------------------------------------------ */

/* Puts back origins whose pause is over; returns when the next one's is. */
static uint64_t resume_origins(struct fetcher *fetcher, uint64_t now_ns)
{
    uint64_t next_ns = NEVER_NS;
    struct list *next;
    for (struct list *link = fetcher->paused.next; link != &fetcher->paused; link = next) {
        struct origin *origin = LIST_ENTRY(link, struct origin, place);
        next = link->next;
        if (origin->resume_ns <= now_ns)
            origin_place(origin);
        else
            next_ns = min_u64(next_ns, origin->resume_ns);
    }
    return next_ns;
}

/* Does what can be done now; returns when time alone gives more to do. */
static uint64_t look(struct fetcher *fetcher)
{
    struct fetch_range range;
    uint64_t now_ns = clock_now_ns();
    uint64_t stall_ns = transfers_check(fetcher, now_ns);
    pthread_mutex_lock(&fetcher->lock);
    fetcher->is_woken = false;
    uint64_t resume_ns = resume_origins(fetcher, now_ns);
    jobs_expire(fetcher, now_ns);
    while (!fetcher->is_closed && plan_next(fetcher, &range))
        transfer_start(fetcher, &range);
    uint64_t next_ns = min_u64(min_u64(stall_ns, resume_ns), fetcher->expire_ns);
    pthread_mutex_unlock(&fetcher->lock);
    return next_ns;
}

static void move_bytes(struct fetcher *fetcher)
{
    int nr_running, nr_left;
    CURLMsg *message;
    curl_multi_perform(fetcher->multi, &nr_running);
    while ((message = curl_multi_info_read(fetcher->multi, &nr_left)) != NULL)
        if (message->msg == CURLMSG_DONE)
            transfer_finish(message->easy_handle, message->data.result);
}

static int sleep_ms(uint64_t until_ns)
{
    uint64_t now_ns = clock_now_ns();
    if (until_ns <= now_ns)
        return 0;
    return (int)min_u64(MAX_SLEEP_MS, (until_ns - now_ns) / NS_PER_MS + 1);
}

static bool is_closed(struct fetcher *fetcher)
{
    pthread_mutex_lock(&fetcher->lock);
    bool is = fetcher->is_closed;
    pthread_mutex_unlock(&fetcher->lock);
    return is;
}

static void cancel_all(struct fetcher *fetcher)
{
    transfers_stop(fetcher);
    pthread_mutex_lock(&fetcher->lock);
    for (struct list *link = fetcher->origins.next; link != &fetcher->origins; link = link->next)
        origin_fail_jobs(LIST_ENTRY(link, struct origin, in_fetcher), OBD_E_CANCELLED, "the fetcher is closed");
    pthread_mutex_unlock(&fetcher->lock);
    jobs_finish(fetcher);
}

static void *fetcher_run(void *argument)
{
    struct fetcher *fetcher = argument;
    while (!is_closed(fetcher)) {
        uint64_t next_ns = look(fetcher);
        move_bytes(fetcher);
        jobs_finish(fetcher);
        /* A wake that comes from here on ends the sleep before it begins. */
        curl_multi_poll(fetcher->multi, NULL, 0, sleep_ms(next_ns), NULL);
    }
    cancel_all(fetcher);
    return NULL;
}

/* ---- opening and closing ------------------------------------------------------------ */

/* False without memory. */
static bool copy_text(char **copy, const char *text)
{
    *copy = text != NULL ? strdup(text) : NULL;
    return (text == NULL) == (*copy == NULL);
}

static bool copy_params(struct fetcher *fetcher, const struct obd_fetcher_params *params)
{
    uint32_t connections = params->connections_per_host ? params->connections_per_host : DEFAULT_CONNECTIONS;
    fetcher->connections_per_host = max_u64(connections, 2); /* one of them never has read-ahead */
    fetcher->connect_timeout_ms = params->connect_timeout_ms ? params->connect_timeout_ms : DEFAULT_CONNECT_TIMEOUT_MS;
    fetcher->stall_timeout_ms = params->stall_timeout_ms ? params->stall_timeout_ms : DEFAULT_STALL_TIMEOUT_MS;
    return copy_text(&fetcher->user_agent, params->user_agent) && copy_text(&fetcher->ca_file, params->ca_file) &&
           copy_text(&fetcher->client_cert, params->client_cert) &&
           copy_text(&fetcher->client_key, params->client_key) && copy_text(&fetcher->proxy, params->proxy);
}

static void free_fetcher(struct fetcher *fetcher)
{
    assert(list_is_empty(&fetcher->hosts) && list_is_empty(&fetcher->running) && list_is_empty(&fetcher->ended));
    if (fetcher->multi != NULL)
        curl_multi_cleanup(fetcher->multi);
    pthread_cond_destroy(&fetcher->asked);
    pthread_mutex_destroy(&fetcher->lock);
    free(fetcher->user_agent);
    free(fetcher->ca_file);
    free(fetcher->client_cert);
    free(fetcher->client_key);
    free(fetcher->proxy);
    free(fetcher);
}

void fetcher_unref_and_unlock(struct fetcher *fetcher)
{
    bool is_last = --fetcher->nr_references == 0;
    pthread_mutex_unlock(&fetcher->lock);
    if (is_last)
        free_fetcher(fetcher);
}

static struct fetcher *new_fetcher(void)
{
    struct fetcher *fetcher = calloc(1, sizeof *fetcher);
    if (fetcher == NULL)
        return NULL;
    pthread_mutex_init(&fetcher->lock, NULL);
    condition_init(&fetcher->asked);
    struct list *lists[] = {&fetcher->origins, &fetcher->hosts,     &fetcher->running,
                            &fetcher->paused,  &fetcher->questions, &fetcher->ended};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        list_init(lists[i]);
    fetcher->expire_ns = NEVER_NS;
    traffic_init(&fetcher->traffic);
    fetcher->nr_references = 1;
    return fetcher;
}

static void start_curl(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

enum obd_status fetcher_open(const struct obd_fetcher_params *params, struct fetcher **out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start_curl);
    struct fetcher *fetcher = new_fetcher();
    if (fetcher == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory for a fetcher");
    enum obd_status status = OBD_OK;
    if (!copy_params(fetcher, params) || (fetcher->multi = curl_multi_init()) == NULL)
        status = status_set(OBD_E_NO_MEMORY, "no memory for a fetcher");
    if (status == OBD_OK)
        status = thread_start("obd-fetcher", fetcher_run, fetcher, &fetcher->thread);
    if (status != OBD_OK) {
        free_fetcher(fetcher);
        return status;
    }
    *out = fetcher;
    return OBD_OK;
}

void fetcher_close(struct fetcher *fetcher)
{
    resolve_close(fetcher);
    pthread_mutex_lock(&fetcher->lock);
    fetcher->is_closed = true;
    fetcher_wake(fetcher);
    pthread_mutex_unlock(&fetcher->lock);
    pthread_join(fetcher->thread, NULL);
    pthread_mutex_lock(&fetcher->lock);
    fetcher_unref_and_unlock(fetcher);
}

/* ---- what other threads ask ----------------------------------------------------------- */

void fetcher_wake(struct fetcher *fetcher)
{
    if (fetcher->is_woken)
        return;
    fetcher->is_woken = true;
    curl_multi_wakeup(fetcher->multi);
}

enum obd_status fetch_submit(struct fetch_job *job)
{
    struct origin *origin = job->origin;
    struct fetcher *fetcher = origin->fetcher;
    assert(job->length > 0 && job->length <= FETCH_MAX_BYTES);
    assert(range_is_inside(job->offset, job->length, origin->size));
    job->partial = NULL;
    job->partial_length = 0;
    job->reason = NULL;
    pthread_mutex_lock(&fetcher->lock);
    bool is_open = !fetcher->is_closed;
    if (is_open) {
        job->state = FETCH_SUBMITTED;
        list_append(&origin->submitted, &job->link);
        origin->nr_references++;
        fetcher->expire_ns = min_u64(fetcher->expire_ns, job->deadline_ns);
    }
    pthread_mutex_unlock(&fetcher->lock);
    return is_open ? OBD_OK : status_set(OBD_E_CANCELLED, "%s: the fetcher is closed", origin->name);
}

void fetch_begin(struct origin *origin)
{
    pthread_mutex_lock(&origin->fetcher->lock);
    if (!list_is_empty(&origin->submitted)) {
        jobs_begin(origin);
        if (!list_is_linked(&origin->place)) /* else it keeps its turn */
            origin_place(origin);
        fetcher_wake(origin->fetcher);
    }
    pthread_mutex_unlock(&origin->fetcher->lock);
}

bool fetch_cancel(struct fetch_job *job)
{
    struct origin *origin = job->origin;
    pthread_mutex_lock(&origin->fetcher->lock);
    bool is_in_time = job->state != FETCH_ENDED;
    bool was_running = job->state == FETCH_RUNNING;
    if (is_in_time)
        job_leave(job);
    if (was_running) /* its transfer may be for nobody now */
        fetcher_wake(origin->fetcher);
    else if (is_in_time)
        origin_place(origin);
    pthread_mutex_unlock(&origin->fetcher->lock);
    if (is_in_time)
        origin_unref(origin);
    return is_in_time;
}

bool fetch_promote(struct fetch_job *job, enum fetch_class class, uint64_t deadline_ns)
{
    struct origin *origin = job->origin;
    pthread_mutex_lock(&origin->fetcher->lock);
    bool is_in_time = job->state != FETCH_ENDED;
    bool was_guess = job->class == FETCH_READ_AHEAD && class == FETCH_DEMAND;
    job->deadline_ns = was_guess ? deadline_ns : max_u64(job->deadline_ns, deadline_ns);
    origin->fetcher->expire_ns = min_u64(origin->fetcher->expire_ns, job->deadline_ns);
    if (class < job->class && job->state == FETCH_PENDING) {
        list_remove(&job->link);
        list_append(&origin->pending[class], &job->link);
        origin_hurry(origin, job->deadline_ns);
    }
    if (class < job->class) {
        job->class = class;
        fetcher_wake(origin->fetcher);
    }
    pthread_mutex_unlock(&origin->fetcher->lock);
    return is_in_time;
}

void fetcher_stats(struct fetcher *fetcher, struct obd_fetcher_stats *stats)
{
    _Static_assert(sizeof stats->hosts == sizeof fetcher->traffic.hosts, "a row for each host");
    _Static_assert(sizeof stats->nr_errors == sizeof fetcher->nr_errors, "one for each status");
    pthread_mutex_lock(&fetcher->lock);
    memcpy(stats->hosts, fetcher->traffic.hosts, sizeof stats->hosts);
    memcpy(stats->nr_errors, fetcher->nr_errors, sizeof stats->nr_errors);
    stats->nr_hosts = fetcher->traffic.nr_hosts;
    pthread_mutex_unlock(&fetcher->lock);
}
