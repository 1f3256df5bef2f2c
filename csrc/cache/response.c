/* response: see response.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cache/response.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/checked.h"

/* A piece of a line: not NUL-terminated. */
struct text {
    const char *at;
    size_t length;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct text trimmed(struct text text)
{
    while (text.length > 0 && is_blank(text.at[0]))
        text.at++, text.length--;
    while (text.length > 0 && is_blank(text.at[text.length - 1]))
        text.length--;
    return text;
}

static bool text_is(struct text text, const char *word)
{
    return text.length == strlen(word) && strncasecmp(text.at, word, text.length) == 0;
}

static bool take_word(struct text *text, const char *word)
{
    size_t length = strlen(word);
    if (text->length < length || strncasecmp(text->at, word, length) != 0)
        return false;
    text->at += length, text->length -= length;
    return true;
}

/* At least one digit, and a number that fits. */
static bool take_number(struct text *text, uint64_t *number)
{
    const char *begin = text->at;
    *number = 0;
    while (text->length > 0 && text->at[0] >= '0' && text->at[0] <= '9') {
        uint64_t digit = (uint64_t)(text->at[0] - '0');
        if (!checked_multiply(*number, 10, number) || !checked_add(*number, digit, number))
            return false;
        text->at++, text->length--;
    }
    return text->at > begin;
}

static bool is_number(struct text text, uint64_t *number)
{
    return take_number(&text, number) && text.length == 0;
}

/* "bytes 0-99/1000": anything else, also an unknown total, counts as not there. */
static void read_content_range(struct response *response, struct text value)
{
    response->has_range = take_word(&value, "bytes ") && take_number(&value, &response->first) &&
                          take_word(&value, "-") && take_number(&value, &response->last) && take_word(&value, "/") &&
                          is_number(value, &response->total);
}

/* Seconds, or a date. */
static uint32_t retry_after_ms(struct text value)
{
    char date[64];
    uint64_t seconds;
    if (is_number(value, &seconds))
        return (uint32_t)(min_u64(seconds, RESPONSE_MAX_RETRY_AFTER_MS / 1000) * 1000);
    snprintf(date, sizeof date, "%.*s", (int)min_u64(value.length, sizeof date - 1), value.at);
    time_t then = curl_getdate(date, NULL), now = time(NULL);
    return then <= now ? 0 : (uint32_t)(min_u64((uint64_t)(then - now), RESPONSE_MAX_RETRY_AFTER_MS / 1000) * 1000);
}

/* Appends to a list of values, or leaves out what does not fit whole. */
static void keep(char *kept, size_t size, struct text value)
{
    size_t used = strlen(kept);
    const char *comma = used > 0 ? ", " : "";
    if (used + strlen(comma) + value.length < size)
        snprintf(kept + used, size - used, "%s%.*s", comma, (int)value.length, value.at);
}

static void read_header(struct response *response, struct text name, struct text value)
{
    if (text_is(name, "Content-Range")) {
        read_content_range(response, value);
    } else if (text_is(name, "Content-Length")) {
        response->has_length = is_number(value, &response->content_length);
    } else if (text_is(name, "Content-Encoding")) {
        response->is_encoded = !text_is(value, "identity");
    } else if (text_is(name, "Retry-After")) {
        response->retry_after_ms = retry_after_ms(value);
    } else if (text_is(name, "Location")) {
        response->location[0] = '\0'; /* the last one counts: a list of URLs would make no sense */
        keep(response->location, sizeof response->location, value);
    } else if (text_is(name, "WWW-Authenticate")) {
        keep(response->www_authenticate, sizeof response->www_authenticate, value);
    }
}

/* "HTTP/1.1 206 Partial Content" */
static bool read_status_line(struct response *response, struct text line)
{
    uint64_t status;
    if (!take_word(&line, "HTTP/"))
        return false;
    while (line.length > 0 && line.at[0] != ' ')
        line.at++, line.length--;
    line = trimmed(line);
    memset(response, 0, sizeof *response);
    if (take_number(&line, &status) && status < 1000)
        response->status = (uint32_t)status;
    return true;
}

void response_line(struct response *response, const char *line, size_t length)
{
    struct text text = {line, length};
    if (read_status_line(response, text))
        return;
    const char *colon = memchr(line, ':', length);
    if (colon == NULL)
        return;
    struct text name = {line, (size_t)(colon - line)};
    struct text value = {colon + 1, length - name.length - 1};
    read_header(response, trimmed(name), trimmed(value));
}

static bool is_busy_status(uint32_t status)
{
    return status == 408 || status == 425 || status == 429 || (status >= 500 && status <= 599);
}

static bool is_right_range(const struct response *response, uint64_t begin, uint64_t end, uint64_t size)
{
    return response->has_range && response->first == begin && response->last == end - 1 && response->total == size;
}

enum response_verdict response_judge(const struct response *response, uint64_t begin, uint64_t end, uint64_t size)
{
    if (is_busy_status(response->status))
        return RESPONSE_BUSY;
    if (response->status >= 300 && response->status <= 499)
        return RESPONSE_REFUSED;
    if (response->is_encoded)
        return RESPONSE_WRONG;
    if (response->status == 206)
        return is_right_range(response, begin, end, size) ? RESPONSE_DATA : RESPONSE_WRONG;
    bool is_whole = response->status == 200 && begin == 0 && response->has_length && response->content_length == size;
    return is_whole ? RESPONSE_DATA : RESPONSE_WRONG;
}

void response_describe(const struct response *response, char *text, size_t size)
{
    if (response->status == 206 && response->is_encoded)
        snprintf(text, size, "HTTP 206 with an encoded body");
    else if (response->status == 206 && response->has_range)
        snprintf(text, size, "HTTP 206 with bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 ", which were not asked for",
                 response->first, response->last, response->total);
    else if (response->status == 206)
        snprintf(text, size, "HTTP 206 without a Content-Range that can be read");
    else if (response->status == 200)
        snprintf(text, size, "HTTP 200, the whole blob instead of a range");
    else
        snprintf(text, size, "HTTP %u", response->status);
}
