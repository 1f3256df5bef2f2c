/* input: a fuzzer's bytes, taken piece by piece; past the end all is zero.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct input {
    const uint8_t *at;
    size_t left;
};

static inline bool input_is_empty(const struct input *input)
{
    return input->left == 0;
}

/* Fills length bytes; returns how many were there. */
static inline size_t take_bytes(struct input *input, void *to, size_t length)
{
    size_t nr = length < input->left ? length : input->left;
    memset(to, 0, length);
    if (nr > 0)
        memcpy(to, input->at, nr);
    input->at += nr;
    input->left -= nr;
    return nr;
}

static inline uint8_t take_u8(struct input *input)
{
    uint8_t value;
    take_bytes(input, &value, sizeof value);
    return value;
}

static inline uint16_t take_u16(struct input *input)
{
    uint16_t value;
    take_bytes(input, &value, sizeof value);
    return value;
}

static inline uint32_t take_u32(struct input *input)
{
    uint32_t value;
    take_bytes(input, &value, sizeof value);
    return value;
}

static inline uint64_t take_u64(struct input *input)
{
    uint64_t value;
    take_bytes(input, &value, sizeof value);
    return value;
}

#endif
