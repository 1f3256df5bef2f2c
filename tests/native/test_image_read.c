/* Tests of reading an image: how few reads it takes, and what it notes when data is missing. */
#define _GNU_SOURCE
#include "check.h"

#include "memory_layer.h"
#include "vector_files.h"

/* ---- how it reads ---- */

/* One segment, in a file of scattered buffers of 4 KiB. */
static void read_scattered(struct image *image, uint8_t *bytes, size_t nr)
{
    struct demand demand;
    struct iovec iov[64];
    demand_init(&demand, NULL);
    for (size_t i = 0; i < nr; i++)
        iov[i] = (struct iovec){.iov_base = bytes + (nr - 1 - i) * 4096, .iov_len = 4096};
    struct iov_cursor cursor = iov_cursor_at(iov, (int)nr);
    struct read_context context = {.demand = &demand};
    CHECK_OK(image_read(image, &context, &cursor, nr * 4096, 0));
    demand_destroy(&demand);
}

TEST(image_reads_one_segment_at_once_however_its_buffers_lie)
{
    static uint8_t bytes[64 * 4096];
    struct segment segment = {.length = 512, .moffset = 8};
    struct layer *layer = make_layer(&segment, 1, 1);
    struct image *image = open_image(&layer, 1, NULL, SIZE);
    read_scattered(image, bytes, 64);
    CHECK(memory_of(layer)->nr_reads == 1);
    CHECK(memory_of(layer)->longest == sizeof bytes && memory_of(layer)->nr_pieces == 64);
    CHECK(bytes[63 * 4096] == byte_at(4096, 1) && bytes[0] == byte_at(4096 + 63 * 4096, 1));
    image_unref(image);
}

TEST(image_joins_neighbours_that_continue_each_other)
{
    static uint8_t bytes[SIZE];
    struct segment segments[] = {{.offset = 0, .length = 10, .moffset = 8},
                                 {.offset = 10, .length = 20, .moffset = 18},
                                 {.offset = 30, .length = 5, .moffset = 100},  /* elsewhere */
                                 {.offset = 36, .length = 4, .moffset = 105}}; /* a hole between */
    struct layer *layer = make_layer(segments, 4, 1);
    struct image *image = open_image(&layer, 1, NULL, SIZE);
    read_image(image, bytes, SIZE, 0);
    CHECK(memory_of(layer)->nr_reads == 3 && memory_of(layer)->longest == 30 * 512);
    image_unref(image);
}

TEST(image_reads_nothing_for_what_no_layer_has)
{
    static uint8_t bytes[SIZE];
    struct segment segment = {.offset = 0, .length = 1000, .moffset = 8, .zeroed = 1};
    struct layer *layer = make_layer(&segment, 1, 1);
    struct image *image = open_image(&layer, 1, NULL, SIZE);
    memset(bytes, 1, SIZE);
    read_image(image, bytes, SIZE, 0);
    CHECK(memory_of(layer)->nr_reads == 0);
    for (size_t i = 0; i < SIZE; i++)
        CHECK(bytes[i] == 0);
    image_unref(image);
}

/* ---- what is missing ---- */

static void not_ready(struct demand *demand)
{
    (void)demand;
}

static struct image *two_layers(struct layer **bottom, struct layer **top)
{
    struct segment low[] = {{.offset = 0, .length = 10, .moffset = 8}, {.offset = 90, .length = 10, .moffset = 50}};
    struct segment high[] = {{.offset = 10, .length = 10, .moffset = 8}, {.offset = 50, .length = 1, .moffset = 90}};
    struct layer *lowers[] = {make_layer(low, 2, 0), make_layer(high, 2, 1)};
    *bottom = lowers[0];
    *top = lowers[1];
    return open_image(lowers, 2, NULL, SIZE);
}

TEST(image_read_notes_every_absent_chunk_before_it_says_miss)
{
    static uint8_t bytes[100 * 512];
    struct layer *bottom, *top;
    struct demand demand;
    struct image *image = two_layers(&bottom, &top);
    demand_init(&demand, not_ready);
    memory_of(bottom)->is_missing = memory_of(top)->is_missing = true;
    CHECK(read_nowait(image, bytes, sizeof bytes, 0, &demand, false) == OBD_E_MISS);
    CHECK(demand.bytes == 4 * 512);
    demand_release(&demand);
    memory_of(top)->is_missing = false;
    CHECK(read_nowait(image, bytes, sizeof bytes, 0, &demand, true) == OBD_E_MISS);
    CHECK(demand.bytes == 2 * 512);
    demand_destroy(&demand);
    image_unref(image);
}

TEST(image_read_that_would_block_says_again_only_when_it_may_not_wait)
{
    static uint8_t bytes[100 * 512];
    struct layer *bottom, *top;
    struct demand demand;
    struct image *image = two_layers(&bottom, &top);
    demand_init(&demand, not_ready);
    memory_of(top)->would_block = true;
    CHECK(read_nowait(image, bytes, sizeof bytes, 0, &demand, true) == OBD_E_AGAIN);
    CHECK_OK(read_nowait(image, bytes, sizeof bytes, 0, &demand, false));
    demand_destroy(&demand);
    image_unref(image);
}

TEST(image_read_of_a_tool_waits_for_what_is_missing)
{
    static uint8_t bytes[100 * 512];
    struct layer *bottom, *top;
    struct image *image = two_layers(&bottom, &top);
    memory_of(bottom)->is_missing = memory_of(top)->is_missing = true;
    read_image(image, bytes, sizeof bytes, 0);
    CHECK(bytes[0] == byte_at(4096, 0) && bytes[50 * 512] == byte_at(90 * 512, 1));
    image_unref(image);
}

TEST(image_read_error_names_the_layer_and_the_image)
{
    char bytes[512];
    struct segment far = {.length = 1, .moffset = 100000};
    struct layer *lowers[] = {make_layer(NULL, 0, 0), make_layer(&far, 1, 1)};
    struct image *image = open_image(lowers, 2, NULL, SIZE);
    CHECK_FAILS(obd_image_read(image, bytes, 512, 0, 1000), OBD_E_CORRUPT, "layer 2 of image test: memory");
    image_unref(image);
}

TEST_MAIN(T(image_reads_one_segment_at_once_however_its_buffers_lie),
          T(image_joins_neighbours_that_continue_each_other), T(image_reads_nothing_for_what_no_layer_has),
          T(image_read_notes_every_absent_chunk_before_it_says_miss),
          T(image_read_that_would_block_says_again_only_when_it_may_not_wait),
          T(image_read_of_a_tool_waits_for_what_is_missing), T(image_read_error_names_the_layer_and_the_image))
