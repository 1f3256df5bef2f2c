/* The decompressed view of a ZFile: right bytes, and damage that is named.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "zfile_image.h"

#include "base/clock.h"

#define SECONDS(n) (clock_now_ns() + (n)*NS_PER_SECOND)

static enum obd_status open_zfile(const struct zfile_image *image, struct source **out)
{
    struct source *file;
    CHECK_OK(source_open_file(image->path, &file));
    enum obd_status status = source_open_zfile(file, &image->params, SECONDS(10), out);
    source_unref(file); /* a zfile has its own reference */
    return status;
}

static void check_range(struct source *source, const struct zfile_image *image, size_t length, uint64_t offset)
{
    uint8_t *buffer = malloc(length + 1);
    CHECK_OK(source_read_wait(source, buffer, length, offset, SECONDS(10)));
    CHECK(memcmp(buffer, image->plain + offset, length) == 0);
    free(buffer);
}

static void check_reads(size_t size, uint32_t block_size, enum obd_codec codec, bool has_block_crc)
{
    struct zfile_image image;
    struct source *source;
    zfile_image_make(&image, size, block_size, codec, has_block_crc);
    CHECK_OK(open_zfile(&image, &source));
    CHECK(source->size == size);
    check_range(source, &image, size, 0);
    for (int i = 0; i < 100 && size > 0; i++) {
        uint64_t offset = (uint64_t)random() % size;
        check_range(source, &image, (size_t)random() % (size - offset + 1), offset);
    }
    CHECK_OK(source_verify_zfile(source, 0, image.params.nr_blocks, SECONDS(10)));
    source_unref(source);
    zfile_image_free(&image);
}

TEST(every_codec_and_block_size_reads_back)
{
    for (uint32_t block_size = 512; block_size <= 65536; block_size *= 2)
        for (int has_crc = 0; has_crc < 2; has_crc++) {
            check_reads(300000, block_size, OBD_CODEC_LZ4, has_crc);
            check_reads(300000, block_size, OBD_CODEC_ZSTD, has_crc);
        }
}

TEST(sizes_around_a_block_read_back)
{
    static const size_t sizes[] = {0,         1, 4095, 4096, 4097, 8191, 8192, 64 * 4096 - 1, 64 * 4096, 64 * 4096 + 1,
                                   128 * 4096};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        check_reads(sizes[i], 4096, OBD_CODEC_LZ4, true);
}

TEST(a_read_into_scattered_pieces_is_the_same)
{
    struct zfile_image image;
    struct source *source;
    struct demand demand;
    struct iovec iov[256];
    uint8_t buffer[60000];
    zfile_image_make(&image, 100000, 4096, OBD_CODEC_LZ4, true);
    CHECK_OK(open_zfile(&image, &source));
    demand_init(&demand, NULL);
    struct read_context context = {.demand = &demand};
    for (int round = 0; round < 50; round++) {
        size_t total = 0;
        int nr = 0;
        while (nr < 256 && total < sizeof buffer) {
            size_t length = (size_t)random() % (round % 2 == 0 ? 9000 : 600);
            length = length < sizeof buffer - total ? length : sizeof buffer - total;
            iov[nr++] = (struct iovec){.iov_base = buffer + total, .iov_len = length};
            total += length;
        }
        struct iov_cursor cursor = iov_cursor_at(iov, nr);
        uint64_t offset = (uint64_t)random() % (image.size - total);
        CHECK_OK(source_read(source, &context, &cursor, total, offset));
        CHECK(iov_cursor_left(&cursor) == 0);
        CHECK(memcmp(buffer, image.plain + offset, total) == 0);
    }
    demand_destroy(&demand);
    source_unref(source);
    zfile_image_free(&image);
}

TEST(a_zfile_inside_a_zfile_reads_back)
{
    struct zfile_image inner, outer;
    struct source *file, *middle, *source;
    zfile_image_make(&inner, 200000, 4096, OBD_CODEC_LZ4, true);
    zfile_image_make_of(&outer, inner.file, inner.file_size, 16384, OBD_CODEC_ZSTD, true);
    CHECK_OK(source_open_file(outer.path, &file));
    CHECK_OK(source_open_zfile(file, &outer.params, SECONDS(10), &middle));
    CHECK_OK(source_open_zfile(middle, &inner.params, SECONDS(10), &source));
    check_range(source, &inner, inner.size, 0);
    source_unref(source);
    source_unref(middle);
    source_unref(file);
    zfile_image_free(&inner);
    zfile_image_free(&outer);
}

