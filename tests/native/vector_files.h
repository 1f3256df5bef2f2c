/* vector_files: the reference's layers under tests/golden/vectors, opened with no
 * Python: the few fields of headers and trailers that are needed are read here.
 *
 * Tests run in tests/native.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef VECTOR_FILES_H
#define VECTOR_FILES_H

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "image/image.h"

#define VECTORS "../golden/vectors/"

struct bytes {
    uint8_t *at;
    size_t length;
};

static inline struct bytes read_whole(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    struct bytes bytes = {.at = malloc((size_t)st.st_size + 1), .length = (size_t)st.st_size};
    CHECK(read(fd, bytes.at, bytes.length) == st.st_size);
    close(fd);
    return bytes;
}

static inline uint64_t u64_at(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* A committed or sealed LSMT file, its trailer read through source. */
static inline struct layer *layer_from(struct source *source)
{
    uint8_t trailer[4096];
    struct layer *layer;
    CHECK_OK(source_read_wait(source, trailer, sizeof trailer, source->size - sizeof trailer, UINT64_MAX));
    struct obd_layer_params params = {
        .index_offset = u64_at(trailer + 32), .nr_entries = u64_at(trailer + 40), .virtual_size = u64_at(trailer + 48)};
    CHECK_OK(layer_open(source, &params, UINT64_MAX, &layer));
    return layer;
}

static inline struct layer *open_vector_layer(const char *path)
{
    struct source *source;
    CHECK_OK(source_open_file(path, &source));
    struct layer *layer = layer_from(source);
    source_unref(source);
    return layer;
}

/* A ZFile whose header was overwritten, so that it says it all. */
static inline struct layer *open_vector_zfile(const char *path)
{
    struct source *file, *zfile;
    uint8_t h[512];
    CHECK_OK(source_open_file(path, &file));
    CHECK_OK(source_read_wait(file, h, sizeof h, 0, UINT64_MAX));
    struct obd_zfile_params params = {.index_offset = u64_at(h + 40),
                                      .nr_blocks = u64_at(h + 48),
                                      .original_size = u64_at(h + 56),
                                      .block_size = (uint32_t)u64_at(h + 72),
                                      .codec = h[76],
                                      .has_block_crc = h[88],
                                      .has_index_crc = 1,
                                      .index_crc = (uint32_t)u64_at(h + 64)};
    CHECK_OK(source_open_zfile(file, &params, UINT64_MAX, &zfile));
    struct layer *layer = layer_from(zfile);
    source_unref(zfile);
    source_unref(file);
    return layer;
}

static inline struct image *open_image(struct layer **lowers, size_t nr, struct upper *upper, uint64_t virtual_size)
{
    struct image *image;
    CHECK_OK(image_open(lowers, nr, upper, virtual_size, "test", &image));
    for (size_t i = 0; i < nr; i++)
        layer_unref(lowers[i]); /* the image has its own */
    return image;
}

static inline struct image *open_image_of(struct layer *layer)
{
    return open_image(&layer, 1, NULL, layer->virtual_size);
}

/* A pair as the reference left it, read as a tool would. */
static inline struct image *open_vector_pair(const char *data_path, const char *index_path)
{
    struct bytes index = read_whole(index_path);
    char uuid[37] = "";
    memcpy(uuid, index.at + 56, 36);
    struct obd_upper_params params = {.data_path = data_path,
                                      .index_path = index_path,
                                      .uuid = uuid,
                                      .virtual_size = u64_at(index.at + 48),
                                      .flags = OBD_UPPER_READ_ONLY};
    struct upper *upper;
    CHECK_OK(upper_open(&params, &upper));
    free(index.at);
    return open_image(NULL, 0, upper, params.virtual_size);
}

static inline void read_image(struct image *image, void *buffer, size_t length, uint64_t offset)
{
    CHECK_OK(obd_image_read(image, buffer, length, offset, 10000));
}

#endif
