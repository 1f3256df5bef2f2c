/* writer_blocks: see writer_blocks.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/writer_blocks.h"

#include <assert.h>
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/thread.h"
#include "codec/codec.h"
#include "codec/crc32c.h"

/* Input of one job: enough blocks that handing it over costs nothing beside them,
 * small enough to stay in a processor's cache. */
#define JOB_SIZE (256u << 10)

struct worker {
    struct block_pool *pool;
    struct codec_context *context;
    pthread_t thread;
    bool is_started;
};

struct block_pool {
    const struct codec *codec;
    uint32_t block_size;
    struct block_job *jobs; /* the ring: job n in place n % nr_jobs */
    size_t nr_jobs;
    struct worker *workers; /* one, never started, when the owner compresses itself */
    size_t nr_workers;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t submitted;
    pthread_cond_t done;
    bool *is_done;   /* by place in the ring */
    uint64_t oldest; /* numbers of jobs: oldest <= picked <= next */
    uint64_t picked;
    uint64_t next;
    bool is_closing;
};

/* ---- compressing ---- */

/* Appends one block to the job's output; 0 when the codec refused it. */
static size_t compress_block(const struct block_pool *pool, struct codec_context *context, struct block_job *job,
                             const uint8_t *from, size_t length)
{
    uint8_t *to = job->output + job->output_length;
    size_t stored = pool->codec->compress(context, from, length, to, pool->codec->bound(pool->block_size));
    if (stored == 0)
        return 0;
    uint32_t crc = htole32(crc32c_raw(to, stored, CRC32C_BLOCK_SEED));
    memcpy(to + stored, &crc, BLOCK_CRC_SIZE);
    return stored + BLOCK_CRC_SIZE;
}

static void compress_job(const struct block_pool *pool, struct codec_context *context, struct block_job *job)
{
    job->output_length = job->nr_blocks = 0;
    job->status = OBD_OK;
    for (size_t at = 0; at < job->input_length; at += pool->block_size) {
        size_t length = min_u64(pool->block_size, job->input_length - at);
        size_t stored = compress_block(pool, context, job, job->input + at, length);
        if (stored == 0) {
            job->status = status_set(OBD_E_IO, "%s could not compress a block of %zu bytes", pool->codec->name, length);
            snprintf(job->text, sizeof job->text, "%s", status_text());
            return;
        }
        job->lengths[job->nr_blocks++] = (uint32_t)stored;
        job->output_length += stored;
    }
}

/* Under the lock, which is given up meanwhile. */
static void compress_picked(struct worker *worker, size_t place)
{
    struct block_pool *pool = worker->pool;
    pthread_mutex_unlock(&pool->lock);
    compress_job(pool, worker->context, &pool->jobs[place]);
    pthread_mutex_lock(&pool->lock);
    pool->is_done[place] = true;
    pthread_cond_signal(&pool->done);
}

