/* Heads of answers: what is read out of them, and what is believed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "check.h"

#include "cache/response.h"

static struct response response;

/* Reads a head whose lines end in \n. */
static void read_head(const char *head)
{
    while (*head != '\0') {
        size_t length = strcspn(head, "\n") + 1;
        response_line(&response, head, length);
        head += length;
    }
}

/* Asked for bytes 100 to 199 of 1000. */
static enum response_verdict judge(const char *head)
{
    read_head(head);
    return response_judge(&response, 100, 200, 1000);
}

TEST(a_right_range_is_data_however_its_head_is_written)
{
    CHECK(judge("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 100-199/1000\r\n") == RESPONSE_DATA);
    CHECK(judge("HTTP/2 206\r\ncontent-range:bytes 100-199/1000\n") == RESPONSE_DATA);
    CHECK(judge("HTTP/1.1 206\r\nCONTENT-RANGE:   bytes 100-199/1000  \r\nContent-Encoding: identity\r\n") ==
          RESPONSE_DATA);
}

TEST(any_other_range_is_wrong)
{
    static const char *const ranges[] = {
        "bytes 100-198/1000",
        "bytes 100-200/1000",
        "bytes 99-199/1000",
        "bytes 100-199/1001",
        "bytes 100-199/*",
        "bytes */1000",
        "bytes 100-199",
        "bytes=100-199/1000",
        "100-199/1000",
        "bytes -100-199/1000",
        "bytes 100-199/1000x",
        "bytes 100-199/",
        "bytes 0x64-199/1000",
        "",
        "bytes 18446744073709551716-199/1000", /* 100 after a wrap */
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        char head[128];
        snprintf(head, sizeof head, "HTTP/1.1 206 Partial Content\r\nContent-Range: %s\r\n", ranges[i]);
        CHECK(judge(head) == RESPONSE_WRONG);
    }
    CHECK(judge("HTTP/1.1 206 Partial Content\r\n") == RESPONSE_WRONG);
}

TEST(an_encoded_body_is_wrong)
{
    CHECK(judge("HTTP/1.1 206 OK\r\nContent-Range: bytes 100-199/1000\r\nContent-Encoding: gzip\r\n") ==
          RESPONSE_WRONG);
}

TEST(a_whole_blob_is_data_only_for_a_range_from_0_and_of_that_size)
{
    CHECK(judge("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n") == RESPONSE_WRONG);
    CHECK(response_judge(&response, 0, 100, 1000) == RESPONSE_DATA);
    CHECK(response_judge(&response, 0, 100, 999) == RESPONSE_WRONG);
    read_head("HTTP/1.1 200 OK\r\n"); /* of no length: it may be anything */
    CHECK(response_judge(&response, 0, 100, 1000) == RESPONSE_WRONG);
}

TEST(statuses_are_refusals_or_pauses_or_wrong)
{
    static const uint32_t refused[] = {300, 301, 307, 400, 401, 403, 404, 410, 416, 499};
    static const uint32_t busy[] = {408, 425, 429, 500, 503, 599};
    static const uint32_t wrong[] = {0, 201, 204, 600, 999};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        CHECK(response_judge(&(struct response){.status = refused[i]}, 0, 1, 1) == RESPONSE_REFUSED);
    for (size_t i = 0; i < sizeof busy / sizeof busy[0]; i++)
        CHECK(response_judge(&(struct response){.status = busy[i]}, 0, 1, 1) == RESPONSE_BUSY);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        CHECK(response_judge(&(struct response){.status = wrong[i]}, 0, 1, 1) == RESPONSE_WRONG);
}

TEST(a_status_line_starts_anew)
{
    read_head("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nRetry-After: 5\r\n");
    read_head("HTTP/1.1 200 OK\r\n");
    CHECK(response.www_authenticate[0] == '\0' && response.retry_after_ms == 0);
}

TEST(several_challenges_are_one_list)
{
    read_head("HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm=\"a\"\r\nWWW-Authenticate: Basic\r\n");
    CHECK(strcmp(response.www_authenticate, "Bearer realm=\"a\", Basic") == 0);
}

TEST(a_location_that_does_not_fit_is_left_out_whole)
{
    char head[4096] = "HTTP/1.1 302 Found\r\nLocation: ";
    memset(head + strlen(head), 'a', 2048);
    read_head(strcat(head, "\r\n"));
    CHECK(response.location[0] == '\0');
}

TEST(retry_after_is_seconds_or_a_date_and_bounded)
{
    read_head("HTTP/1.1 429 Slow\r\nRetry-After: 7\r\n");
    CHECK(response.retry_after_ms == 7000);
    read_head("HTTP/1.1 429 Slow\r\nRetry-After: 99999999999999999999999\r\n");
    CHECK(response.retry_after_ms <= RESPONSE_MAX_RETRY_AFTER_MS);
    read_head("HTTP/1.1 429 Slow\r\nRetry-After: 86400\r\n");
    CHECK(response.retry_after_ms == RESPONSE_MAX_RETRY_AFTER_MS);
    read_head("HTTP/1.1 429 Slow\r\nRetry-After: Fri, 31 Dec 2099 23:59:59 GMT\r\n");
    CHECK(response.retry_after_ms == RESPONSE_MAX_RETRY_AFTER_MS);
    read_head("HTTP/1.1 429 Slow\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n");
    CHECK(response.retry_after_ms == 0);
    read_head("HTTP/1.1 429 Slow\r\nRetry-After: soon\r\n");
    CHECK(response.retry_after_ms == 0);
}

TEST(random_lines_break_nothing)
{
    unsigned seed = 1;
    for (int i = 0; i < 20000; i++) {
        char text[64];
        size_t length = (size_t)rand_r(&seed) % 64;
        static const char *const begins[] = {"", "HTTP/", "Content-Range: bytes ", "Retry-After:", "Location"};
        for (size_t j = 0; j < length; j++)
            text[j] = "0123456789-/ :\r\n*abyt\0"[rand_r(&seed) % 22];
        const char *begin = begins[i % 5];
        size_t taken = strlen(begin) < length ? strlen(begin) : length;
        memcpy(text, begin, taken);
        char *line = malloc(length); /* of just that size, so that a byte too many is seen */
        memcpy(line, text, length);
        response_line(&response, line, length);
        response_judge(&response, 0, 10, 100);
        free(line);
    }
}

TEST_MAIN(T(a_right_range_is_data_however_its_head_is_written), T(any_other_range_is_wrong),
          T(an_encoded_body_is_wrong), T(a_whole_blob_is_data_only_for_a_range_from_0_and_of_that_size),
          T(statuses_are_refusals_or_pauses_or_wrong), T(a_status_line_starts_anew), T(several_challenges_are_one_list),
          T(a_location_that_does_not_fit_is_left_out_whole), T(retry_after_is_seconds_or_a_date_and_bounded),
          T(random_lines_break_nothing))
