/* slow: another source, chunk by chunk and late; in the test build only.
 *
 *   absent --(asked for)--> asked --(delay)--> present --(unpinned for keep_ms)--> absent
 *
 * It stands for a registry: the first read of a chunk misses, the chunk comes a
 * while after it was asked for, and is forgotten when nobody has needed it for a
 * while.  One thread per source is its clock.
 *
 * lock guards all that is not constant; it is dropped before demand_arrived(),
 * because what is ready then may read from us, or let go of its last reference.
 * That is why destroy may run on the source's own thread, which then frees the
 * source itself, after its loop.
 *
 * Both delays are the same for all chunks, so both lists are in order of due_ns.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifdef OBD_TEST_BUILD

#define _GNU_SOURCE /* pthread_cond_clockwait */
#include <pthread.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/thread.h"
#include "source/source.h"

enum chunk_state { CHUNK_ABSENT, CHUNK_ASKED, CHUNK_PRESENT };

struct slow_chunk {
    enum chunk_state state;
    unsigned nr_pins;
    uint64_t due_ns;     /* asked: when it comes; idle: when it is forgotten */
    struct list link;    /* in asked or idle */
    struct list waiters; /* misses, by source_link */
};

struct slow {
    struct source source; /* first */
    struct source *below; /* referenced */
    uint32_t chunk_size;
    uint32_t delay_ms;
    uint32_t keep_ms;
    atomic_bool is_late; /* false: reads go through, as if everything were here */
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct list asked;
    struct list idle; /* present, neither pinned nor waited for */
    bool is_closing;
    bool is_orphan; /* the thread frees us */
    struct slow_chunk chunks[];
};

static uint64_t due_after(uint32_t delay_ms)
{
    return delay_ms == OBD_SLOW_NEVER ? NEVER_NS : clock_deadline_ns(delay_ms);
}

static void free_slow(struct slow *slow)
{
    source_unref(slow->below);
    pthread_cond_destroy(&slow->changed);
    pthread_mutex_destroy(&slow->lock);
    free(slow);
}

/* ---- the life of a chunk; all under the lock ------------------------------- */

static void become_asked(struct slow *slow, struct slow_chunk *chunk)
{
    chunk->state = CHUNK_ASKED;
    chunk->due_ns = due_after(slow->delay_ms);
    list_append(&slow->asked, &chunk->link);
    pthread_cond_signal(&slow->changed);
}

/* A present chunk that nobody needs any more begins to age. */
static void become_idle(struct slow *slow, struct slow_chunk *chunk)
{
    if (chunk->state != CHUNK_PRESENT || chunk->nr_pins > 0 || !list_is_empty(&chunk->waiters) ||
        list_is_linked(&chunk->link))
        return;
    chunk->due_ns = due_after(slow->keep_ms);
    list_append(&slow->idle, &chunk->link);
    pthread_cond_signal(&slow->changed);
}

static void pin(struct slow_chunk *chunk)
{
    chunk->nr_pins++;
    if (list_is_linked(&chunk->link)) /* it was idle */
        list_remove(&chunk->link);
}

/* Answers one waiter of a present chunk, with the lock dropped around it. */
static void answer_next(struct slow *slow, struct slow_chunk *chunk)
{
    struct miss *miss = LIST_ENTRY(list_pop(&chunk->waiters), struct miss, source_link);
    pin(chunk);
    pthread_mutex_unlock(&slow->lock);
    demand_arrived(miss, OBD_OK);
    pthread_mutex_lock(&slow->lock);
}

static void arrive(struct slow *slow, struct slow_chunk *chunk)
{
    list_remove(&chunk->link);
    chunk->state = CHUNK_PRESENT;
    while (chunk->state == CHUNK_PRESENT && !list_is_empty(&chunk->waiters))
        answer_next(slow, chunk);
    become_idle(slow, chunk);
}

static void forget(struct slow_chunk *chunk)
{
    list_remove(&chunk->link);
    chunk->state = CHUNK_ABSENT;
}

/* ---- the clock --------------------------------------------------------------- */

static struct slow_chunk *first_due(struct list *list, uint64_t now)
{
    if (list_is_empty(list))
        return NULL;
    struct slow_chunk *chunk = LIST_ENTRY(list->next, struct slow_chunk, link);
    return chunk->due_ns <= now ? chunk : NULL;
}

static uint64_t next_due_ns(const struct list *list)
{
    return list_is_empty(list) ? NEVER_NS : LIST_ENTRY(list->next, struct slow_chunk, link)->due_ns;
}

static void run_until_closed(struct slow *slow)
{
    while (!slow->is_closing) {
        uint64_t now = clock_now_ns();
        struct slow_chunk *chunk;
        if ((chunk = first_due(&slow->asked, now)) != NULL) {
            arrive(slow, chunk);
        } else if ((chunk = first_due(&slow->idle, now)) != NULL) {
            forget(chunk);
        } else {
            struct timespec until = clock_timespec(min_u64(next_due_ns(&slow->asked), next_due_ns(&slow->idle)));
            pthread_cond_clockwait(&slow->changed, &slow->lock, CLOCK_MONOTONIC, &until);
        }
    }
}

static void *clock_main(void *argument)
{
    struct slow *slow = argument;
    pthread_mutex_lock(&slow->lock);
    run_until_closed(slow);
    bool is_orphan = slow->is_orphan;
    pthread_mutex_unlock(&slow->lock);
    if (is_orphan)
        free_slow(slow);
    return NULL;
}

/* ---- what a source does --------------------------------------------------------- */

static uint32_t chunk_length(const struct slow *slow, uint64_t number)
{
    return (uint32_t)min_u64(slow->chunk_size, slow->source.size - number * slow->chunk_size);
}

