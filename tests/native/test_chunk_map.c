/* The chunk map: what is remembered, what is believed, what is made anew.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cache_fixture.h"

#define NR_CHUNKS 5

static char path[64];
static const struct chunk_map_shape shape = {
    .digest = {1, 2, 3}, .blob_size = (NR_CHUNKS - 1) * CHUNK + 100, .chunk_size = CHUNK};

static struct chunk_map *make(void)
{
    struct chunk_map *map;
    snprintf(path, sizeof path, "/tmp/obd-map-%d", getpid());
    CHECK_OK(chunk_map_new(path, &shape, &map));
    CHECK_OK(chunk_map_create_file(map));
    return map;
}

TEST(test_a_map_is_cut_into_chunks_of_which_the_last_is_short)
{
    struct chunk_map *map = make();
    CHECK(chunk_map_nr_chunks(map) == NR_CHUNKS);
    CHECK(chunk_map_chunk_bytes(map, 0) == CHUNK && chunk_map_chunk_bytes(map, NR_CHUNKS - 1) == 100);
    CHECK(chunk_map_nr_present(map) == 0);
    chunk_map_free(map);
}

TEST(test_what_was_set_is_loaded_again_but_not_trusted)
{
    struct chunk_map *map = make();
    CHECK_OK(chunk_map_set(map, 1, 0x1234));
    CHECK_OK(chunk_map_set(map, 4, 0x5678));
    CHECK_OK(chunk_map_set(map, 3, 0x9abc));
    chunk_map_clear(map, 3);
    CHECK(chunk_map_is_trusted(map, 1));
    chunk_map_free(map);
    CHECK_OK(chunk_map_load(path, &map));
    CHECK(memcmp(chunk_map_shape(map)->digest, shape.digest, 32) == 0);
    CHECK(chunk_map_nr_present(map) == 2 && chunk_map_is_present(map, 1) && chunk_map_is_present(map, 4));
    CHECK(chunk_map_crc(map, 1) == 0x1234 && chunk_map_crc(map, 4) == 0x5678);
    CHECK(!chunk_map_is_trusted(map, 1) && !chunk_map_is_present(map, 3));
    chunk_map_vouch(map, 1);
    CHECK(chunk_map_is_trusted(map, 1));
    chunk_map_free(map);
}

TEST(test_a_stamp_changes_when_a_chunk_was_cleared_and_set_again)
{
    struct chunk_map *map = make();
    uint64_t before, after;
    for (uint64_t chunk = 0; chunk < NR_CHUNKS; chunk++)
        CHECK_OK(chunk_map_set(map, chunk, 1));
    CHECK(chunk_map_stamp(map, 0, NR_CHUNKS - 1, &before));
    chunk_map_clear(map, 2);
    CHECK(!chunk_map_stamp(map, 0, NR_CHUNKS - 1, &after));
    CHECK_OK(chunk_map_set(map, 2, 1));
    CHECK(chunk_map_stamp(map, 0, NR_CHUNKS - 1, &after) && after != before);
    chunk_map_free(map);
}

TEST(test_a_chunk_stays_absent_when_its_record_cannot_be_written)
{
    struct chunk_map *map = make();
    CHECK_OK(fault_file_add_rule(path, "write", 1, 28 /* ENOSPC */, 0));
    CHECK_FAILS(chunk_map_set(map, 0, 1), OBD_E_NO_SPACE, path);
    CHECK(!chunk_map_is_present(map, 0) && chunk_map_nr_present(map) == 0);
    CHECK_OK(fault_file_add_rule("", "write", 0, 0, 0));
    CHECK_OK(chunk_map_set(map, 0, 1));
    chunk_map_free(map);
}

static void expect_refused(const char *what, const void *bytes, size_t length, uint64_t offset, enum obd_status status)
{
    struct chunk_map *map = make();
    chunk_map_free(map);
    overwrite(path, bytes, length, offset);
    CHECK_FAILS(chunk_map_load(path, &map), status, what);
}

TEST(test_a_damaged_header_is_refused_at_every_byte)
{
    for (uint64_t offset = 0; offset < 60; offset++) {
        struct chunk_map *map = make();
        chunk_map_free(map);
        uint8_t byte;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        CHECK(pread(fd, &byte, 1, (off_t)offset) == 1);
        close(fd);
        byte ^= 0x40;
        overwrite(path, &byte, 1, offset);
        CHECK_FAILS(chunk_map_load(path, &map), OBD_E_CORRUPT, "does not begin as a chunk map");
    }
}

TEST(test_a_map_of_another_length_than_its_header_says_is_refused)
{
    struct chunk_map *map = make();
    chunk_map_free(map);
    CHECK(truncate(path, CHUNK_MAP_HEADER_SIZE + CHUNK_MAP_RECORD_SIZE * NR_CHUNKS - 1) == 0);
    CHECK_FAILS(chunk_map_load(path, &map), OBD_E_CORRUPT, "its header says 4296");
    CHECK(truncate(path, 20) == 0);
    CHECK_FAILS(chunk_map_load(path, &map), OBD_E_CORRUPT, "shorter");
}

TEST(test_another_version_is_not_understood)
{
    /* A right header of version 2: all but its checksum is from the file. */
    uint8_t header[60];
    struct chunk_map *map = make();
    chunk_map_free(map);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(pread(fd, header, sizeof header, 0) == sizeof header);
    close(fd);
    header[8] = 2;
    uint32_t crc = obd_crc32c(header, 56, 0);
    memcpy(header + 56, &crc, 4);
    expect_refused("of version 2", header, sizeof header, 0, OBD_E_UNSUPPORTED);
    unlink(path);
}

TEST_MAIN(T(test_a_map_is_cut_into_chunks_of_which_the_last_is_short),
          T(test_what_was_set_is_loaded_again_but_not_trusted),
          T(test_a_stamp_changes_when_a_chunk_was_cleared_and_set_again),
          T(test_a_chunk_stays_absent_when_its_record_cannot_be_written),
          T(test_a_damaged_header_is_refused_at_every_byte),
          T(test_a_map_of_another_length_than_its_header_says_is_refused), T(test_another_version_is_not_understood))
