/* Tests of compact: the reference's files come out byte for byte, however the
 * work is cut into steps; zeros are found and dropped when asked for. */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "check.h"

#include "base/clock.h"
#include "image/compact.h"
#include "upper_pair.h"
#include "vector_files.h"

#define HEADER 4096u

static struct obd_writer_params writer_params(int fd, uint32_t codec, uint32_t block_size, uint32_t nr_threads)
{
    return (struct obd_writer_params){.fd = fd, .codec = codec, .block_size = block_size, .nr_threads = nr_threads};
}

/* Commits image between the header and the trailer of expected, the LSMT bytes. */
static struct obd_writer_result commit(struct image *image, const struct obd_writer_params *output,
                                       const struct obd_compact_params *how, uint64_t step, struct bytes expected)
{
    struct writer *writer;
    struct compact *compact;
    struct obd_compact_result index;
    struct obd_writer_result result;
    CHECK_OK(writer_open(output, &writer));
    CHECK_OK(writer_write(writer, expected.at, HEADER));
    CHECK_OK(compact_open(image, writer, how, &compact));
    for (uint64_t done = 0; done < compact_total(compact);)
        CHECK_OK(compact_step(compact, step, &done));
    CHECK_OK(compact_finish(compact, &index));
    const uint8_t *trailer = expected.at + expected.length - HEADER;
    CHECK(index.index_offset == u64_at(trailer + 32));
    CHECK(index.nr_entries == u64_at(trailer + 40));
    CHECK_OK(writer_write(writer, trailer, HEADER));
    CHECK_OK(writer_finish(writer, &result));
    compact_close(compact);
    writer_close(writer);
    return result;
}

static const struct obd_compact_params as_reference = {.timeout_ms = 10000};
static const struct obd_compact_params as_merge = {.timeout_ms = 10000, .keep_tags = 1};

/* The committed LSMT file equals the one in path.  Takes image. */
static void check_plain(struct image *image, const char *path, const struct obd_compact_params *how, uint64_t step)
{
    struct bytes expected = read_whole(path);
    int fd = memfd_create("layer", 0);
    struct obd_writer_params output = writer_params(fd, OBD_CODEC_NONE, 0, 1);
    struct obd_writer_result result = commit(image, &output, how, step, expected);
    CHECK(result.bytes_out == expected.length && result.bytes_in == expected.length);
    uint8_t *made = malloc(expected.length);
    CHECK(pread(fd, made, expected.length, 0) == (ssize_t)expected.length);
    CHECK(memcmp(made, expected.at, expected.length) == 0);
    free(made);
    free(expected.at);
    close(fd);
    image_unref(image);
}

static struct image *open_rw(void)
{
    return open_vector_pair(VECTORS "rw/rw.data", VECTORS "rw/rw.index");
}

TEST(commit_of_a_pair_equals_the_reference)
{
    check_plain(open_rw(), VECTORS "commit/raw.lsmt", &as_reference, UINT64_MAX);
    check_plain(open_rw(), VECTORS "commit/raw-uuid.lsmt", &as_reference, UINT64_MAX);
}

TEST(commit_does_not_depend_on_its_steps)
{
    for (uint64_t step = 1; step < 200000; step = step * 3 + 512)
        check_plain(open_rw(), VECTORS "commit/raw.lsmt", &as_reference, step);
}

TEST(commit_of_a_committed_or_sealed_layer_equals_the_reference)
{
    check_plain(open_image_of(open_vector_layer(VECTORS "commit/raw.lsmt")), VECTORS "commit/raw.lsmt", &as_reference,
                UINT64_MAX);
    check_plain(open_image_of(open_vector_layer(VECTORS "sealed/overlaybd.sealed")), VECTORS "sealed/from-sealed.lsmt",
                &as_reference, UINT64_MAX);
    check_plain(open_image_of(open_vector_layer(VECTORS "empty/empty.lsmt")), VECTORS "empty/empty.lsmt", &as_reference,
                UINT64_MAX);
}

TEST(merge_of_three_layers_equals_the_reference)
{
    struct layer *lowers[] = {open_vector_layer(VECTORS "stack/l1.lsmt"), open_vector_layer(VECTORS "stack/l2.lsmt"),
                              open_vector_layer(VECTORS "stack/l3.lsmt")};
    check_plain(open_image(lowers, 3, NULL, lowers[2]->virtual_size), VECTORS "stack/merged.lsmt", &as_merge,
                UINT64_MAX);
}

