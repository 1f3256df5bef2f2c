/* Tests of the image: what a stack reads as and is made of; opening and closing it. */
#define _GNU_SOURCE
#include <errno.h>

#include "check.h"

#include "memory_layer.h"
#include "upper_pair.h"
#include "vector_files.h"

/* ---- content ---- */

TEST(image_of_the_stack_vectors_reads_as_their_merge)
{
    struct layer *lowers[] = {open_vector_layer(VECTORS "stack/l1.lsmt"), open_vector_layer(VECTORS "stack/l2.lsmt"),
                              open_vector_layer(VECTORS "stack/l3.lsmt")};
    struct image *stack = open_image(lowers, 3, NULL, 2 << 20);
    struct image *merged = open_image_of(open_vector_layer(VECTORS "stack/merged.lsmt"));
    char *a = malloc(2 << 20), *b = malloc(2 << 20);
    memset(a, 0xaa, 2 << 20);
    memset(b, 0xbb, 2 << 20);
    read_image(stack, a, 2 << 20, 0);
    for (size_t at = 0; at < 2 << 20; at += 512) /* sector by sector is the same */
        read_image(merged, b + at, 512, at);
    CHECK(memcmp(a, b, 2 << 20) == 0);
    free(a);
    free(b);
    image_unref(stack);
    image_unref(merged);
}

/* Random segments for one layer: sorted, apart, some zeroed. */
static size_t random_segments(struct segment *out, size_t max)
{
    size_t nr = 0;
    uint64_t at = (uint64_t)rand() % 50;
    while (nr < max && at < SECTORS) {
        uint64_t length = 1 + (uint64_t)rand() % 60;
        length = at + length > SECTORS ? SECTORS - at : length;
        out[nr++] = (struct segment){.offset = at,
                                     .length = length,
                                     .moffset = 8 + (uint64_t)rand() % (SECTORS - 60),
                                     .zeroed = rand() % 4 == 0};
        at += length + (rand() % 3 == 0 ? 0 : (uint64_t)rand() % 60);
    }
    return nr;
}

static void apply_to_model(uint8_t *model, const struct segment *segments, size_t nr, int number)
{
    for (size_t i = 0; i < nr; i++)
        for (uint64_t k = 0; k < segments[i].length * 512u; k++)
            model[segments[i].offset * 512 + k] =
                segments[i].zeroed ? 0 : byte_at((uint64_t)segments[i].moffset * 512 + k, number);
}

static void check_random_reads(struct image *image, const uint8_t *model, int nr)
{
    uint8_t *buffer = malloc(SIZE);
    for (int i = 0; i < nr; i++) {
        uint64_t first = (uint64_t)rand() % SECTORS, length = 1 + (uint64_t)rand() % (SECTORS - first);
        memset(buffer, 0xcc, length * 512);
        read_image(image, buffer, length * 512, first * 512);
        CHECK(memcmp(buffer, model + first * 512, length * 512) == 0);
    }
    free(buffer);
}

/* Writes and discards into the upper and the model. */
static void random_writes(struct image *image, uint8_t *model, int nr)
{
    static uint8_t buffer[64 * 512];
    for (int i = 0; i < nr; i++) {
        uint64_t first = (uint64_t)rand() % SECTORS, length = 1 + (uint64_t)rand() % 64;
        length = first + length > SECTORS ? SECTORS - first : length;
        if (rand() % 4 == 0) {
            CHECK_OK(obd_image_discard(image, length * 512, first * 512, 10000));
            memset(model + first * 512, 0, length * 512);
            continue;
        }
        for (size_t k = 0; k < length * 512; k++)
            buffer[k] = (uint8_t)rand();
        CHECK_OK(obd_image_write(image, buffer, length * 512, first * 512, 10000));
        memcpy(model + first * 512, buffer, length * 512);
    }
}

