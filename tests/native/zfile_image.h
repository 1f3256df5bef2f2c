/* zfile_image: ZFiles made by hand, in a temporary file, for tests of the reader.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ZFILE_IMAGE_H
#define ZFILE_IMAGE_H

#include <fcntl.h>
#include <unistd.h>

#include "check.h"

#include "codec/codec.h"
#include "codec/crc32c.h"
#include "source/source.h"

struct zfile_image {
    char path[64];
    uint8_t *plain; /* what it must read as */
    size_t size;
    uint8_t *file; /* what lies in path */
    size_t file_size;
    struct obd_zfile_params params;
};

/* Text that compresses, with a stretch of noise that does not. */
static inline void fill_plain(uint8_t *plain, size_t size)
{
    for (size_t i = 0; i < size; i++)
        plain[i] = i / 5000 % 3 == 2 ? (uint8_t)random() : (uint8_t)(i / 7 % 11);
}

static inline void append(struct zfile_image *image, const void *bytes, size_t length)
{
    memcpy(image->file + image->file_size, bytes, length);
    image->file_size += length;
}

static inline void append_block(struct zfile_image *image, const uint8_t *plain, size_t length, uint32_t *stored_size)
{
    static uint8_t stored[2 << 16];
    const struct codec *codec = codec_find((enum obd_codec)image->params.codec);
    size_t stored_length = codec->compress(codec_context_of_thread(), plain, length, stored, sizeof stored);
    CHECK(stored_length > 0);
    uint32_t crc = crc32c_raw(stored, stored_length, CRC32C_BLOCK_SEED);
    append(image, stored, stored_length);
    if (image->params.has_block_crc)
        append(image, &crc, sizeof crc);
    *stored_size = (uint32_t)stored_length + (image->params.has_block_crc ? 4 : 0);
}

/* Writes image->file over the file again, after a test has changed it. */
static inline void zfile_image_store(const struct zfile_image *image)
{
    int fd = open(image->path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(write(fd, image->file, image->file_size) == (ssize_t)image->file_size);
    close(fd);
}

/* A ZFile of the given bytes, which it copies. */
static inline void zfile_image_make_of(struct zfile_image *image, const void *plain, size_t size, uint32_t block_size,
                                       enum obd_codec codec, bool has_block_crc)
{
    uint64_t nr = (size + block_size - 1) / block_size;
    *image = (struct zfile_image){.size = size};
    image->params = (struct obd_zfile_params){.nr_blocks = nr,
                                              .original_size = size,
                                              .block_size = block_size,
                                              .codec = codec,
                                              .has_block_crc = has_block_crc,
                                              .has_index_crc = 1};
    image->plain = malloc(size + 1);
    image->file = calloc(1, 2048 + 2 * size + 700 * nr);
    uint32_t *lengths = calloc(nr + 1, sizeof *lengths);
    memcpy(image->plain, plain, size);
    image->file_size = 512; /* the header, which only Python reads */
    for (uint64_t block = 0; block < nr; block++) {
        size_t begin = block * block_size, length = size - begin < block_size ? size - begin : block_size;
        append_block(image, image->plain + begin, length, &lengths[block]);
    }
    image->params.index_offset = image->file_size;
    image->params.index_crc = crc32c_raw(lengths, nr * sizeof *lengths, 0);
    append(image, lengths, nr * sizeof *lengths);
    image->file_size += 512; /* the trailer */
    free(lengths);
    strcpy(image->path, "/tmp/obd-zfile-XXXXXX");
    int fd = mkstemp(image->path);
    CHECK(fd >= 0);
    close(fd);
    zfile_image_store(image);
}

static inline void zfile_image_make(struct zfile_image *image, size_t size, uint32_t block_size, enum obd_codec codec,
                                    bool has_block_crc)
{
    uint8_t *plain = malloc(size + 1);
    fill_plain(plain, size);
    zfile_image_make_of(image, plain, size, block_size, codec, has_block_crc);
    free(plain);
}

static inline void zfile_image_free(struct zfile_image *image)
{
    unlink(image->path);
    free(image->plain);
    free(image->file);
}

/* The place of a block's stored bytes in the file, from the jump table as it was made. */
static inline size_t zfile_image_block_offset(const struct zfile_image *image, uint64_t block)
{
    size_t offset = 512;
    for (uint64_t i = 0; i < block; i++) {
        uint32_t stored;
        memcpy(&stored, image->file + image->params.index_offset + 4 * i, sizeof stored);
        offset += stored;
    }
    return offset;
}

#endif