static enum obd_status note_absent(struct slow *slow, struct demand *demand, uint64_t first, uint64_t last)
{
    enum obd_status status = OBD_OK;
    pthread_mutex_lock(&slow->lock);
    for (uint64_t number = first; number <= last && (status == OBD_OK || status == OBD_E_MISS); number++)
        if (slow->chunks[number].state != CHUNK_PRESENT)
            status = demand_add(demand, &slow->source, number, chunk_length(slow, number));
    pthread_mutex_unlock(&slow->lock);
    return status;
}

static enum obd_status slow_read(struct source *source, const struct read_context *context, struct iov_cursor *cursor,
                                 size_t length, uint64_t offset)
{
    struct slow *slow = (struct slow *)source;
    uint64_t first = offset / slow->chunk_size, last = (offset + length - 1) / slow->chunk_size;
    enum obd_status status = OBD_OK;
    if (atomic_load(&slow->is_late))
        status = note_absent(slow, context->demand, first, last);
    return status == OBD_OK ? source_read(slow->below, context, cursor, length, offset) : status;
}

static void slow_request(struct source *source, struct miss *miss)
{
    struct slow *slow = (struct slow *)source;
    struct slow_chunk *chunk = &slow->chunks[miss->chunk];
    pthread_mutex_lock(&slow->lock);
    list_append(&chunk->waiters, &miss->source_link);
    if (chunk->state == CHUNK_ABSENT)
        become_asked(slow, chunk);
    else if (chunk->state == CHUNK_PRESENT && chunk->waiters.next == &miss->source_link)
        answer_next(slow, chunk);
    pthread_mutex_unlock(&slow->lock);
}

static bool slow_cancel(struct source *source, struct miss *miss)
{
    struct slow *slow = (struct slow *)source;
    pthread_mutex_lock(&slow->lock);
    bool is_waiting = list_is_linked(&miss->source_link);
    if (is_waiting)
        list_remove(&miss->source_link);
    pthread_mutex_unlock(&slow->lock);
    return is_waiting;
}

static void slow_release(struct source *source, uint64_t number)
{
    struct slow *slow = (struct slow *)source;
    struct slow_chunk *chunk = &slow->chunks[number];
    pthread_mutex_lock(&slow->lock);
    chunk->nr_pins--;
    become_idle(slow, chunk);
    pthread_mutex_unlock(&slow->lock);
}

static enum obd_status slow_discard(struct source *source, uint64_t offset, uint64_t length)
{
    struct slow *slow = (struct slow *)source;
    pthread_mutex_lock(&slow->lock);
    for (uint64_t number = offset / slow->chunk_size; number * slow->chunk_size < offset + length; number++)
        if (slow->chunks[number].state == CHUNK_PRESENT)
            forget(&slow->chunks[number]);
    pthread_mutex_unlock(&slow->lock);
    return OBD_OK;
}

/* No request is open and nothing is pinned: a miss holds a reference. */
static void slow_destroy(struct source *source)
{
    struct slow *slow = (struct slow *)source;
    bool is_own_thread = pthread_equal(pthread_self(), slow->thread);
    pthread_mutex_lock(&slow->lock);
    slow->is_closing = true;
    slow->is_orphan = is_own_thread;
    pthread_cond_signal(&slow->changed);
    pthread_mutex_unlock(&slow->lock);
    if (is_own_thread) {
        pthread_detach(slow->thread);
        return;
    }
    pthread_join(slow->thread, NULL);
    free_slow(slow);
}

static const struct source_ops slow_ops = {.kind = "slow",
                                           .read = slow_read,
                                           .request = slow_request,
                                           .cancel = slow_cancel,
                                           .release = slow_release,
                                           .discard = slow_discard,
                                           .destroy = slow_destroy};

static struct slow *new_slow(struct source *below, uint32_t chunk_size, uint32_t delay_ms, uint32_t keep_ms)
{
    size_t nr_chunks = below->size / chunk_size + 1;
    struct slow *slow = malloc(sizeof *slow + nr_chunks * sizeof slow->chunks[0]);
    if (slow == NULL)
        return NULL;
    *slow = (struct slow){.chunk_size = chunk_size, .delay_ms = delay_ms, .keep_ms = keep_ms, .is_late = true};
    for (size_t i = 0; i < nr_chunks; i++) {
        slow->chunks[i] = (struct slow_chunk){.state = CHUNK_ABSENT};
        list_init(&slow->chunks[i].link);
        list_init(&slow->chunks[i].waiters);
    }
    pthread_mutex_init(&slow->lock, NULL);
    pthread_cond_init(&slow->changed, NULL);
    list_init(&slow->asked);
    list_init(&slow->idle);
    slow->below = source_ref(below);
    return slow;
}

enum obd_status source_open_slow(struct source *below, uint32_t chunk_size, uint32_t delay_ms, uint32_t keep_ms,
                                 struct source **out)
{
    if (chunk_size == 0)
        return status_set(OBD_E_INVALID, "a slow source needs a chunk size");
    struct slow *slow = new_slow(below, chunk_size, delay_ms, keep_ms);
    if (slow == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory for a slow source");
    enum obd_status status = source_init(&slow->source, &slow_ops, below->size, below->name);
    if (status != OBD_OK) {
        free_slow(slow);
        return status;
    }
    status = thread_start("obd-slow", clock_main, slow, &slow->thread);
    if (status != OBD_OK) {
        free(slow->source.name);
        free_slow(slow);
        return status;
    }
    *out = &slow->source;
    return OBD_OK;
}

enum obd_status source_set_late(struct source *source, bool is_late)
{
    if (source->ops != &slow_ops)
        return status_set(OBD_E_INVALID, "%s is no slow source", source->name);
    atomic_store(&((struct slow *)source)->is_late, is_late);
    return OBD_OK;
}

#endif
