/* response: what the head of an answer to a ranged GET says, and whether to read on.
 *
 * Nothing that comes from a server is believed: of a body only those bytes are used
 * that the head has claimed for exactly the range that was asked for.
 *
 *   206, Content-Range of that very range and of a blob of that very size   data
 *   200, Content-Length of that size, and the range begins at 0             data
 *   3xx and 4xx, but for the next line's                        refused: the URL or
 *                                         its headers have stopped working
 *   408, 425, 429, 5xx                    busy: again after a pause
 *   all else                              wrong: again after a pause
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_RESPONSE_H
#define OBD_CACHE_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A server that asks for a longer pause is asked again all the same. */
#define RESPONSE_MAX_RETRY_AFTER_MS 60000u

struct response {
    uint32_t status; /* 0: no status line yet */
    bool has_range;
    bool has_length;
    bool is_encoded; /* Content-Encoding other than identity */
    uint64_t first;  /* of Content-Range: bytes first-last/total */
    uint64_t last;
    uint64_t total;
    uint64_t content_length;
    uint32_t retry_after_ms; /* 0: not said */
    char location[2048];     /* "" when none was sent, or one that does not fit */
    char www_authenticate[512];
};

enum response_verdict { RESPONSE_DATA, RESPONSE_REFUSED, RESPONSE_BUSY, RESPONSE_WRONG };

/* One line of the head, with or without its line end; a status line starts anew. */
void response_line(struct response *response, const char *line, size_t length);

/* The range asked for is [begin, end) of a blob of size bytes. */
enum response_verdict response_judge(const struct response *response, uint64_t begin, uint64_t end, uint64_t size);

/* Why it is not data, as part of a sentence: "HTTP 503", ... */
void response_describe(const struct response *response, char *text, size_t size);

#endif
