/* Tests of the writer: order, thread counts, short blocks, and what the reference
 * could not read again. */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "check.h"

#include "codec/crc32c.h"
#include "image/writer.h"
#include "vector_files.h"

/* Bytes that compress or, with a seed, do not. */
static uint8_t *make_bytes(size_t length, uint64_t seed)
{
    uint8_t *bytes = malloc(length + 8);
    uint64_t state = seed;
    for (size_t i = 0; i < length; i += 8) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint64_t word = seed == 0 ? i / 64 : state ^ state >> 29;
        memcpy(bytes + i, &word, 8);
    }
    return bytes;
}

static struct writer *open_writer(int fd, uint32_t codec, uint32_t block_size, uint32_t nr_threads)
{
    struct obd_writer_params params = {
        .fd = fd, .offset = 512, .codec = codec, .block_size = block_size, .nr_threads = nr_threads};
    struct writer *writer;
    CHECK_OK(writer_open(&params, &writer));
    return writer;
}

/* Writes length bytes in parts of the given size; the file's bytes are the answer. */
static struct bytes write_in_parts(const uint8_t *bytes, size_t length, size_t part, uint32_t codec,
                                   uint32_t block_size, uint32_t nr_threads, struct obd_writer_result *result)
{
    int fd = memfd_create("out", 0);
    struct writer *writer = open_writer(fd, codec, block_size, nr_threads);
    for (size_t at = 0; at < length; at += part)
        CHECK_OK(writer_write(writer, bytes + at, length - at < part ? length - at : part));
    CHECK(writer_position(writer) == length);
    CHECK_OK(writer_finish(writer, result));
    writer_close(writer);
    struct bytes made = {.at = malloc(result->bytes_out + 1), .length = result->bytes_out};
    CHECK(pread(fd, made.at, made.length, 512) == (ssize_t)made.length);
    close(fd);
    return made;
}

/* Reads the blocks back through the zfile source. */
static void check_reads_back(const struct bytes made, const struct obd_writer_result *result, uint32_t codec,
                             uint32_t block_size, const uint8_t *bytes)
{
    char path[40];
    static const uint8_t header[512];
    int fd = memfd_create("zfile", 0);
    CHECK(write(fd, header, 512) == 512 && write(fd, made.at, made.length) == (ssize_t)made.length);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct source *file, *zfile;
    CHECK_OK(source_open_file(path, &file));
    struct obd_zfile_params params = {.index_offset = 512 + result->index_offset,
                                      .nr_blocks = result->nr_blocks,
                                      .original_size = result->bytes_in,
                                      .block_size = block_size,
                                      .codec = codec,
                                      .has_block_crc = 1,
                                      .has_index_crc = 1,
                                      .index_crc = result->index_crc};
    CHECK_OK(source_open_zfile(file, &params, UINT64_MAX, &zfile));
    uint8_t *read_back = malloc(result->bytes_in + 1);
    CHECK_OK(source_read_wait(zfile, read_back, result->bytes_in, 0, UINT64_MAX));
    CHECK(memcmp(read_back, bytes, result->bytes_in) == 0);
    free(read_back);
    source_unref(zfile);
    source_unref(file);
    close(fd);
}

static void check_same_at_any_number(uint32_t codec, uint32_t block_size, size_t length)
{
    static const size_t parts[] = {1000, 4096, 1 << 20};
    uint8_t *bytes = make_bytes(length, 0);
    struct obd_writer_result first, other;
    struct bytes made = write_in_parts(bytes, length, length + 1, codec, block_size, 1, &first);
    CHECK(first.bytes_in == length && first.nr_blocks == (length + block_size - 1) / block_size);
    check_reads_back(made, &first, codec, block_size, bytes);
    for (uint32_t nr_threads = 1; nr_threads <= 7; nr_threads += 3)
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
            struct bytes again = write_in_parts(bytes, length, parts[i], codec, block_size, nr_threads, &other);
            CHECK(other.bytes_out == first.bytes_out && other.index_offset == first.index_offset);
            CHECK(other.nr_blocks == first.nr_blocks && other.index_crc == first.index_crc);
            CHECK(memcmp(made.at, again.at, made.length) == 0);
            free(again.at);
        }
    free(made.at);
    free(bytes);
}

TEST(writer_makes_the_same_bytes_at_any_number_of_threads_and_cuts)
{
    for (uint32_t block_size = 4096; block_size <= 65536; block_size *= 2)
        check_same_at_any_number(OBD_CODEC_LZ4, block_size, 3000001);
    check_same_at_any_number(OBD_CODEC_ZSTD, 4096, 1000001);
    check_same_at_any_number(OBD_CODEC_ZSTD, 65536, 1000001);
}

