/* writer: see writer.h.  Here: the stream, its order, and the jump table.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/writer.h"

#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "codec/crc32c.h"
#include "image/writer_blocks.h"

#define MIN_BLOCK_SIZE 4096u
#define MAX_BLOCK_SIZE 65536u
#define MAX_THREADS    256u

/* What the reference can read (spec/zfile.md sections 5, 6): one buffer of 64 KiB
 * for a stored block, and 16-bit deltas inside a group of blocks that make 64 KiB. */
#define MAX_STORED_BLOCK 65536u
#define GROUP_SIZE       65536u
#define MAX_GROUP_DELTA  65534u

struct writer {
    int fd;
    char *name;
    uint64_t start; /* in fd */
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint32_t block_size;
    struct block_pool *pool; /* NULL: a plain copy */
    enum obd_status status;  /* the first failure; nothing works after it */

    uint32_t *lengths; /* the jump table: stored lengths */
    size_t nr_blocks, room;
    uint64_t group_sum; /* of the stored lengths since the last whole group */
};

/* ---- open and close ---- */

static enum obd_status check_params(const struct obd_writer_params *params)
{
    if (params->codec == OBD_CODEC_NONE)
        return OBD_OK;
    if (params->codec != OBD_CODEC_LZ4 && params->codec != OBD_CODEC_ZSTD)
        return status_set(OBD_E_UNSUPPORTED, "a ZFile cannot be written with codec %u", params->codec);
    if (!is_power_of_two(params->block_size) || params->block_size < MIN_BLOCK_SIZE ||
        params->block_size > MAX_BLOCK_SIZE)
        return status_set(OBD_E_INVALID, "a ZFile block has %u to %u bytes, a power of two, not %u", MIN_BLOCK_SIZE,
                          MAX_BLOCK_SIZE, params->block_size);
    if (params->nr_threads == 0 || params->nr_threads > MAX_THREADS)
        return status_set(OBD_E_INVALID, "1 to %u threads can compress, not %u", MAX_THREADS, params->nr_threads);
    return OBD_OK;
}

/* The path behind fd, for messages. */
static char *name_of(int fd)
{
    char link[32], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = '\0';
    return strdup(length < 0 ? "the new layer" : path);
}

enum obd_status writer_open(const struct obd_writer_params *params, struct writer **out)
{
    enum obd_status status = check_params(params);
    if (status != OBD_OK)
        return status;
    struct writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL || (writer->name = name_of(params->fd)) == NULL) {
        free(writer);
        return status_set(OBD_E_NO_MEMORY, "no memory to write a layer");
    }
    writer->fd = params->fd;
    writer->start = params->offset;
    writer->block_size = params->block_size;
    if (params->codec != OBD_CODEC_NONE)
        status = block_pool_open((enum obd_codec)params->codec, params->block_size, params->nr_threads, &writer->pool);
    if (status != OBD_OK) {
        writer_close(writer);
        return status;
    }
    *out = writer;
    return OBD_OK;
}

void writer_close(struct writer *writer)
{
    if (writer == NULL)
        return;
    block_pool_close(writer->pool);
    free(writer->lengths);
    free(writer->name);
    free(writer);
}

uint64_t writer_position(const struct writer *writer)
{
    return writer->bytes_in;
}

/* ---- output ---- */

static enum obd_status put_bytes(struct writer *writer, const void *bytes, size_t length)
{
    while (length > 0) {
        ssize_t put = pwrite(writer->fd, bytes, length, (off_t)(writer->start + writer->bytes_out));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return status_set_errno(put == 0 ? EIO : errno, "cannot write %zu bytes at %llu of %s", length,
                                    (unsigned long long)(writer->start + writer->bytes_out), writer->name);
        bytes = (const char *)bytes + put;
        length -= (size_t)put;
        writer->bytes_out += (uint64_t)put;
    }
    return OBD_OK;
}

/* ---- the jump table ---- */

