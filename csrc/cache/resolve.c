/* resolve: questions to Python: where, and with which headers, is an origin fetched now?
 *
 *   resolve_ask --> questions --resolve_next--> asked --reply, fail--> resolved, jobs ended
 *
 * A question that was taken and not answered for ANSWER_PATIENCE_MS is asked again
 * when something wants the origin: whoever took it may have died.  A late answer is
 * as good as any.
 *
 * URL and headers may hold secrets: they are given to curl and shown to nobody.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE /* asprintf */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "cache/fetch_state.h"

#define ANSWER_PATIENCE_MS 60000u

/* ---- asking --------------------------------------------------------------------- */

static bool is_forgotten(const struct origin *origin)
{
    return clock_now_ns() - origin->asked_ns > ANSWER_PATIENCE_MS * NS_PER_MS;
}

void resolve_ask(struct origin *origin)
{
    struct fetcher *fetcher = origin->fetcher;
    if (fetcher->is_resolve_closed) {
        origin_fail_jobs(origin, OBD_E_CANCELLED, "nobody finds out any more where to fetch it from");
        return;
    }
    if (origin->state == ORIGIN_QUEUED || (origin->state == ORIGIN_ASKED && !is_forgotten(origin)))
        return;
    origin->state = ORIGIN_QUEUED;
    list_append(&fetcher->questions, &origin->question_link);
    pthread_cond_signal(&fetcher->asked);
}

void resolve_forget(struct origin *origin)
{
    list_remove(&origin->question_link);
}

enum obd_status resolve_next(struct fetcher *fetcher, struct obd_resolve *question, uint64_t deadline_ns)
{
    bool is_in_time = true;
    pthread_mutex_lock(&fetcher->lock);
    while (list_is_empty(&fetcher->questions) && !fetcher->is_resolve_closed && is_in_time)
        is_in_time = condition_wait(&fetcher->asked, &fetcher->lock, deadline_ns);
    bool is_closed = fetcher->is_resolve_closed;
    struct list *link = is_closed ? NULL : list_pop(&fetcher->questions);
    if (link != NULL) {
        struct origin *origin = LIST_ENTRY(link, struct origin, question_link);
        origin->state = ORIGIN_ASKED;
        origin->asked_ns = clock_now_ns();
        *question = origin->question;
    }
    pthread_mutex_unlock(&fetcher->lock);
    if (link != NULL)
        return OBD_OK;
    return is_closed ? status_set(OBD_E_CLOSED, "the fetcher is closed")
                     : status_set(OBD_E_TIMEOUT, "no origin needs a resolution");
}

void resolve_close(struct fetcher *fetcher)
{
    pthread_mutex_lock(&fetcher->lock);
    fetcher->is_resolve_closed = true;
    struct list *link;
    while ((link = list_pop(&fetcher->questions)) != NULL) {
        struct origin *origin = LIST_ENTRY(link, struct origin, question_link);
        origin->state = ORIGIN_UNRESOLVED;
        origin_place(origin); /* which fails its jobs */
    }
    pthread_cond_broadcast(&fetcher->asked);
    pthread_mutex_unlock(&fetcher->lock);
}

/* ---- resolutions ------------------------------------------------------------------- */

struct resolution *resolution_use(struct resolution *resolution)
{
    resolution->nr_users++;
    return resolution;
}

void resolution_drop(struct resolution *resolution)
{
    if (resolution == NULL || --resolution->nr_users > 0)
        return;
    if (resolution->host != NULL)
        host_drop(resolution->host);
    curl_slist_free_all(resolution->headers);
    free(resolution->url);
    free(resolution);
}