TEST(a_flipped_byte_in_any_block_is_found_and_named)
{
    struct zfile_image image;
    zfile_image_make(&image, 60000, 4096, OBD_CODEC_LZ4, true);
    for (uint64_t block = 0; block < image.params.nr_blocks; block++) {
        struct source *source;
        uint8_t buffer[4096];
        char name[32];
        size_t begin = zfile_image_block_offset(&image, block), end = zfile_image_block_offset(&image, block + 1);
        size_t at = begin + (size_t)random() % (end - begin); /* its checksum included */
        image.file[at] ^= 0x10;
        zfile_image_store(&image);
        CHECK_OK(open_zfile(&image, &source));
        snprintf(name, sizeof name, "block %d of 15", (int)block);
        CHECK_FAILS(source_read_wait(source, buffer, 100, block * 4096, SECONDS(10)), OBD_E_CORRUPT, name);
        CHECK(strstr(status_text(), image.path) != NULL);
        CHECK_FAILS(source_verify_zfile(source, 0, image.params.nr_blocks, SECONDS(10)), OBD_E_CORRUPT, name);
        if (block > 0) /* and the others are as good as ever */
            check_range(source, &image, 4096, 0);
        source_unref(source);
        image.file[at] ^= 0x10;
    }
    zfile_image_free(&image);
}

/* ---- a source that can fetch again ------------------------------------------ */

/* Bytes in memory, some of them damaged until they are discarded.  A cold one
 * would have to wait for a disk. */
struct mending {
    struct source source; /* first */
    uint8_t *bytes;
    const uint8_t *good;
    int nr_discards;
    bool is_cold;
};

static enum obd_status mending_read(struct source *source, const struct read_context *context,
                                    struct iov_cursor *cursor, size_t length, uint64_t offset)
{
    struct mending *mending = (struct mending *)source;
    if (mending->is_cold && context->nowait)
        return OBD_E_AGAIN;
    iov_cursor_write(cursor, mending->bytes + offset, length);
    return OBD_OK;
}

static enum obd_status mending_discard(struct source *source, uint64_t offset, uint64_t length)
{
    struct mending *mending = (struct mending *)source;
    memcpy(mending->bytes + offset, mending->good + offset, length);
    mending->nr_discards++;
    return OBD_OK;
}

static void mending_destroy(struct source *source)
{
    free(((struct mending *)source)->bytes);
}

static const struct source_ops mending_ops = {
    .kind = "mending", .read = mending_read, .discard = mending_discard, .destroy = mending_destroy};

static struct source *open_mending(const struct zfile_image *image, struct mending *mending)
{
    struct source *source;
    *mending = (struct mending){.bytes = malloc(image->file_size), .good = image->file};
    memcpy(mending->bytes, image->file, image->file_size);
    CHECK_OK(source_init(&mending->source, &mending_ops, image->file_size, "mending"));
    CHECK_OK(source_open_zfile(&mending->source, &image->params, SECONDS(10), &source));
    return source;
}

static void damage(struct mending *mending, const struct zfile_image *image, uint64_t block)
{
    mending->bytes[zfile_image_block_offset(image, block) + 5] ^= 1;
}

TEST(blocks_read_again_do_not_disturb_those_around_them)
{
    struct zfile_image image;
    struct mending mending;
    zfile_image_make(&image, 100000, 4096, OBD_CODEC_LZ4, true);
    struct source *source = open_mending(&image, &mending);
    damage(&mending, &image, 3);
    damage(&mending, &image, 9);
    check_range(source, &image, image.size, 0);
    CHECK(mending.nr_discards == 2);
    source_unref(source);
    source_unref(&mending.source);
    zfile_image_free(&image);
}

TEST(a_block_may_fail_any_number_of_times_when_it_is_mended_each_time)
{
    struct zfile_image image;
    struct mending mending;
    zfile_image_make(&image, 100000, 4096, OBD_CODEC_LZ4, true);
    struct source *source = open_mending(&image, &mending);
    for (int round = 0; round < 5; round++)
        for (uint64_t block = 0; block < 24; block++) { /* more than there are places for suspects */
            damage(&mending, &image, block);
            check_range(source, &image, 4096, block * 4096);
        }
    CHECK(mending.nr_discards == 5 * 24);
    source_unref(source);
    source_unref(&mending.source);
    zfile_image_free(&image);
}

