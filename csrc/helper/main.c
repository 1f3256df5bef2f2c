/* obd-lio-helper: the configfs operations that can sleep where no signal reaches.
 *
 * The daemon must never do them itself: a thread in such a sleep keeps the process
 * alive after SIGKILL, and with it the UIO devices that its successor needs.  So each
 * runs in this short-lived program, which needs a millisecond to start, has a deadline
 * of its own, says what it did line by line (step.h), and may be killed; what it had
 * asked for may then still happen, so the daemon looks again (architecture, section 7).
 *
 *     obd-lio-helper attach|detach|rescan|resize|fail-ring|spare-flush|abandon key=value ...      (options.h)
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "helper/disk.h"
#include "helper/options.h"
#include "helper/step.h"
#include "helper/verbs.h"

static void rescan(const struct options *options)
{
    disk_rescan(options);
}

static const struct verb {
    const char *name;
    void (*run)(const struct options *options);
} verbs[] = {{"attach", helper_attach},  {"detach", helper_detach},       {"rescan", rescan},
             {"resize", helper_resize},  {"fail-ring", helper_fail_ring}, {"spare-flush", helper_spare_flush},
             {"abandon", helper_abandon}};

static const struct verb *verb_find(const char *name)
{
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    return NULL;
}

int main(int argc, char **argv)
{
    const struct verb *verb = argc > 1 ? verb_find(argv[1]) : NULL;
    struct options options;
    if (!verb) {
        fprintf(stderr,
                "usage: obd-lio-helper attach|detach|rescan|resize|fail-ring|spare-flush|abandon key=value ...\n");
        return OUTCOME_USAGE;
    }
    if (!options_parse(argc - 2, argv + 2, &options))
        return OUTCOME_USAGE;
    setvbuf(stdout, NULL, _IOLBF, 0); /* a line is out before the next step may hang */
    /* What a daemon that is gone has asked for, its successor takes back: no further step of
     * it may be done then.  The thread that started us waits, so its end is the daemon's. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    step_set_verb(verb->name);
    step_set_deadline((uint32_t)options.deadline_ms);
    verb->run(&options);
    return (int)step_outcome();
}