TEST(writer_of_nothing_has_no_blocks)
{
    for (uint32_t nr_threads = 1; nr_threads <= 2; nr_threads++) {
        struct obd_writer_result result;
        struct bytes made = write_in_parts(NULL, 0, 1, OBD_CODEC_LZ4, 4096, nr_threads, &result);
        CHECK(result.bytes_in == 0 && result.bytes_out == 0 && result.nr_blocks == 0);
        CHECK(result.index_offset == 0 && result.index_crc == 0);
        free(made.at);
    }
}

TEST(writer_without_a_codec_copies)
{
    uint8_t *bytes = make_bytes(100000, 1);
    struct obd_writer_result result;
    struct bytes made = write_in_parts(bytes, 100000, 777, OBD_CODEC_NONE, 0, 0, &result);
    CHECK(made.length == 100000 && memcmp(made.at, bytes, 100000) == 0);
    CHECK(result.nr_blocks == 0 && result.index_offset == 100000);
    free(made.at);
    free(bytes);
}

/* Stored blocks are larger than their bytes then, and still inside the limits. */
TEST(writer_keeps_small_blocks_that_do_not_compress)
{
    uint8_t *bytes = make_bytes(300000, 7);
    struct obd_writer_result result;
    for (uint32_t block_size = 4096; block_size < 65536; block_size *= 2) {
        struct bytes made = write_in_parts(bytes, 300000, 4096, OBD_CODEC_LZ4, block_size, 2, &result);
        CHECK(made.length > 300000);
        check_reads_back(made, &result, OBD_CODEC_LZ4, block_size, bytes);
        free(made.at);
    }
    free(bytes);
}

TEST(writer_refuses_a_stored_block_that_the_reference_cannot_read)
{
    uint8_t *bytes = make_bytes(65536, 7);
    int fd = memfd_create("out", 0);
    struct writer *writer = open_writer(fd, OBD_CODEC_LZ4, 65536, 2);
    struct obd_writer_result result;
    CHECK_OK(writer_write(writer, bytes, 65536));
    CHECK_FAILS(writer_finish(writer, &result), OBD_E_LIMIT, "block 0 does not compress");
    CHECK_FAILS(writer_write(writer, bytes, 1), OBD_E_LIMIT, "failed before");
    writer_close(writer);
    close(fd);
    free(bytes);
}

TEST(writer_says_where_the_disk_was_full)
{
    uint8_t *bytes = make_bytes(2000000, 0);
    int fd = open("/dev/full", O_WRONLY);
    CHECK(fd >= 0);
    struct obd_writer_result result;
    for (uint32_t nr_threads = 1; nr_threads <= 3; nr_threads++) {
        struct writer *writer = open_writer(fd, OBD_CODEC_LZ4, 4096, nr_threads);
        enum obd_status status = OBD_OK;
        for (int i = 0; i < 10 && status == OBD_OK; i++)
            status = writer_write(writer, bytes, 2000000);
        CHECK_FAILS(status, OBD_E_NO_SPACE, "/dev/full");
        CHECK_FAILS(writer_finish(writer, &result), OBD_E_NO_SPACE, "failed before");
        writer_close(writer); /* with jobs still at the workers */
    }
    close(fd);
    free(bytes);
}

TEST(writer_refuses_impossible_parameters)
{
    struct writer *writer;
    struct obd_writer_params params = {.fd = 1, .codec = OBD_CODEC_LZ4, .block_size = 5000, .nr_threads = 1};
    CHECK_FAILS(writer_open(&params, &writer), OBD_E_INVALID, "5000");
    params.block_size = 131072;
    CHECK_FAILS(writer_open(&params, &writer), OBD_E_INVALID, "131072");
    params.block_size = 4096;
    params.nr_threads = 0;
    CHECK_FAILS(writer_open(&params, &writer), OBD_E_INVALID, "threads");
    params.codec = 9;
    CHECK_FAILS(writer_open(&params, &writer), OBD_E_UNSUPPORTED, "9");
}

TEST_MAIN(T(writer_makes_the_same_bytes_at_any_number_of_threads_and_cuts), T(writer_of_nothing_has_no_blocks),
          T(writer_without_a_codec_copies), T(writer_keeps_small_blocks_that_do_not_compress),
          T(writer_refuses_a_stored_block_that_the_reference_cannot_read), T(writer_says_where_the_disk_was_full),
          T(writer_refuses_impossible_parameters))