TEST(nowait_says_again_where_the_source_below_would_wait)
{
    struct zfile_image image;
    struct mending mending;
    struct demand demand;
    uint8_t buffer[4096];
    struct iovec iov = {buffer, sizeof buffer};
    struct iov_cursor cursor = iov_cursor_at(&iov, 1);
    zfile_image_make(&image, 100000, 4096, OBD_CODEC_LZ4, true);
    struct source *source = open_mending(&image, &mending);
    demand_init(&demand, NULL);
    struct read_context context = {.nowait = true, .demand = &demand};
    mending.is_cold = true;
    CHECK(source_read(source, &context, &cursor, 4096, 0) == OBD_E_AGAIN);
    mending.is_cold = false;
    cursor = iov_cursor_at(&iov, 1);
    CHECK_OK(source_read(source, &context, &cursor, 4096, 0));
    CHECK(memcmp(buffer, image.plain, 4096) == 0);
    demand_destroy(&demand);
    source_unref(source);
    source_unref(&mending.source);
    zfile_image_free(&image);
}

/* Without checksums the decoder alone has to survive it: a wrong answer of the
 * right length is possible, a crash or a short one is not. */
TEST(noise_without_checksums_is_refused_or_read_but_never_crashes)
{
    static const enum obd_codec codecs[] = {OBD_CODEC_LZ4, OBD_CODEC_ZSTD};
    for (int i = 0; i < 200; i++) {
        struct zfile_image image;
        struct source *source;
        uint8_t buffer[30000];
        zfile_image_make(&image, sizeof buffer, 4096, codecs[i % 2], false);
        for (int k = 0; k < 20; k++)
            image.file[512 + (size_t)random() % (image.params.index_offset - 512)] = (uint8_t)random();
        zfile_image_store(&image);
        CHECK_OK(open_zfile(&image, &source));
        enum obd_status status = source_read_wait(source, buffer, sizeof buffer, 0, SECONDS(10));
        CHECK(status == OBD_OK || status == OBD_E_CORRUPT);
        source_unref(source);
        zfile_image_free(&image);
    }
}

/* ---- what open refuses ---------------------------------------------------- */

static void check_open_fails(const struct zfile_image *image, enum obd_status expected, const char *part)
{
    struct source *source = NULL;
    CHECK_FAILS(open_zfile(image, &source), expected, part);
    CHECK(source == NULL);
}

TEST(open_refuses_parameters_that_make_no_sense)
{
    struct zfile_image good, bad;
    zfile_image_make(&good, 100000, 4096, OBD_CODEC_LZ4, true);
#define BAD(change, status, part)                                                                                      \
    do {                                                                                                               \
        bad = good;                                                                                                    \
        bad.params.change;                                                                                             \
        check_open_fails(&bad, status, part);                                                                          \
    } while (0)
    BAD(codec = 0, OBD_E_UNSUPPORTED, "algorithm 0");
    BAD(codec = 3, OBD_E_UNSUPPORTED, "algorithm 3");
    BAD(block_size = 0, OBD_E_CORRUPT, "block size 0");
    BAD(block_size = 256, OBD_E_CORRUPT, "block size 256");
    BAD(block_size = 4095, OBD_E_CORRUPT, "block size 4095");
    BAD(block_size = 131072, OBD_E_CORRUPT, "block size 131072");
    BAD(nr_blocks = 24, OBD_E_CORRUPT, "24 blocks of 4096 bytes cannot hold 100000 bytes");
    BAD(nr_blocks = 26, OBD_E_CORRUPT, "26 blocks");
    BAD(nr_blocks = UINT64_MAX, OBD_E_CORRUPT, "more than");
    BAD(original_size = 25 * 4096 + 1, OBD_E_CORRUPT, "cannot hold");
    BAD(original_size = UINT64_MAX, OBD_E_CORRUPT, "cannot hold");
    BAD(index_offset = good.file_size - 40, OBD_E_CORRUPT, "outside of the file");
    BAD(index_offset = UINT64_MAX - 3, OBD_E_CORRUPT, "outside of the file");
    BAD(index_offset = 520, OBD_E_CORRUPT, "no room before the jump table");
    BAD(index_offset = 100, OBD_E_CORRUPT, "no room before the jump table");
    BAD(index_crc ^= 1, OBD_E_CORRUPT, "jump table: checksum");
    BAD(block_size = 8192, OBD_E_CORRUPT, "cannot hold");
#undef BAD
    zfile_image_free(&good);
}