/* The data files of sparse uppers are in a tar archive, because git keeps no holes. */
TEST(commit_of_a_sparse_layer_equals_the_reference)
{
    char folder[] = "/tmp/obd-sparse-XXXXXX", command[200], data[64], index[64];
    CHECK(mkdtemp(folder) != NULL);
    snprintf(command, sizeof command, "tar -C %s -xSf " VECTORS "vectors-sparse.tar", folder);
    CHECK(system(command) == 0);
    snprintf(data, sizeof data, "%s/sparse/up.data", folder);
    snprintf(index, sizeof index, "%s/sparse/up.index", folder);
    struct obd_upper_params params = {.data_path = data,
                                      .index_path = index,
                                      .uuid = "00000000-0000-0000-0000-000000000000",
                                      .virtual_size = 262144,
                                      .flags = OBD_UPPER_READ_ONLY | OBD_UPPER_SPARSE};
    struct upper *upper;
    CHECK_OK(upper_open(&params, &upper));
    check_plain(open_image(NULL, 0, upper, 262144), VECTORS "sparse/committed.lsmt", &as_reference, UINT64_MAX);
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK(system(command) == 0);
}

/* The blocks and the jump table of the ZFile that lies at offset in path, whose
 * LSMT bytes are those of plain, are made from image.  Takes image. */
static void check_zfile(struct image *image, const char *path, size_t offset, struct bytes plain, uint32_t codec,
                        uint32_t block_size, uint32_t nr_threads)
{
    struct bytes expected = read_whole(path);
    const uint8_t *header = expected.at + offset;
    int fd = memfd_create("layer", 0);
    struct obd_writer_params output = writer_params(fd, codec, block_size, nr_threads);
    output.offset = 512;
    struct obd_writer_result result = commit(image, &output, &as_reference, 100000, plain);
    CHECK(512 + result.index_offset == u64_at(header + 40));
    CHECK(result.nr_blocks == u64_at(header + 48));
    CHECK(result.bytes_in == u64_at(header + 56));
    CHECK(result.index_crc == (uint32_t)u64_at(header + 64));
    uint8_t *made = malloc(result.bytes_out);
    CHECK(pread(fd, made, result.bytes_out, 512) == (ssize_t)result.bytes_out);
    CHECK(memcmp(made, header + 512, result.bytes_out) == 0);
    free(made);
    free(expected.at);
    close(fd);
    image_unref(image);
}

TEST(commit_as_lz4_equals_the_reference_at_any_number_of_threads)
{
    struct bytes plain = read_whole(VECTORS "commit/raw.lsmt");
    for (uint32_t nr_threads = 1; nr_threads <= 5; nr_threads++) {
        check_zfile(open_rw(), VECTORS "commit/lz4-4k.zfile", 0, plain, OBD_CODEC_LZ4, 4096, nr_threads);
        check_zfile(open_rw(), VECTORS "commit/lz4-4k.tar", 1536, plain, OBD_CODEC_LZ4, 4096, nr_threads);
        check_zfile(open_rw(), VECTORS "commit/lz4-4k-mt.zfile", 0, plain, OBD_CODEC_LZ4, 4096, nr_threads);
        check_zfile(open_rw(), VECTORS "commit/lz4-16k.zfile", 0, plain, OBD_CODEC_LZ4, 16384, nr_threads);
        check_zfile(open_rw(), VECTORS "commit/lz4-64k.zfile", 0, plain, OBD_CODEC_LZ4, 65536, nr_threads);
    }
    free(plain.at);
}

TEST(commit_as_zstd_equals_the_reference)
{
    struct bytes plain = read_whole(VECTORS "commit/raw.lsmt");
    check_zfile(open_rw(), VECTORS "commit/zstd-4k.zfile", 0, plain, OBD_CODEC_ZSTD, 4096, 2);
    check_zfile(open_rw(), VECTORS "commit/zstd-64k.zfile", 0, plain, OBD_CODEC_ZSTD, 65536, 2);
    free(plain.at);
}

