/* mem: see mem.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "front/mem.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/thread.h"
#include "command/core.h"

struct mem_command {
    struct command command; /* first */
    struct iovec iov;
    pthread_t submitter;
    /* The submitter's own: */
    bool is_submitting; /* it is in command_submit of mem_run */
    bool is_done_there; /* and done was called there */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t finished;
    bool is_done;
    char *text; /* the sentence of a failure; owned */
};

static void keep_text(struct mem_command *mem)
{
    if (mem->command.status != OBD_OK)
        mem->text = strdup(status_text());
}

static void on_done(struct command *command)
{
    struct mem_command *mem = (struct mem_command *)command;
    /* Done before command_submit returned, on the thread that asks next: no other
     * has seen the command, and no lock is needed. */
    if (pthread_equal(mem->submitter, pthread_self()) && mem->is_submitting) {
        keep_text(mem);
        mem->is_done_there = true;
        return;
    }
    pthread_mutex_lock(&mem->lock);
    keep_text(mem);
    mem->is_done = true;
    pthread_cond_signal(&mem->finished);
    pthread_mutex_unlock(&mem->lock); /* the waiter may free it from here on */
}

static void fill_command(struct mem_command *mem, const struct obd_mem_params *params)
{
    struct command *command = &mem->command;
    command->kind = (enum command_kind)params->kind;
    command->fua = params->fua != 0;
    command->offset = params->offset;
    command->length = params->length;
    mem->iov = (struct iovec){.iov_base = params->buffer, .iov_len = params->length};
    command->iov = &mem->iov;
    command->nr_iov = params->buffer != NULL ? 1 : 0;
    command->done = on_done;
    mem->submitter = pthread_self();
    mem->is_submitting = false;
    mem->is_done_there = false;
    mem->is_done = false;
    mem->text = NULL;
}

/* The status, with the sentence now this thread's. */
static enum obd_status take_result(struct mem_command *mem)
{
    enum obd_status status = mem->command.status;
    if (status != OBD_OK)
        status_set(status, "%s", mem->text != NULL ? mem->text : "no memory for the reason");
    free(mem->text);
    return status;
}

enum obd_status mem_submit(struct device *device, const struct obd_mem_params *params, struct mem_command **out)
{
    struct mem_command *mem = malloc(sizeof *mem);
    if (mem == NULL)
        return status_set(OBD_E_NO_MEMORY, "device %s: no memory for a command", device_name(device));
    fill_command(mem, params);
    pthread_mutex_init(&mem->lock, NULL);
    condition_init(&mem->finished);
    *out = mem;
    command_submit(device, &mem->command, false);
    return OBD_OK;
}

static bool wait_done(struct mem_command *mem, uint64_t deadline_ns)
{
    bool is_in_time = true;
    pthread_mutex_lock(&mem->lock);
    while (!mem->is_done && is_in_time)
        is_in_time = condition_wait(&mem->finished, &mem->lock, deadline_ns);
    bool is_done = mem->is_done;
    pthread_mutex_unlock(&mem->lock);
    return is_done;
}

enum obd_status mem_wait(struct mem_command **command, uint64_t deadline_ns)
{
    struct mem_command *mem = *command;
    if (!wait_done(mem, deadline_ns))
        return status_set(OBD_E_TIMEOUT, "device %s: the command is not done yet", device_name(mem->command.device));
    enum obd_status status = take_result(mem);
    pthread_cond_destroy(&mem->finished);
    pthread_mutex_destroy(&mem->lock);
    free(mem);
    *command = NULL;
    return status;
}

enum obd_status mem_run(struct device *device, const struct obd_mem_params *params)
{
    /* The static initialisers cost nothing; its clock does not matter without a deadline. */
    struct mem_command mem;
    mem.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    mem.finished = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    fill_command(&mem, params);
    mem.is_submitting = true;
    command_submit(device, &mem.command, true);
    mem.is_submitting = false;
    if (!mem.is_done_there)
        wait_done(&mem, NEVER_NS); /* the core has the deadline */
    return take_result(&mem);
}

/* ---- the benchmark loop ---------------------------------------------------- */

struct reader {
    struct device *device;
    const uint64_t *offsets; /* its share */
    size_t nr;
    uint32_t length;
    pthread_t thread;
    enum obd_status status;
    char text[STATUS_TEXT_SIZE];
};

static void *reader_run(void *argument)
{
    struct reader *reader = argument;
    void *buffer = malloc(reader->length);
    struct obd_mem_params params = {.kind = OBD_COMMAND_READ, .length = reader->length, .buffer = buffer};
    reader->status = buffer != NULL ? OBD_OK : status_set(OBD_E_NO_MEMORY, "no memory to read into");
    for (size_t i = 0; i < reader->nr && reader->status == OBD_OK; i++) {
        params.offset = reader->offsets[i];
        reader->status = mem_run(reader->device, &params);
    }
    snprintf(reader->text, sizeof reader->text, "%s", status_text());
    free(buffer);
    return NULL;
}

static enum obd_status start_readers(struct reader *readers, unsigned nr, unsigned *nr_started)
{
    enum obd_status status = OBD_OK;
    for (*nr_started = 0; *nr_started < nr && status == OBD_OK; *nr_started += status == OBD_OK)
        status = thread_start("obd-reader", reader_run, &readers[*nr_started], &readers[*nr_started].thread);
    return status;
}

static enum obd_status join_readers(struct reader *readers, unsigned nr, enum obd_status status)
{
    for (unsigned i = 0; i < nr; i++) {
        pthread_join(readers[i].thread, NULL);
        if (status == OBD_OK && readers[i].status != OBD_OK)
            status = status_set(readers[i].status, "%s", readers[i].text);
    }
    return status;
}

enum obd_status mem_read_loop(struct device *device, const uint64_t *offsets, size_t nr, uint32_t length,
                              unsigned nr_threads, uint64_t *elapsed_ns)
{
    struct reader *readers = calloc(nr_threads, sizeof *readers);
    if (readers == NULL)
        return status_set(OBD_E_NO_MEMORY, "device %s: no memory for %u readers", device_name(device), nr_threads);
    for (unsigned i = 0; i < nr_threads; i++) {
        size_t first = nr * i / nr_threads, end = nr * (i + 1) / nr_threads;
        readers[i] = (struct reader){.device = device, .offsets = offsets + first, .nr = end - first, .length = length};
    }
    uint64_t begin_ns = clock_now_ns();
    unsigned nr_started;
    enum obd_status status = start_readers(readers, nr_threads, &nr_started);
    status = join_readers(readers, nr_started, status);
    *elapsed_ns = clock_now_ns() - begin_ns;
    free(readers);
    return status;
}