static void check_random_stack(size_t nr_layers)
{
    static uint8_t model[SIZE];
    struct layer *lowers[OBD_MAX_LAYERS];
    struct segment segments[SECTORS];
    memset(model, 0, sizeof model);
    for (size_t i = 0; i < nr_layers; i++) {
        size_t nr = random_segments(segments, SECTORS);
        lowers[i] = make_layer(segments, nr, (int)i);
        apply_to_model(model, segments, nr, (int)i);
    }
    new_pair();
    struct image *image = open_image(lowers, nr_layers, open_upper(0), SIZE);
    check_random_reads(image, model, 20);
    random_writes(image, model, 300);
    check_random_reads(image, model, 20);
    CHECK_OK(obd_image_close(image));
}

TEST(image_of_random_layers_reads_as_a_plain_model)
{
    srand(42);
    for (int i = 0; i < 10; i++)
        check_random_stack((size_t)i);
    check_random_stack(OBD_MAX_LAYERS);
}

/* ---- extents ---- */

static bool is_extent(struct obd_extent e, uint64_t first, uint64_t sectors, enum obd_extent_kind kind, int layer)
{
    return e.offset == first * 512 && e.length == sectors * 512 && e.kind == kind && e.layer == layer;
}

TEST(image_extents_say_what_a_range_is_made_of)
{
    struct segment low[] = {{.offset = 0, .length = 10, .moffset = 8}, {.offset = 10, .length = 10, .moffset = 100}};
    struct segment high[] = {{.offset = 30, .length = 10, .zeroed = 1}};
    struct layer *lowers[] = {make_layer(low, 2, 0), make_layer(high, 1, 1)};
    struct obd_extent e[10];
    size_t nr;
    new_pair();
    struct image *image = open_image(lowers, 2, open_upper(0), SIZE);
    static char bytes[5 * 512];
    CHECK_OK(obd_image_write(image, bytes, sizeof bytes, 35 * 512, 1000));
    CHECK_OK(obd_image_discard(image, 512, 40 * 512, 1000));

    CHECK_OK(obd_image_extents(image, 0, SIZE, e, 10, &nr));
    CHECK(nr == 6);
    CHECK(is_extent(e[0], 0, 20, OBD_EXTENT_DATA, 0)); /* two neighbours of one kind and layer */
    CHECK(is_extent(e[1], 20, 10, OBD_EXTENT_HOLE, -1));
    CHECK(is_extent(e[2], 30, 5, OBD_EXTENT_ZERO, 1));
    CHECK(is_extent(e[3], 35, 5, OBD_EXTENT_DATA, 2));
    CHECK(is_extent(e[4], 40, 1, OBD_EXTENT_ZERO, 2));
    CHECK(is_extent(e[5], 41, SECTORS - 41, OBD_EXTENT_HOLE, -1));

    CHECK_OK(obd_image_extents(image, 5 * 512, 27 * 512, e, 2, &nr)); /* clipped, and short of room */
    CHECK(nr == 2 && is_extent(e[0], 5, 15, OBD_EXTENT_DATA, 0) && is_extent(e[1], 20, 10, OBD_EXTENT_HOLE, -1));
    CHECK_OK(obd_image_close(image));
}

TEST(image_extents_of_a_fragmented_upper_are_complete)
{
    static struct obd_extent e[SECTORS + 1];
    char bytes[512] = {1};
    size_t nr;
    new_pair();
    struct image *image = open_image(NULL, 0, open_upper(0), SIZE);
    for (uint64_t i = 0; i < SECTORS; i += 2)
        CHECK_OK(obd_image_write(image, bytes, 512, i * 512, 10000));
    CHECK_OK(obd_image_extents(image, 0, SIZE, e, SECTORS + 1, &nr));
    CHECK(nr == SECTORS);
    for (uint64_t i = 0; i < SECTORS; i++)
        CHECK(is_extent(e[i], i, 1, i % 2 == 0 ? OBD_EXTENT_DATA : OBD_EXTENT_HOLE, i % 2 == 0 ? 0 : -1));
    CHECK_OK(obd_image_close(image));
}

/* ---- open, close, refusals ---- */

