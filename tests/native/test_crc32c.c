/* CRC-32C: known values, and the fast version against the table and the table
 * against the definition.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "check.h"

#include "codec/crc32c.h"

/* spec/zfile.md section 4, bit by bit. */
static uint32_t by_definition(const uint8_t *data, size_t length, uint32_t crc)
{
    for (size_t i = 0; i < length; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0);
    }
    return crc;
}

TEST(crc32c_of_the_usual_test_string)
{
    CHECK(crc32c_raw("123456789", 9, 0) == 0x58E3FA20u);
    CHECK(crc32c_raw_portable("123456789", 9, 0) == 0x58E3FA20u);
    /* With both inversions it is the published CRC-32C. */
    CHECK(~crc32c_raw("123456789", 9, 0xffffffffu) == 0xE3069283u);
}

TEST(crc32c_of_nothing_is_the_seed)
{
    CHECK(crc32c_raw(NULL, 0, CRC32C_BLOCK_SEED) == CRC32C_BLOCK_SEED);
    CHECK(crc32c_raw_portable(NULL, 0, 77) == 77);
}

TEST(crc32c_versions_agree_with_the_definition_at_every_length_and_alignment)
{
    static uint8_t data[4096 + 8];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)random();
    for (size_t length = 0; length <= 4096; length += length < 900 ? 1 : 37) {
        const uint8_t *at = data + length % 8;
        uint32_t seed = (uint32_t)random(), expected = by_definition(at, length, seed);
        CHECK(crc32c_raw(at, length, seed) == expected);
        CHECK(crc32c_raw_portable(at, length, seed) == expected);
    }
}

TEST(crc32c_of_two_parts_is_that_of_the_whole)
{
    uint8_t data[3000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)random();
    for (size_t cut = 0; cut <= sizeof data; cut += 101) {
        uint32_t first = crc32c_raw(data, cut, 5);
        CHECK(crc32c_raw(data + cut, sizeof data - cut, first) == crc32c_raw(data, sizeof data, 5));
    }
}

TEST_MAIN(T(crc32c_of_the_usual_test_string), T(crc32c_of_nothing_is_the_seed),
          T(crc32c_versions_agree_with_the_definition_at_every_length_and_alignment),
          T(crc32c_of_two_parts_is_that_of_the_whole))