static void *run_worker(void *argument)
{
    struct worker *worker = argument;
    struct block_pool *pool = worker->pool;
    pthread_mutex_lock(&pool->lock);
    while (!pool->is_closing) {
        if (pool->picked < pool->next)
            compress_picked(worker, pool->picked++ % pool->nr_jobs);
        else
            condition_wait(&pool->submitted, &pool->lock, NEVER_NS); /* woken at close */
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* ---- open and close ---- */

static bool job_init(const struct block_pool *pool, struct block_job *job)
{
    size_t nr_blocks = JOB_SIZE / pool->block_size;
    job->input_room = nr_blocks * pool->block_size;
    job->input = malloc(job->input_room);
    job->output = malloc(nr_blocks * (pool->codec->bound(pool->block_size) + BLOCK_CRC_SIZE));
    job->lengths = malloc(nr_blocks * sizeof *job->lengths);
    return job->input != NULL && job->output != NULL && job->lengths != NULL;
}

static enum obd_status make_jobs(struct block_pool *pool)
{
    pool->jobs = calloc(pool->nr_jobs, sizeof *pool->jobs);
    pool->is_done = calloc(pool->nr_jobs, sizeof *pool->is_done);
    pool->workers = calloc(pool->nr_workers, sizeof *pool->workers);
    bool has_memory = pool->jobs != NULL && pool->is_done != NULL && pool->workers != NULL;
    for (size_t i = 0; i < pool->nr_jobs && has_memory; i++)
        has_memory = job_init(pool, &pool->jobs[i]);
    return has_memory ? OBD_OK
                      : status_set(OBD_E_NO_MEMORY, "no memory to compress with %zu threads", pool->nr_workers);
}

static enum obd_status make_workers(struct block_pool *pool)
{
    for (size_t i = 0; i < pool->nr_workers; i++) {
        struct worker *worker = &pool->workers[i];
        worker->pool = pool;
        enum obd_status status = codec_context_new(&worker->context);
        if (status == OBD_OK && pool->nr_workers > 1) {
            status = thread_start("obd-compress", run_worker, worker, &worker->thread);
            worker->is_started = status == OBD_OK;
        }
        if (status != OBD_OK)
            return status;
    }
    return OBD_OK;
}

enum obd_status block_pool_open(enum obd_codec codec, uint32_t block_size, uint32_t nr_threads, struct block_pool **out)
{
    struct block_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to compress");
    pool->codec = codec_find(codec);
    assert(pool->codec != NULL);
    pool->block_size = block_size;
    pool->nr_workers = nr_threads;
    /* While the oldest is written, every worker has one at hand and one to go on with. */
    pool->nr_jobs = nr_threads == 1 ? 1 : 2 * (size_t)nr_threads + 1;
    pthread_mutex_init(&pool->lock, NULL);
    condition_init(&pool->submitted);
    condition_init(&pool->done);
    enum obd_status status = make_jobs(pool);
    if (status == OBD_OK)
        status = make_workers(pool);
    if (status != OBD_OK) {
        block_pool_close(pool);
        return status;
    }
    *out = pool;
    return OBD_OK;
}

static void stop_workers(struct block_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->is_closing = true;
    pthread_cond_broadcast(&pool->submitted);
    pthread_mutex_unlock(&pool->lock);
    for (size_t i = 0; pool->workers != NULL && i < pool->nr_workers; i++) {
        if (pool->workers[i].is_started)
            pthread_join(pool->workers[i].thread, NULL);
        codec_context_free(pool->workers[i].context);
    }
    free(pool->workers);
}

void block_pool_close(struct block_pool *pool)
{
    if (pool == NULL)
        return;
    stop_workers(pool);
    for (size_t i = 0; pool->jobs != NULL && i < pool->nr_jobs; i++) {
        free(pool->jobs[i].input);
        free(pool->jobs[i].output);
        free(pool->jobs[i].lengths);
    }
    free(pool->jobs);
    free(pool->is_done);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->submitted);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* ---- the owner's side: next and oldest are written by the owner only ---- */

struct block_job *block_pool_free_job(struct block_pool *pool)
{
    return pool->next - pool->oldest == pool->nr_jobs ? NULL : &pool->jobs[pool->next % pool->nr_jobs];
}

void block_pool_submit(struct block_pool *pool)
{
    size_t place = pool->next % pool->nr_jobs;
    if (pool->nr_workers == 1) {
        compress_job(pool, pool->workers[0].context, &pool->jobs[place]);
        pool->is_done[place] = true;
        pool->picked = ++pool->next;
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->is_done[place] = false;
    pool->next++;
    pthread_cond_signal(&pool->submitted);
    pthread_mutex_unlock(&pool->lock);
}

struct block_job *block_pool_oldest(struct block_pool *pool)
{
    if (pool->oldest == pool->next)
        return NULL;
    size_t place = pool->oldest % pool->nr_jobs;
    pthread_mutex_lock(&pool->lock);
    while (!pool->is_done[place])
        condition_wait(&pool->done, &pool->lock, NEVER_NS); /* a worker has it */
    pthread_mutex_unlock(&pool->lock);
    return &pool->jobs[place];
}

void block_pool_recycle(struct block_pool *pool)
{
    pool->jobs[pool->oldest % pool->nr_jobs].input_length = 0;
    pool->oldest++;
}