/* 20 MiB in one run and 14 MiB of discard: the limits of joining. */
TEST(commit_of_long_runs_equals_the_reference)
{
    struct layer *layer = open_vector_zfile(VECTORS "big/big.lz4-64k.zfile");
    struct bytes plain = {.length = layer->source->size};
    plain.at = malloc(plain.length);
    CHECK_OK(source_read_wait(layer->source, plain.at, plain.length, 0, UINT64_MAX));
    check_zfile(open_image_of(layer), VECTORS "big/big.lz4-64k.zfile", 0, plain, OBD_CODEC_LZ4, 65536, 3);
    free(plain.at);
}

/* ---- zeros ---- */

#define DISK (UINT64_C(1) << 20)

/* A raw file of 1 MiB as a layer: byte i of sectors[] fills sector i; the rest is a hole. */
static struct image *image_of_sectors(const char *sectors, size_t nr, int fd)
{
    char path[40], sector[512];
    CHECK(ftruncate(fd, DISK) == 0);
    for (size_t i = 0; i < nr; i++) {
        memset(sector, sectors[i], sizeof sector);
        CHECK(pwrite(fd, sector, sizeof sector, (off_t)(i * sizeof sector)) == sizeof sector);
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct layer *layer;
    CHECK_OK(layer_open_raw(path, &layer));
    return open_image_of(layer);
}

struct outcome {
    struct obd_compact_result index;
    struct segment segments[256];
    uint64_t bytes;
};

static struct outcome commit_sectors(const char *sectors, size_t nr, const struct obd_compact_params *how)
{
    static const char header[HEADER];
    struct outcome outcome;
    int in = memfd_create("in", 0), out = memfd_create("out", 0);
    struct image *image = image_of_sectors(sectors, nr, in);
    struct obd_writer_params output = writer_params(out, OBD_CODEC_NONE, 0, 1);
    struct writer *writer;
    struct compact *compact;
    CHECK_OK(writer_open(&output, &writer));
    CHECK_OK(writer_write(writer, header, sizeof header));
    CHECK_OK(compact_open(image, writer, how, &compact));
    CHECK_OK(compact_finish(compact, &outcome.index));
    CHECK(outcome.index.nr_entries == 256 || outcome.index.nr_entries == 0);
    outcome.bytes = writer_position(writer);
    CHECK(pread(out, outcome.segments, outcome.index.nr_entries * 16, (off_t)outcome.index.index_offset) ==
          (ssize_t)outcome.index.nr_entries * 16);
    compact_close(compact);
    writer_close(writer);
    image_unref(image);
    close(in);
    close(out);
    return outcome;
}

static bool is_segment(struct segment s, uint64_t offset, uint64_t length, uint64_t moffset, bool is_zero)
{
    return s.offset == offset && s.length == length && s.moffset == moffset && s.zeroed == is_zero && s.tag == 0;
}

/* Eight sectors of zeros are a block; a zero sector among others is not. */
static const char two_blocks_of_three[24] = {1, 0, 1, 1, 1, 1, 1, 1, [16] = 2, 2, 2, 2, 2, 2, 2, 2};

TEST(zero_blocks_stay_data_unless_looked_for)
{
    struct outcome outcome = commit_sectors(two_blocks_of_three, 24, &as_reference);
    CHECK(outcome.index.nr_segments == 1);
    CHECK(is_segment(outcome.segments[0], 0, 24, 8, false));
    CHECK(outcome.segments[1].offset == SEGMENT_INVALID_OFFSET && outcome.segments[255].length == 0);
}

TEST(zero_blocks_that_are_found_become_zeroed_segments)
{
    struct obd_compact_params how = {.detect_zeros = 1, .timeout_ms = 1000};
    struct outcome outcome = commit_sectors(two_blocks_of_three, 24, &how);
    CHECK(outcome.index.nr_segments == 3);
    CHECK(is_segment(outcome.segments[0], 0, 8, 8, false));
    CHECK(is_segment(outcome.segments[1], 8, 8, 16, true));
    CHECK(is_segment(outcome.segments[2], 16, 8, 16, false));
    CHECK(outcome.bytes == HEADER + 16 * 512 + 4096);
}

TEST(zeroed_segments_of_a_lowest_layer_can_be_dropped)
{
    struct obd_compact_params how = {.detect_zeros = 1, .drop_zeros = 1, .timeout_ms = 1000};
    struct outcome outcome = commit_sectors(two_blocks_of_three, 24, &how);
    CHECK(outcome.index.nr_segments == 2);
    CHECK(is_segment(outcome.segments[1], 16, 8, 16, false));
    static const char nothing[8];
    outcome = commit_sectors(nothing, 8, &how);
    CHECK(outcome.index.nr_segments == 0 && outcome.index.nr_entries == 0 && outcome.bytes == HEADER);
}

/* Two neighbouring discards of a and b sectors become this many entries. */
static uint64_t entries_of_two_discards(uint64_t a, uint64_t b)
{
    static const char header[HEADER];
    new_pair();
    struct image *image = open_image(NULL, 0, open_upper(0), DISK_SIZE);
    CHECK_OK(image_discard(image, a * 512, 0));
    CHECK_OK(image_discard(image, b * 512, a * 512));
    int fd = memfd_create("out", 0);
    struct obd_writer_params output = writer_params(fd, OBD_CODEC_NONE, 0, 1);
    struct writer *writer;
    struct compact *compact;
    struct obd_compact_result result;
    CHECK_OK(writer_open(&output, &writer));
    CHECK_OK(writer_write(writer, header, sizeof header));
    CHECK_OK(compact_open(image, writer, &as_reference, &compact));
    CHECK_OK(compact_finish(compact, &result));
    compact_close(compact);
    writer_close(writer);
    close(fd);
    CHECK_OK(image_close(image));
    return result.nr_segments;
}

TEST(commit_joins_neighbours_that_are_shorter_than_the_longest_segment_together)
{
    CHECK(entries_of_two_discards(16000, 382) == 1);
    CHECK(entries_of_two_discards(16000, 383) == 2); /* 16383: the reference's rule is strict */
    CHECK(entries_of_two_discards(16383, 1) == 2);
}

TEST(commit_of_the_upper_alone_leaves_the_lowers_out)
{
    static const char header[HEADER];
    char bytes[512] = {1};
    struct layer *lower = open_vector_layer(VECTORS "stack/l1.lsmt");
    new_pair();
    struct image *image = open_image(&lower, 1, open_upper(0), DISK_SIZE);
    CHECK_OK(obd_image_write(image, bytes, 512, 1 << 20, 1000));
    struct obd_compact_params how = {.upper_only = 1, .timeout_ms = 1000};
    int fd = memfd_create("out", 0);
    struct obd_writer_params output = writer_params(fd, OBD_CODEC_NONE, 0, 1);
    struct writer *writer;
    struct compact *compact;
    struct obd_compact_result result;
    CHECK_OK(writer_open(&output, &writer));
    CHECK_OK(writer_write(writer, header, sizeof header));
    CHECK_OK(compact_open(image, writer, &how, &compact));
    bytes[0] = 2; /* a later write does not show */
    CHECK_OK(obd_image_write(image, bytes, 512, 2 << 20, 1000));
    CHECK_OK(compact_finish(compact, &result));
    CHECK(result.nr_segments == 1 && result.index_offset == HEADER + 512);
    compact_close(compact);
    writer_close(writer);
    close(fd);
    CHECK_OK(image_close(image));
}

TEST(commit_begins_behind_the_header)
{
    int fd = memfd_create("out", 0);
    struct obd_writer_params output = writer_params(fd, OBD_CODEC_NONE, 0, 1);
    struct writer *writer;
    struct compact *compact;
    struct image *image = open_rw();
    CHECK_OK(writer_open(&output, &writer));
    CHECK_FAILS(compact_open(image, writer, &as_reference, &compact), OBD_E_INVALID, "4096");
    writer_close(writer);
    image_unref(image);
    close(fd);
}

TEST_MAIN(T(upper_has_a_folder), T(commit_of_a_pair_equals_the_reference), T(commit_does_not_depend_on_its_steps),
          T(commit_of_a_committed_or_sealed_layer_equals_the_reference), T(merge_of_three_layers_equals_the_reference),
          T(commit_of_a_sparse_layer_equals_the_reference),
          T(commit_as_lz4_equals_the_reference_at_any_number_of_threads), T(commit_as_zstd_equals_the_reference),
          T(commit_of_long_runs_equals_the_reference), T(zero_blocks_stay_data_unless_looked_for),
          T(zero_blocks_that_are_found_become_zeroed_segments), T(zeroed_segments_of_a_lowest_layer_can_be_dropped),
          T(commit_joins_neighbours_that_are_shorter_than_the_longest_segment_together),
          T(commit_of_the_upper_alone_leaves_the_lowers_out), T(commit_begins_behind_the_header),
          T(upper_left_nothing_in_the_folder))
