/* suspects: see suspects.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "source/suspects.h"

#include <stddef.h>

void suspects_init(struct suspects *suspects)
{
    *suspects = (struct suspects){0};
    pthread_mutex_init(&suspects->lock, NULL);
}

void suspects_destroy(struct suspects *suspects)
{
    pthread_mutex_destroy(&suspects->lock);
}

/* These are called under the lock. */

static struct suspect *find(struct suspects *suspects, uint64_t block)
{
    for (int i = 0; i < NR_SUSPECTS; i++)
        if (suspects->places[i].nr_discards > 0 && suspects->places[i].block == block)
            return &suspects->places[i];
    return NULL;
}

static void let_go(struct suspects *suspects, struct suspect *suspect)
{
    suspect->nr_discards = 0;
    atomic_fetch_sub(&suspects->nr, 1);
}

static struct suspect *take_place(struct suspects *suspects, uint64_t block, uint64_t now_ns)
{
    for (int i = 0; i < NR_SUSPECTS; i++) {
        struct suspect *place = &suspects->places[i];
        if (place->nr_discards > 0 && now_ns - place->since_ns > SUSPECT_AGE_NS)
            let_go(suspects, place);
        if (place->nr_discards > 0)
            continue;
        *place = (struct suspect){.block = block, .since_ns = now_ns};
        atomic_fetch_add(&suspects->nr, 1);
        return place;
    }
    return NULL;
}

static bool accuse(struct suspects *suspects, uint64_t block, uint64_t now_ns)
{
    struct suspect *suspect = find(suspects, block);
    if (suspect == NULL)
        suspect = take_place(suspects, block, now_ns);
    if (suspect == NULL)
        return false;
    if (suspect->nr_discards == SUSPECT_MAX_DISCARDS) {
        let_go(suspects, suspect);
        return false;
    }
    suspect->nr_discards++;
    return true;
}

bool suspects_accuse(struct suspects *suspects, uint64_t block, uint64_t now_ns)
{
    pthread_mutex_lock(&suspects->lock);
    bool may_discard = accuse(suspects, block, now_ns);
    pthread_mutex_unlock(&suspects->lock);
    return may_discard;
}

void suspects_clear(struct suspects *suspects, uint64_t block)
{
    if (atomic_load_explicit(&suspects->nr, memory_order_relaxed) == 0)
        return;
    pthread_mutex_lock(&suspects->lock);
    struct suspect *suspect = find(suspects, block);
    if (suspect != NULL)
        let_go(suspects, suspect);
    pthread_mutex_unlock(&suspects->lock);
}