TEST(image_without_an_upper_refuses_writes)
{
    char bytes[512] = {0};
    struct layer *layer = make_layer(NULL, 0, 0);
    struct image *image = open_image(&layer, 1, NULL, SIZE);
    CHECK(obd_image_is_read_only(image));
    CHECK_FAILS(obd_image_write(image, bytes, 512, 0, 1000), OBD_E_READ_ONLY, "image test");
    CHECK_FAILS(obd_image_discard(image, 512, 0, 1000), OBD_E_READ_ONLY, "image test");
    CHECK_OK(obd_image_flush(image));
    struct obd_upper_stats stats;
    CHECK_FAILS(obd_image_upper_stats(image, &stats), OBD_E_NOT_FOUND, "no upper");
    CHECK_OK(obd_image_close(image));
}

TEST(image_refuses_ranges_that_are_no_sectors_or_not_inside)
{
    char bytes[1024] = {0};
    struct layer *layer = make_layer(NULL, 0, 0);
    struct image *image = open_image(&layer, 1, NULL, SIZE);
    CHECK_FAILS(obd_image_read(image, bytes, 100, 0, 1000), OBD_E_INVALID, "100");
    CHECK_FAILS(obd_image_read(image, bytes, 512, 100, 1000), OBD_E_INVALID, "100");
    CHECK_FAILS(obd_image_read(image, bytes, 1024, SIZE - 512, 1000), OBD_E_RANGE, "outside");
    CHECK_FAILS(obd_image_read(image, bytes, 512, UINT64_MAX - 511, 1000), OBD_E_RANGE, "outside");
    CHECK_OK(obd_image_close(image));
}

TEST(image_open_refuses_impossible_stacks_and_closes_the_upper)
{
    struct image *image;
    struct layer *many[OBD_MAX_LAYERS + 1];
    struct layer *layer = make_layer(NULL, 0, 0);
    for (size_t i = 0; i <= OBD_MAX_LAYERS; i++)
        many[i] = layer;
    new_pair();
    CHECK_FAILS(image_open(many, OBD_MAX_LAYERS + 1, open_upper(0), SIZE, "x", &image), OBD_E_LIMIT, "256");
    CHECK_FAILS(image_open(NULL, 0, NULL, SIZE, "x", &image), OBD_E_INVALID, "no layer");
    CHECK_FAILS(image_open(many, 1, open_upper(0), 1000, "x", &image), OBD_E_INVALID, "1000");
    CHECK_FAILS(image_open(many, 1, open_upper(0), 0, "x", &image), OBD_E_INVALID, " 0 bytes");
    CHECK_OK(upper_close(open_upper(0))); /* nobody holds it any more */
    layer_unref(layer);
}

TEST(image_close_says_what_closing_its_upper_said)
{
    char bytes[512] = {0};
    new_pair();
    struct image *image = open_image(NULL, 0, open_upper(0), SIZE);
    CHECK_OK(obd_image_write(image, bytes, 512, 0, 1000));
    fail_file("/index", "write", 1, ENOSPC, 1);
    struct image *second = image_ref(image);
    CHECK_OK(obd_image_close(second)); /* not the last */
    CHECK_FAILS(obd_image_close(image), OBD_E_NO_SPACE, index_path);
    no_faults();
    CHECK_OK(upper_close(open_upper(0)));
}

TEST(image_write_waits_for_journal_room_and_not_for_ever)
{
    char bytes[512] = {0};
    new_pair();
    struct image *image = open_image(NULL, 0, open_upper(0), SIZE);
    for (int i = 0; i < 1000; i++) /* 64 slots */
        CHECK_OK(obd_image_write(image, bytes, 512, 0, 10000));
    struct upper *upper = image_upper(image);
    CHECK_OK(image_flush(image));
    pthread_mutex_lock(&upper->map_lock);
    upper->slots_reserved += 64; /* as if writes held every slot */
    pthread_mutex_unlock(&upper->map_lock);
    CHECK_FAILS(obd_image_write(image, bytes, 512, 0, 20), OBD_E_TIMEOUT, "journal");
    CHECK_FAILS(obd_image_discard(image, 512, 0, 20), OBD_E_TIMEOUT, "journal");
    pthread_mutex_lock(&upper->map_lock);
    upper->slots_reserved -= 64;
    pthread_mutex_unlock(&upper->map_lock);
    CHECK_OK(obd_image_close(image));
}

