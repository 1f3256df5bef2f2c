/* zfile_scratch: a list per thread, freed when the thread ends.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "source/zfile_scratch.h"

#include <stdlib.h>

static pthread_key_t key; /* only serves to free the list */
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static bool has_key;
static _Thread_local struct zfile_scratch *spares;

static void free_spares(void *unused)
{
    (void)unused;
    while (spares != NULL) {
        struct zfile_scratch *next = spares->next;
        free(spares);
        spares = next;
    }
}

static void make_key(void)
{
    has_key = pthread_key_create(&key, free_spares) == 0;
}

static struct zfile_scratch *make(void)
{
    pthread_once(&key_once, make_key);
    struct zfile_scratch *scratch = has_key ? malloc(sizeof *scratch) : NULL;
    if (scratch != NULL && pthread_setspecific(key, scratch) != 0) { /* any value: it has the thread call us */
        free(scratch);
        return NULL;
    }
    return scratch;
}

struct zfile_scratch *zfile_scratch_take(void)
{
    struct zfile_scratch *scratch = spares;
    if (scratch == NULL)
        return make();
    spares = scratch->next;
    return scratch;
}

void zfile_scratch_give(struct zfile_scratch *scratch)
{
    scratch->next = spares;
    spares = scratch;
}
