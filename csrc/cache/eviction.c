/* eviction: see eviction.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cache/eviction.h"

#include <assert.h>
#include <stddef.h>

#define MAX_PROTECTED(nr_all) ((nr_all) / 4 * 3)

void eviction_init(struct eviction *eviction)
{
    *eviction = (struct eviction){.nr_probation = 0};
    list_init(&eviction->probation);
    list_init(&eviction->protected);
}

void eviction_enter(struct eviction *eviction, struct resident *resident)
{
    list_append(resident->is_protected ? &eviction->protected : &eviction->probation, &resident->link);
    *(resident->is_protected ? &eviction->nr_protected : &eviction->nr_probation) += 1;
}

void eviction_leave(struct eviction *eviction, struct resident *resident)
{
    list_remove(&resident->link);
    *(resident->is_protected ? &eviction->nr_protected : &eviction->nr_probation) -= 1;
}

static void move(struct eviction *eviction, struct resident *resident, bool is_protected)
{
    eviction_leave(eviction, resident);
    resident->is_protected = is_protected;
    eviction_enter(eviction, resident);
}

/* The head of one queue may go, or moves on without its marks. */
static bool may_go(struct eviction *eviction, struct resident *head)
{
    uint64_t marks = atomic_exchange_explicit(&head->use->marks, 0, memory_order_relaxed);
    if (!head->is_protected && (marks & CHUNK_READ_AGAIN) == 0)
        return true;
    move(eviction, head, marks != 0); /* into protected, round in it, or out of it */
    return false;
}

/* Each chunk may be promoted, go round, be demoted and be found, so this ends unless
 * it is read faster than we look: then any will do. */
struct resident *eviction_victim(struct eviction *eviction)
{
    uint64_t nr_all = eviction->nr_probation + eviction->nr_protected;
    for (uint64_t nr_looks = 0; nr_all > 0; nr_looks++) {
        bool is_too_much = eviction->nr_protected > MAX_PROTECTED(nr_all);
        struct list *queue = is_too_much || eviction->nr_probation == 0 ? &eviction->protected : &eviction->probation;
        struct resident *head = LIST_ENTRY(queue->next, struct resident, link);
        if (may_go(eviction, head) || nr_looks > 4 * nr_all)
            return head;
    }
    return NULL;
}

/* The slices whose first byte is in [begin, end). */
static uint64_t slices_of(uint32_t slice_size, uint32_t begin, uint32_t end)
{
    uint32_t first = (begin + slice_size - 1) / slice_size, last = (end + slice_size - 1) / slice_size;
    return ((UINT64_C(1) << last) - 1) & ~((UINT64_C(1) << first) - 1);
}

void chunk_use_note(struct chunk_use *use, uint32_t chunk_size, uint32_t begin, uint32_t end)
{
    assert(begin < end && end <= chunk_size);
    uint64_t read = slices_of(chunk_size / NR_SLICES, begin, end);
    uint64_t marks = atomic_load_explicit(&use->marks, memory_order_relaxed);
    uint64_t news = (read | ((marks & read) != 0 ? CHUNK_READ_AGAIN : 0)) & ~marks;
    if (news != 0)
        atomic_fetch_or_explicit(&use->marks, news, memory_order_relaxed);
}
