/* hook: where a test has the process die.
 *
 * The environment is read once: it is set by the test that starts the process.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/hook.h"

#ifdef OBD_TEST_BUILD

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    char name[128]; /* "" when no hook is set */
    unsigned long nth;
    int signal;
    bool with_parent; /* who started us dies first */
    atomic_ulong nr_passes;
} target;

static void read_environment(void)
{
    const char *text = getenv("OBD_TEST_KILL_AT");
    if (text == NULL)
        return;
    snprintf(target.name, sizeof target.name, "%s", text);
    target.nth = 1;
    target.signal = SIGKILL;
    char *colon = strchr(target.name, ':');
    if (colon == NULL)
        return;
    *colon = '\0';
    if (strcmp(colon + 1, "stop") == 0)
        target.signal = SIGSTOP;
    else if (strcmp(colon + 1, "parent") == 0)
        target.with_parent = true;
    else
        target.nth = strtoul(colon + 1, NULL, 10);
}

void hook_reached(const char *name)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_environment);
    if (target.name[0] == '\0' || strcmp(name, target.name) != 0)
        return;
    if (atomic_fetch_add(&target.nr_passes, 1) + 1 != target.nth)
        return;
    if (target.with_parent)
        kill(getppid(), SIGKILL);
    raise(target.signal);
}

#endif