static void set_length(struct zfile_image *image, uint64_t block, uint32_t stored)
{
    memcpy(image->file + image->params.index_offset + 4 * block, &stored, sizeof stored);
    image->params.has_index_crc = 0;
    zfile_image_store(image);
}

TEST(open_refuses_hostile_jump_tables)
{
    static const struct {
        uint32_t stored;
        const char *part;
    } rows[] = {
        {0, "block 7 is 0 bytes long"},
        {4, "block 7 is 4 bytes long"}, /* a checksum of nothing */
        {4096 + 512 + 5, "block 7 is 4613 bytes long"},
        {UINT32_MAX, "block 7 is 4294967295 bytes long"},
    };
    struct zfile_image image;
    zfile_image_make(&image, 100000, 4096, OBD_CODEC_LZ4, true);
    uint32_t right;
    memcpy(&right, image.file + image.params.index_offset + 28, sizeof right);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        set_length(&image, 7, rows[i].stored);
        check_open_fails(&image, OBD_E_CORRUPT, rows[i].part);
    }
    set_length(&image, 7, right + 1); /* the last block then reaches into the table */
    check_open_fails(&image, OBD_E_CORRUPT, "past the end of the blocks");
    zfile_image_free(&image);
}

TEST(open_refuses_a_truncated_file)
{
    struct zfile_image image;
    zfile_image_make(&image, 100000, 4096, OBD_CODEC_LZ4, true);
    image.file_size = image.params.index_offset + 10;
    zfile_image_store(&image);
    check_open_fails(&image, OBD_E_CORRUPT, "outside of the file");
    zfile_image_free(&image);
}

TEST(a_file_cut_after_it_was_opened_is_corrupt_not_zeros)
{
    struct zfile_image image;
    struct source *source;
    uint8_t buffer[4096];
    zfile_image_make(&image, 100000, 4096, OBD_CODEC_LZ4, true);
    CHECK_OK(open_zfile(&image, &source));
    CHECK(truncate(image.path, 2000) == 0);
    CHECK_FAILS(source_read_wait(source, buffer, 4096, 90000, SECONDS(10)), OBD_E_CORRUPT, "shorter than");
    source_unref(source);
    zfile_image_free(&image);
}

TEST(verify_refuses_what_is_no_zfile_and_blocks_that_are_not_there)
{
    struct zfile_image image;
    struct source *file, *source;
    zfile_image_make(&image, 10000, 4096, OBD_CODEC_LZ4, true);
    CHECK_OK(source_open_file(image.path, &file));
    CHECK_FAILS(source_verify_zfile(file, 0, 1, SECONDS(1)), OBD_E_INVALID, "read as a file");
    CHECK_OK(source_open_zfile(file, &image.params, SECONDS(1), &source));
    CHECK_FAILS(source_verify_zfile(source, 2, 2, SECONDS(1)), OBD_E_INVALID, "blocks 2 to 4 of 3");
    CHECK_OK(source_verify_zfile(source, 3, 0, SECONDS(1)));
    source_unref(source);
    source_unref(file);
    zfile_image_free(&image);
}

TEST_MAIN(T(every_codec_and_block_size_reads_back), T(sizes_around_a_block_read_back),
          T(a_read_into_scattered_pieces_is_the_same), T(a_zfile_inside_a_zfile_reads_back),
          T(a_flipped_byte_in_any_block_is_found_and_named), T(blocks_read_again_do_not_disturb_those_around_them),
          T(a_block_may_fail_any_number_of_times_when_it_is_mended_each_time),
          T(nowait_says_again_where_the_source_below_would_wait),
          T(noise_without_checksums_is_refused_or_read_but_never_crashes),
          T(open_refuses_parameters_that_make_no_sense), T(open_refuses_hostile_jump_tables),
          T(open_refuses_a_truncated_file), T(a_file_cut_after_it_was_opened_is_corrupt_not_zeros),
          T(verify_refuses_what_is_no_zfile_and_blocks_that_are_not_there))
