/* demand: collecting, asking and answering.
 *
 * ready may free the demand, so whoever brings nr_waiting to zero calls it last
 * and touches nothing afterwards; until then the count, not the lock, keeps the
 * list of misses alive while it is walked.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "source/demand.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "source/source.h"

#define MISS_OF(link_) LIST_ENTRY(link_, struct miss, link)

void demand_init(struct demand *demand, void (*ready)(struct demand *))
{
    *demand = (struct demand){.ready = ready, .deadline_ns = NEVER_NS, .status = OBD_OK};
    list_init(&demand->misses);
    pthread_mutex_init(&demand->lock, NULL);
}

void demand_destroy(struct demand *demand)
{
    demand_release(demand);
    pthread_mutex_destroy(&demand->lock);
}

/* Newest first: a source notes its chunks one after the other. */
static bool is_noted(const struct demand *demand, const struct source *source, uint64_t chunk)
{
    const struct list *head = &demand->misses;
    for (const struct list *link = head->previous; link != head; link = link->previous) {
        const struct miss *miss = MISS_OF(link);
        if (miss->is_asked)
            return false; /* so are all before it */
        if (miss->source == source && miss->chunk == chunk)
            return true;
    }
    return false;
}

enum obd_status demand_add(struct demand *demand, struct source *source, uint64_t chunk, uint32_t bytes)
{
    demand->provenance.has_missed = true;
    if (is_noted(demand, source, chunk))
        return OBD_E_MISS;
    struct miss *miss = calloc(1, sizeof *miss);
    if (miss == NULL)
        return status_set(OBD_E_NO_MEMORY, "%s: no memory to wait for chunk %llu", source->name,
                          (unsigned long long)chunk);
    *miss = (struct miss){.demand = demand, .source = source_ref(source), .chunk = chunk, .bytes = bytes};
    list_init(&miss->source_link);
    list_append(&demand->misses, &miss->link);
    demand->bytes += bytes;
    return OBD_E_MISS;
}

bool demand_has_brought(const struct demand *demand, const struct source *source, uint64_t first, uint64_t last)
{
    for (const struct list *link = demand->misses.next; link != &demand->misses; link = link->next) {
        const struct miss *miss = MISS_OF(link);
        if (miss->source == source && miss->is_pinned && miss->chunk >= first && miss->chunk <= last)
            return true;
    }
    return false;
}

/* Under the lock, which it drops; calls ready when this was the last. */
static void count_down_and_unlock(struct demand *demand)
{
    assert(demand->nr_waiting > 0);
    bool is_last = --demand->nr_waiting == 0;
    pthread_mutex_unlock(&demand->lock);
    if (is_last)
        demand->ready(demand);
}

/* Under the lock: keeps the first failure. */
static void keep_failure(struct demand *demand, enum obd_status status)
{
    if (demand->status != OBD_OK)
        return;
    demand->status = status;
    demand->text = strdup(status_text()); /* without memory the status has to do */
}

/* Counts what has not been asked for, and one for the asking itself. */
void demand_begin(struct demand *demand)
{
    pthread_mutex_lock(&demand->lock);
    assert(demand->nr_waiting == 0);
    demand->is_starting = true;
    demand->nr_waiting = 1;
    for (struct list *link = demand->misses.next; link != &demand->misses; link = link->next)
        demand->nr_waiting += !MISS_OF(link)->is_asked;
    pthread_mutex_unlock(&demand->lock);
}

/* True when somebody cancelled meanwhile and left the work to us. */
static bool end_start(struct demand *demand)
{
    pthread_mutex_lock(&demand->lock);
    demand->is_starting = false;
    bool is_cancelled = demand->is_cancelled;
    pthread_mutex_unlock(&demand->lock);
    return is_cancelled;
}

static bool is_open(struct demand *demand, const struct miss *miss)
{
    pthread_mutex_lock(&demand->lock);
    bool is = !miss->is_answered;
    pthread_mutex_unlock(&demand->lock);
    return is;
}

/* Takes back every request that is still open.  The caller's own count keeps
 * ready away. */
static void take_back(struct demand *demand)
{
    for (struct list *link = demand->misses.next; link != &demand->misses; link = link->next) {
        struct miss *miss = MISS_OF(link);
        if (is_open(demand, miss) && miss->source->ops->cancel(miss->source, miss))
            demand_arrived(miss, OBD_E_CANCELLED); /* the failure that is kept is the canceller's */
    }
}

/* Asks for what has not been asked for, from first on.  The misses of one source
 * mostly lie together, so each is told to begin about once. */
static void ask_from(struct demand *demand, struct list *first)
{
    for (struct list *link = first; link != &demand->misses; link = link->next) {
        struct miss *miss = MISS_OF(link);
        miss->is_asked = true;
        miss->source->ops->request(miss->source, miss);
        bool is_last = link->next == &demand->misses || MISS_OF(link->next)->source != miss->source;
        if (is_last && miss->source->ops->begin != NULL)
            miss->source->ops->begin(miss->source);
    }
}

static struct list *first_not_asked(struct demand *demand)
{
    struct list *link = demand->misses.next;
    while (link != &demand->misses && MISS_OF(link)->is_asked)
        link = link->next;
    return link;
}

void demand_start(struct demand *demand)
{
    if (!demand->is_starting) /* nobody else writes it before the end of this function */
        demand_begin(demand);
    ask_from(demand, first_not_asked(demand));
    if (end_start(demand))
        take_back(demand);
    pthread_mutex_lock(&demand->lock);
    count_down_and_unlock(demand);
}

void demand_arrived(struct miss *miss, enum obd_status status)
{
    struct demand *demand = miss->demand;
    pthread_mutex_lock(&demand->lock);
    assert(!miss->is_answered);
    miss->is_answered = true;
    miss->is_pinned = status == OBD_OK;
    if (status != OBD_OK)
        keep_failure(demand, status);
    count_down_and_unlock(demand);
}

bool demand_hold(struct demand *demand)
{
    pthread_mutex_lock(&demand->lock);
    bool is_in_time = demand->nr_waiting > 0;
    demand->nr_waiting += is_in_time;
    pthread_mutex_unlock(&demand->lock);
    return is_in_time;
}

void demand_cancel(struct demand *demand, enum obd_status status)
{
    pthread_mutex_lock(&demand->lock);
    keep_failure(demand, status);
    demand->is_cancelled = true;
    bool is_starting = demand->is_starting; /* then a request may not have reached its source yet */
    pthread_mutex_unlock(&demand->lock);
    if (!is_starting)
        take_back(demand);
    pthread_mutex_lock(&demand->lock);
    count_down_and_unlock(demand);
}

void demand_release(struct demand *demand)
{
    assert(demand->nr_waiting == 0);
    for (struct list *link = list_pop(&demand->misses); link != NULL; link = list_pop(&demand->misses)) {
        struct miss *miss = MISS_OF(link);
        if (miss->is_pinned)
            miss->source->ops->release(miss->source, miss->chunk);
        source_unref(miss->source);
        free(miss);
    }
    free(demand->text);
    demand->text = NULL;
    demand->status = OBD_OK;
    demand->is_cancelled = false;
    demand->bytes = 0;
}

enum obd_status demand_status(struct demand *demand)
{
    pthread_mutex_lock(&demand->lock);
    enum obd_status status = demand->status;
    if (status != OBD_OK)
        status_set(status, "%s", demand->text != NULL ? demand->text : "no memory for the reason");
    pthread_mutex_unlock(&demand->lock);
    return status;
}
