/* transfer_options: what all requests have in common, by the fetcher's parameters.
 *
 * QUICK_EXIT    a name look-up that hangs is left behind, not waited for, when its
 *               transfer ends: it would hold up every other one
 * HTTP/1.1      each transfer has a connection of its own, so one that stalls in the
 *               network holds up no other, and what we bound per host are connections
 * no redirects  Python decides where credentials may go
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cache/fetch_state.h"

/* As much as one read of a socket gives on a fast link. */
#define RECEIVE_BUFFER_SIZE (256L << 10)

static bool set_behaviour(const struct fetcher *fetcher, CURL *easy)
{
    CURLcode codes[] = {
        curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L),
        curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L),
        curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L),
        curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https"),
        curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1),
        curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L),
        curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER_SIZE),
        curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L),
        curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)fetcher->connect_timeout_ms),
    };
    bool is_good = true;
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        is_good &= codes[i] == CURLE_OK;
    return is_good;
}

static bool set_text(CURL *easy, CURLoption option, const char *text)
{
    return text == NULL || curl_easy_setopt(easy, option, text) == CURLE_OK;
}

/* Verification of the peer and its name is on by default, and nothing turns it off. */
static bool set_transport(const struct fetcher *fetcher, CURL *easy)
{
    return set_text(easy, CURLOPT_USERAGENT, fetcher->user_agent) && set_text(easy, CURLOPT_CAINFO, fetcher->ca_file) &&
           set_text(easy, CURLOPT_SSLCERT, fetcher->client_cert) &&
           set_text(easy, CURLOPT_SSLKEY, fetcher->client_key) && set_text(easy, CURLOPT_PROXY, fetcher->proxy);
}

CURL *transfer_handle_new(const struct fetcher *fetcher)
{
    CURL *easy = curl_easy_init();
    if (easy == NULL)
        return NULL;
    if (set_behaviour(fetcher, easy) && set_transport(fetcher, easy))
        return easy;
    curl_easy_cleanup(easy);
    return NULL;
}