/* ---- layers ---- */

TEST(layer_whose_index_is_not_inside_its_file_is_refused)
{
    struct source *source;
    struct layer *layer;
    CHECK_OK(source_open_file(VECTORS "commit/raw.lsmt", &source));
    uint64_t end = source->size - 4096;
    struct obd_layer_params bad[] = {{.index_offset = end, .nr_entries = 1},
                                     {.index_offset = 0, .nr_entries = 1},
                                     {.index_offset = UINT64_MAX - 15, .nr_entries = 256},
                                     {.index_offset = end - 4096, .nr_entries = 257}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_FAILS(layer_open(source, &bad[i], UINT64_MAX, &layer), OBD_E_CORRUPT, "is not inside");
    struct obd_layer_params many = {.index_offset = 4096, .nr_entries = OBD_MAX_LAYER_SEGMENTS + 1};
    CHECK_FAILS(layer_open(source, &many, UINT64_MAX, &layer), OBD_E_LIMIT, "1000001");
    source_unref(source);
}

TEST(layer_index_entry_that_breaks_a_rule_is_named)
{
    struct source *source;
    struct layer *layer;
    CHECK_OK(source_open_file(VECTORS "commit/raw.lsmt", &source));
    struct obd_layer_params params = {.index_offset = 8192, .nr_entries = 10}; /* text, as an index */
    CHECK_FAILS(layer_open(source, &params, UINT64_MAX, &layer), OBD_E_CORRUPT, "index entry");
    CHECK(strstr(status_text(), "commit/raw.lsmt") != NULL);
    source_unref(source);
}

TEST(layer_of_a_raw_file_with_half_a_sector_ends_in_zeros)
{
    struct layer *layer;
    struct image *image;
    uint8_t sectors[1024], zeros[24] = {0};
    new_pair();
    FILE *raw = fopen(data_path, "w");
    CHECK(raw != NULL && fprintf(raw, "%01000d", 7) == 1000 && fclose(raw) == 0);
    CHECK_OK(layer_open_raw(data_path, &layer));
    CHECK(layer->virtual_size == sizeof sectors);
    CHECK_OK(image_open(&layer, 1, NULL, sizeof sectors, "raw", &image));
    memset(sectors, 0xff, sizeof sectors);
    CHECK_OK(obd_image_read(image, sectors, sizeof sectors, 0, 1000));
    CHECK(sectors[998] == '0' && sectors[999] == '7');
    CHECK(memcmp(sectors + 1000, zeros, sizeof zeros) == 0);
    CHECK_OK(obd_image_close(image));
    layer_unref(layer);
    CHECK_FAILS(layer_open_raw("/nonexistent", &layer), OBD_E_NOT_FOUND, "/nonexistent");
}

TEST_MAIN(T(upper_has_a_folder), T(image_of_the_stack_vectors_reads_as_their_merge),
          T(image_of_random_layers_reads_as_a_plain_model), T(image_extents_say_what_a_range_is_made_of),
          T(image_extents_of_a_fragmented_upper_are_complete), T(image_without_an_upper_refuses_writes),
          T(image_refuses_ranges_that_are_no_sectors_or_not_inside),
          T(image_open_refuses_impossible_stacks_and_closes_the_upper), T(image_close_says_what_closing_its_upper_said),
          T(image_write_waits_for_journal_room_and_not_for_ever),
          T(layer_whose_index_is_not_inside_its_file_is_refused), T(layer_index_entry_that_breaks_a_rule_is_named),
          T(layer_of_a_raw_file_with_half_a_sector_ends_in_zeros), T(upper_left_nothing_in_the_folder))
