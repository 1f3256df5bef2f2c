/* core: see core.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/thread.h"
#include "command/state.h"

#define DEFAULT_PARK_BUDGET (UINT64_C(256) << 20)

/* A worker is asleep in a pread most of the time that it works: their number is
 * the queue depth that a cold local disk sees, not the number of processors. */
#define WORKERS_PER_CPU 4
#define MIN_WORKERS     16
#define MAX_WORKERS     64

static unsigned nr_workers_of(const struct obd_core_params *params)
{
    if (params->nr_workers != 0)
        return params->nr_workers;
    long wanted = sysconf(_SC_NPROCESSORS_ONLN) * WORKERS_PER_CPU;
    return wanted < MIN_WORKERS ? MIN_WORKERS : wanted > MAX_WORKERS ? MAX_WORKERS : (unsigned)wanted;
}

static void *worker_run(void *argument)
{
    struct core *core = argument;
    struct command *command;
    while ((command = run_queue_next(&core->queue)) != NULL) {
        /* The command may be done, and its front's again, before command_run
         * returns; the device is held by run_queue_next. */
        struct device *device = command->device;
        command_run(command);
        run_queue_ran(&core->queue, device);
    }
    return NULL;
}

static void stop_workers(struct core *core)
{
    run_queue_close(&core->queue);
    for (unsigned i = 0; i < core->nr_workers; i++)
        pthread_join(core->workers[i], NULL);
    core->nr_workers = 0;
}

static enum obd_status start_workers(struct core *core, unsigned nr)
{
    core->workers = calloc(nr, sizeof *core->workers);
    if (core->workers == NULL)
        return status_set(OBD_E_NO_MEMORY, "core: no memory for %u workers", nr);
    while (core->nr_workers < nr) {
        enum obd_status status = thread_start("obd-worker", worker_run, core, &core->workers[core->nr_workers]);
        if (status != OBD_OK)
            return status;
        core->nr_workers++;
    }
    return OBD_OK;
}

static void free_core(struct core *core)
{
    park_destroy(&core->park);
    run_queue_destroy(&core->queue);
    free(core->workers);
    free(core);
}

enum obd_status core_open(const struct obd_core_params *params, struct core **out)
{
    struct core *core = calloc(1, sizeof *core);
    if (core == NULL)
        return status_set(OBD_E_NO_MEMORY, "core: no memory");
    unsigned nr_workers = nr_workers_of(params);
    run_queue_init(&core->queue, nr_workers);
    park_init(&core->park, params->park_budget_bytes != 0 ? params->park_budget_bytes : DEFAULT_PARK_BUDGET);
    enum obd_status status = timer_start(&core->timer);
    if (status == OBD_OK && (status = start_workers(core, nr_workers)) != OBD_OK) {
        stop_workers(core);
        timer_stop(&core->timer);
    }
    if (status != OBD_OK) {
        free_core(core);
        return status;
    }
    *out = core;
    return OBD_OK;
}

void core_close(struct core *core)
{
    stop_workers(core);
    timer_stop(&core->timer);
    free_core(core);
}
