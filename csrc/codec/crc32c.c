/* crc32c: by the processor's instruction, or by eight tables.
 *
 * The register is linear over GF(2): the checksum of a text behind another one
 * is its own checksum from 0, XOR the other's moved on by as many zero bytes as
 * the text is long.  The fast version uses that to keep three streams going, as
 * the instruction takes three cycles but can be started every cycle.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "codec/crc32c.h"

#include <endian.h>
#include <pthread.h>
#include <string.h>

#define POLYNOMIAL 0x82F63B78u /* reflected */

/* Bytes of one stream; three are taken at once. */
#define STREAM_SIZE 256u

static struct {
    uint32_t slice[8][256];  /* [k][b]: byte b followed by k zero bytes */
    uint32_t stream[4][256]; /* [k][b]: byte k of the register is b, followed by STREAM_SIZE zero bytes */
    uint32_t (*best)(const void *data, size_t length, uint32_t seed);
} tables;

static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static uint32_t add_byte(uint32_t crc, uint8_t byte)
{
    return tables.slice[0][(crc ^ byte) & 0xff] ^ (crc >> 8);
}

static uint64_t load_word(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static uint32_t add_slices(const void *data, size_t length, uint32_t crc)
{
    const uint8_t *at = data;
    for (; length >= 8; at += 8, length -= 8) {
        uint64_t word = le64toh(load_word(at)) ^ crc;
        crc = 0;
        for (int k = 0; k < 8; k++)
            crc ^= tables.slice[7 - k][(word >> (8 * k)) & 0xff];
    }
    while (length-- > 0)
        crc = add_byte(crc, *at++);
    return crc;
}

#ifdef __x86_64__

#include <nmmintrin.h>

#define WITH_INSTRUCTION __attribute__((target("sse4.2")))

/* crc after STREAM_SIZE zero bytes. */
static uint32_t skip_stream(uint32_t crc)
{
    return tables.stream[0][crc & 0xff] ^ tables.stream[1][(crc >> 8) & 0xff] ^ tables.stream[2][(crc >> 16) & 0xff] ^
           tables.stream[3][crc >> 24];
}

WITH_INSTRUCTION static uint32_t add_three_streams(const uint8_t *at, uint32_t crc)
{
    uint64_t a = crc, b = 0, c = 0;
    for (size_t i = 0; i < STREAM_SIZE; i += 8) {
        a = _mm_crc32_u64(a, load_word(at + i));
        b = _mm_crc32_u64(b, load_word(at + STREAM_SIZE + i));
        c = _mm_crc32_u64(c, load_word(at + 2 * STREAM_SIZE + i));
    }
    return skip_stream(skip_stream((uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)c;
}

WITH_INSTRUCTION static uint32_t add_by_instruction(const void *data, size_t length, uint32_t crc)
{
    const uint8_t *at = data;
    for (; length >= 3 * STREAM_SIZE; at += 3 * STREAM_SIZE, length -= 3 * STREAM_SIZE)
        crc = add_three_streams(at, crc);
    uint64_t wide = crc;
    for (; length >= 8; at += 8, length -= 8)
        wide = _mm_crc32_u64(wide, load_word(at));
    crc = (uint32_t)wide;
    while (length-- > 0)
        crc = _mm_crc32_u8(crc, *at++);
    return crc;
}

static void choose_best(void)
{
    tables.best = __builtin_cpu_supports("sse4.2") ? add_by_instruction : add_slices;
}

#else

static void choose_best(void)
{
    tables.best = add_slices;
}

#endif

static uint32_t checksum_of_byte(uint32_t byte)
{
    for (int bit = 0; bit < 8; bit++)
        byte = (byte >> 1) ^ ((byte & 1) ? POLYNOMIAL : 0);
    return byte;
}

static void fill_tables(void)
{
    for (uint32_t b = 0; b < 256; b++)
        tables.slice[0][b] = checksum_of_byte(b);
    for (int k = 1; k < 8; k++)
        for (uint32_t b = 0; b < 256; b++)
            tables.slice[k][b] = add_byte(tables.slice[k - 1][b], 0);
    static const uint8_t zeros[STREAM_SIZE];
    for (int k = 0; k < 4; k++)
        for (uint32_t b = 0; b < 256; b++)
            tables.stream[k][b] = add_slices(zeros, sizeof zeros, b << (8 * k));
    choose_best();
}

uint32_t crc32c_raw(const void *data, size_t length, uint32_t seed)
{
    pthread_once(&tables_once, fill_tables);
    return tables.best(data, length, seed);
}

uint32_t crc32c_raw_portable(const void *data, size_t length, uint32_t seed)
{
    pthread_once(&tables_once, fill_tables);
    return add_slices(data, length, seed);
}