static enum obd_status make_room(struct writer *writer, size_t nr)
{
    if (writer->nr_blocks + nr <= writer->room)
        return OBD_OK;
    size_t room = max_u64(writer->room * 2, writer->nr_blocks + nr);
    uint32_t *lengths = realloc(writer->lengths, room * sizeof *lengths);
    if (lengths == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory for a jump table of %zu blocks", room);
    writer->lengths = lengths;
    writer->room = room;
    return OBD_OK;
}

/* Refuses what the reference could not read again. */
static enum obd_status check_block(struct writer *writer, uint32_t length)
{
    size_t group = GROUP_SIZE / writer->block_size;
    if (length > MAX_STORED_BLOCK)
        return status_set(OBD_E_LIMIT, "%s: block %zu does not compress (%u bytes stored): use smaller blocks",
                          writer->name, writer->nr_blocks, length);
    if (writer->nr_blocks % group == 0)
        writer->group_sum = 0;
    /* The last block of a group counts for the next base, not for a delta. */
    if (writer->nr_blocks % group != group - 1)
        writer->group_sum += length;
    if (writer->group_sum > MAX_GROUP_DELTA)
        return status_set(OBD_E_LIMIT, "%s: the blocks up to %zu do not compress (%llu bytes stored): use other blocks",
                          writer->name, writer->nr_blocks, (unsigned long long)writer->group_sum);
    return OBD_OK;
}

static enum obd_status add_lengths(struct writer *writer, const struct block_job *job)
{
    enum obd_status status = make_room(writer, job->nr_blocks);
    for (size_t i = 0; i < job->nr_blocks && status == OBD_OK; i++) {
        status = check_block(writer, job->lengths[i]);
        writer->lengths[writer->nr_blocks] = htole32(job->lengths[i]);
        writer->nr_blocks += status == OBD_OK;
    }
    return status;
}

/* ---- blocks ---- */

/* Writes the oldest job's blocks; false in *has_one when there is none. */
static enum obd_status write_oldest(struct writer *writer, bool *has_one)
{
    struct block_job *job = block_pool_oldest(writer->pool);
    *has_one = job != NULL;
    if (job == NULL)
        return OBD_OK;
    enum obd_status status = job->status == OBD_OK ? OBD_OK : status_set(job->status, "%s", job->text);
    if (status == OBD_OK)
        status = add_lengths(writer, job);
    if (status == OBD_OK)
        status = put_bytes(writer, job->output, job->output_length);
    block_pool_recycle(writer->pool);
    return status;
}

/* The job to fill; when none is free, the oldest is written first. */
static enum obd_status job_to_fill(struct writer *writer, struct block_job **job)
{
    enum obd_status status = OBD_OK;
    while (status == OBD_OK && (*job = block_pool_free_job(writer->pool)) == NULL) {
        bool has_one;
        status = write_oldest(writer, &has_one);
    }
    return status;
}

static enum obd_status put_blocks(struct writer *writer, const char *bytes, size_t length)
{
    while (length > 0) {
        struct block_job *job;
        enum obd_status status = job_to_fill(writer, &job);
        if (status != OBD_OK)
            return status;
        size_t part = min_u64(length, job->input_room - job->input_length);
        memcpy(job->input + job->input_length, bytes, part);
        job->input_length += part;
        if (job->input_length == job->input_room)
            block_pool_submit(writer->pool);
        bytes += part;
        length -= part;
    }
    return OBD_OK;
}

/* The last job, perhaps with a short block at its end, and all before it. */
static enum obd_status finish_blocks(struct writer *writer)
{
    struct block_job *job = block_pool_free_job(writer->pool);
    if (job != NULL && job->input_length > 0)
        block_pool_submit(writer->pool);
    enum obd_status status = OBD_OK;
    bool has_one = true;
    while (status == OBD_OK && has_one)
        status = write_oldest(writer, &has_one);
    return status;
}

/* ---- the stream ---- */

enum obd_status writer_write(struct writer *writer, const void *bytes, size_t length)
{
    if (writer->status != OBD_OK)
        return status_set(writer->status, "%s: writing it has failed before", writer->name);
    writer->status = writer->pool == NULL ? put_bytes(writer, bytes, length) : put_blocks(writer, bytes, length);
    if (writer->status == OBD_OK)
        writer->bytes_in += length;
    return writer->status;
}

enum obd_status writer_finish(struct writer *writer, struct obd_writer_result *result)
{
    if (writer->status != OBD_OK)
        return status_set(writer->status, "%s: writing it has failed before", writer->name);
    enum obd_status status = writer->pool == NULL ? OBD_OK : finish_blocks(writer);
    uint64_t index_offset = writer->bytes_out;
    size_t index_length = writer->nr_blocks * sizeof *writer->lengths;
    if (status == OBD_OK)
        status = put_bytes(writer, writer->lengths, index_length);
    writer->status = status;
    if (status != OBD_OK)
        return status;
    *result = (struct obd_writer_result){
        .bytes_in = writer->bytes_in,
        .bytes_out = writer->bytes_out,
        .index_offset = index_offset,
        .nr_blocks = writer->nr_blocks,
        .index_crc = crc32c_raw(writer->lengths, index_length, 0),
    };
    return OBD_OK;
}