/* "https://name:port" of a URL; NULL when it is none that we fetch. */
static char *authority_of(const char *url)
{
    char *parts[3] = {NULL, NULL, NULL}, *authority = NULL;
    CURLU *parsed = curl_url();
    bool is_good = parsed != NULL && curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK &&
                   curl_url_get(parsed, CURLUPART_SCHEME, &parts[0], 0) == CURLUE_OK &&
                   curl_url_get(parsed, CURLUPART_HOST, &parts[1], 0) == CURLUE_OK &&
                   curl_url_get(parsed, CURLUPART_PORT, &parts[2], CURLU_DEFAULT_PORT) == CURLUE_OK;
    if (is_good && (strcmp(parts[0], "http") == 0 || strcmp(parts[0], "https") == 0))
        if (asprintf(&authority, "%s://%s:%s", parts[0], parts[1], parts[2]) < 0)
            authority = NULL;
    for (int i = 0; i < 3; i++)
        curl_free(parts[i]);
    curl_url_cleanup(parsed);
    return authority;
}

static bool is_header(const char *line, size_t length)
{
    const char *colon = memchr(line, ':', length);
    if (colon == NULL || colon == line)
        return false;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)line[i] < ' ' && line[i] != '\t')
            return false; /* a line end in a token would begin a header of its own */
    return true;
}

/* False: a line that is no header, or no memory. */
static bool add_headers(struct resolution *resolution, const char *lines)
{
    while (lines != NULL && *lines != '\0') {
        size_t length = strcspn(lines, "\n");
        char *line = is_header(lines, length) ? strndup(lines, length) : NULL;
        struct curl_slist *longer = line != NULL ? curl_slist_append(resolution->headers, line) : NULL;
        free(line);
        if (longer == NULL)
            return false;
        resolution->headers = longer;
        lines += length + (lines[length] == '\n');
    }
    return true;
}

static struct resolution *new_resolution(struct fetcher *fetcher, const struct obd_resolve_reply *reply)
{
    struct resolution *resolution = calloc(1, sizeof *resolution);
    if (resolution == NULL)
        return NULL;
    resolution->nr_users = 1;
    resolution->valid_until_ns = reply->valid_ms > 0 ? clock_now_ns() + reply->valid_ms * NS_PER_MS : NEVER_NS;
    char *authority = authority_of(reply->url);
    bool is_good = authority != NULL && (resolution->url = strdup(reply->url)) != NULL &&
                   add_headers(resolution, reply->headers) && (resolution->host = host_use(fetcher, authority)) != NULL;
    free(authority);
    if (is_good)
        return resolution;
    resolution_drop(resolution);
    return NULL;
}

/* ---- answers ------------------------------------------------------------------------ */

static void adopt(struct origin *origin, struct resolution *resolution)
{
    resolve_forget(origin);
    list_remove(&origin->place); /* the host it stands at may go with the old one */
    resolution_drop(origin->resolution);
    origin->resolution = resolution;
    origin->state = ORIGIN_RESOLVED;
    origin_place(origin);
    fetcher_wake(origin->fetcher);
}

enum obd_status resolve_reply(struct fetcher *fetcher, const struct obd_resolve_reply *reply)
{
    enum obd_status status = OBD_OK;
    pthread_mutex_lock(&fetcher->lock);
    struct origin *origin = origin_find(fetcher, reply->origin_id);
    struct resolution *resolution = origin != NULL ? new_resolution(fetcher, reply) : NULL;
    if (origin == NULL)
        status = status_set(OBD_E_NOT_FOUND, "there is no origin %" PRIu64, reply->origin_id);
    else if (resolution == NULL)
        status = status_set(OBD_E_INVALID, "%s: not an http or https URL, or not headers", origin->name);
    else
        adopt(origin, resolution);
    pthread_mutex_unlock(&fetcher->lock);
    return status;
}

enum obd_status resolve_fail(struct fetcher *fetcher, uint64_t origin_id, enum obd_status status, const char *text)
{
    pthread_mutex_lock(&fetcher->lock);
    struct origin *origin = origin_find(fetcher, origin_id);
    if (origin != NULL) {
        resolve_forget(origin);
        origin->state = ORIGIN_UNRESOLVED;
        origin_accepted(origin); /* there is no row of refusals any more */
        origin_fail_jobs(origin, status, text);
    }
    pthread_mutex_unlock(&fetcher->lock);
    return origin != NULL ? OBD_OK : status_set(OBD_E_NOT_FOUND, "there is no origin %" PRIu64, origin_id);
}
