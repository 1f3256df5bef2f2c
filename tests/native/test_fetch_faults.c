/* The fetcher and what servers do wrong: each ends in right bytes or in an error with
 * its reason, before the deadline, never in wrong bytes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "fetch_fixture.h"

static struct fetch_fixture fixture;

#define STALL_MS 300

static void open_impatient(void)
{
    memset(&fixture, 0, sizeof fixture);
    fixture_open_with(&fixture, &(struct obd_fetcher_params){.stall_timeout_ms = STALL_MS, .proxy = ""});
}

/* Chunks 1 to 4, whose first request meets the fault, come right all the same. */
static void come_right_after(struct act act)
{
    struct noted_job jobs[4];
    open_impatient();
    PEER_SCRIPT(&fixture.peer, act);
    fetch_chunks(&fixture, jobs, 1, 4, FETCH_DEMAND);
    all_came_right(jobs, 4);
    CHECK(peer_nr_requests(&fixture.peer) >= 2);
}

static void close_after(unsigned nr_requests, unsigned nr_questions)
{
    CHECK(fixture.peer.nr_requests == nr_requests);
    CHECK(atomic_load(&fixture.nr_questions) == nr_questions);
    fixture_close(&fixture);
}

/* The same fault over and over ends as an error that says what it was. */
static void fail_of(struct act act, const char *reason)
{
    struct noted_job job;
    struct act acts[PEER_MAX_ACTS];
    open_impatient();
    for (unsigned i = 0; i < PEER_MAX_ACTS; i++)
        acts[i] = act;
    peer_script(&fixture.peer, acts, PEER_MAX_ACTS);
    noted_init(&job, &fixture, 1);
    job.job.deadline_ns = clock_now_ns() + 1500 * NS_PER_MS;
    CHECK_OK(fetch_submit(&job.job));
    fetch_begin(fixture.origin);
    all_failed(&job, 1, OBD_E_UNREACHABLE, reason);
    fixture_close(&fixture);
}

/* ---- what passes ------------------------------------------------------------------- */

/* The one host there is has these numbers. */
static void check_traffic(const struct obd_host_traffic *expected)
{
    struct obd_fetcher_stats stats;
    fetcher_stats(fixture.fetcher, &stats);
    CHECK(stats.nr_hosts == 2);
    const struct obd_host_traffic *host = &stats.hosts[1];
    CHECK(strncmp(host->host, "127.0.0.1:", 10) == 0 && host->nr_requests == expected->nr_requests);
    CHECK(host->fetched_bytes == expected->fetched_bytes);
    CHECK(host->nr_refused == expected->nr_refused && host->nr_failed == expected->nr_failed);
}

TEST(busy_answers_are_tried_again)
{
    static const unsigned statuses[] = {429, 408, 500, 502, 503, 504};
    for (unsigned i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        come_right_after((struct act){ACT_STATUS, .status = statuses[i]});
        check_traffic(&(struct obd_host_traffic){.nr_requests = 2, .fetched_bytes = 4 * CHUNK, .nr_failed = 1});
        close_after(2, 1);
    }
}

TEST(retry_after_is_obeyed)
{
    uint64_t began = clock_now_ns();
    come_right_after((struct act){ACT_STATUS, .status = 429, .headers = "Retry-After: 1\r\n"});
    CHECK(clock_now_ns() - began >= NS_PER_SECOND);
    close_after(2, 1);
}

TEST(a_cut_body_goes_on_where_it_stopped)
{
    come_right_after((struct act){ACT_CUT, .number = CHUNK + 777});
    CHECK(fixture.peer.begins[1] == 2 * CHUNK + 777 && fixture.peer.ends[1] == 5 * CHUNK);
    close_after(2, 1);
}

TEST(a_body_cut_byte_after_byte_comes_all_the_same)
{
    struct noted_job job;
    open_impatient();
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_CUT, .number = 1}, {.kind = ACT_CUT, .number = 1},
                {.kind = ACT_CUT, .number = CHUNK - 3}, {.kind = ACT_CUT, .number = 0});
    fetch_chunks(&fixture, &job, 1, 1, FETCH_DEMAND);
    all_came_right(&job, 1);
    CHECK(fixture.peer.begins[4] == 2 * CHUNK - 1);
    close_after(5, 1);
}

TEST(a_body_shorter_than_its_range_goes_on_where_it_stopped)
{
    come_right_after((struct act){ACT_SHORT, .number = 100});
    CHECK(fixture.peer.begins[1] == CHUNK + 100);
    close_after(2, 1);
}

TEST(a_stalled_body_is_cut_and_goes_on_where_it_stopped)
{
    come_right_after((struct act){ACT_STALL, .number = 3 * CHUNK + 1});
    CHECK(fixture.peer.begins[1] == 4 * CHUNK + 1);
    close_after(2, 1);
}

TEST(a_server_that_never_answers_is_asked_again)
{
    come_right_after((struct act){.kind = ACT_HANG});
    close_after(2, 1);
}

TEST(a_connection_closed_without_an_answer_is_tried_again)
{
    come_right_after((struct act){.kind = ACT_CLOSE});
    close_after(2, 1);
}

TEST(another_range_than_asked_for_is_not_used)
{
    come_right_after((struct act){ACT_OTHER_RANGE, .number = 1});
    close_after(2, 1);
}

TEST(a_range_of_another_blob_is_not_used)
{
    come_right_after((struct act){ACT_OTHER_TOTAL, .number = 1});
    close_after(2, 1);
}

TEST(a_whole_blob_instead_of_a_range_is_not_read)
{
    come_right_after((struct act){.kind = ACT_WHOLE});
    close_after(2, 1);
}

TEST(a_whole_blob_is_read_from_when_the_range_begins_at_0)
{
    struct noted_job jobs[2];
    open_impatient();
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_WHOLE});
    fetch_chunks(&fixture, jobs, 0, 2, FETCH_DEMAND);
    all_came_right(jobs, 2);
    close_after(1, 1);
}

TEST(what_keeps_going_wrong_ends_with_its_reason)
{
    fail_of((struct act){ACT_STATUS, .status = 503}, "fetching 65536 bytes at 65536: HTTP 503");
    fail_of((struct act){.kind = ACT_WHOLE}, "HTTP 200, the whole blob instead of a range");
    fail_of((struct act){ACT_OTHER_RANGE, .number = 5}, "bytes 65541-131076/41944040, which were not asked for");
    fail_of((struct act){.kind = ACT_HANG}, "the server sent nothing for 300 ms");
}

TEST(a_server_that_is_not_there_is_unreachable)
{
    struct noted_job job;
    open_impatient();
    peer_close(&fixture.peer);
    noted_init(&job, &fixture, 1);
    job.job.deadline_ns = clock_now_ns() + 500 * NS_PER_MS;
    CHECK_OK(fetch_submit(&job.job));
    fetch_begin(fixture.origin);
    all_failed(&job, 1, OBD_E_UNREACHABLE, "connect");
    peer_open(&fixture.peer);
    fixture_close(&fixture);
}

TEST(who_comes_in_a_long_pause_with_little_time_is_not_left_without_a_try)
{
    struct noted_job patient, hasty;
    struct act acts[7];
    for (unsigned i = 0; i < 7; i++)
        acts[i] = (struct act){.kind = ACT_CLOSE};
    open_impatient();
    peer_script(&fixture.peer, acts, 7);
    noted_init(&patient, &fixture, 1);
    patient.job.deadline_ns = SECONDS(60);
    CHECK_OK(fetch_submit(&patient.job));
    fetch_begin(fixture.origin);
    peer_wait_for_requests(&fixture.peer, 7); /* the next pause is 2.5 s at least */
    noted_init(&hasty, &fixture, 9);
    hasty.job.deadline_ns = clock_now_ns() + 1500 * NS_PER_MS;
    CHECK_OK(fetch_submit(&hasty.job));
    fetch_begin(fixture.origin);
    all_came_right(&hasty, 1);
    all_came_right(&patient, 1);
    fixture_close(&fixture);
}

/* ---- refusals: Python is asked ------------------------------------------------------------ */

TEST(a_refusal_asks_for_another_resolution)
{
    static const unsigned statuses[] = {400, 401, 403, 404, 410, 416};
    for (unsigned i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        come_right_after(
            (struct act){ACT_STATUS, .status = statuses[i], .headers = "WWW-Authenticate: Bearer realm=\"r\"\r\n"});
        CHECK(fixture.last.reason == OBD_RESOLVE_REFUSED && fixture.last.http_status == statuses[i]);
        CHECK(strcmp(fixture.last.www_authenticate, "Bearer realm=\"r\"") == 0);
        check_traffic(&(struct obd_host_traffic){.nr_requests = 2, .fetched_bytes = 4 * CHUNK, .nr_refused = 1});
        close_after(2, 2);
    }
}

TEST(a_redirect_is_handed_to_the_resolver_as_it_was_sent)
{
    static const unsigned statuses[] = {301, 302, 303, 307, 308};
    for (unsigned i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        come_right_after((struct act){ACT_STATUS, .status = statuses[i], .headers = "Location: ../elsewhere?a=b\r\n"});
        CHECK(fixture.last.http_status == statuses[i]);
        CHECK(strcmp(fixture.last.location, "../elsewhere?a=b") == 0);
        close_after(2, 2);
    }
}

TEST(a_refusal_that_comes_back_at_once_is_an_error)
{
    struct noted_job jobs[3];
    const struct act gone = {ACT_STATUS, .status = 404};
    open_impatient();
    PEER_SCRIPT(&fixture.peer, gone, gone);
    fetch_chunks(&fixture, jobs, 1, 1, FETCH_DEMAND);
    all_failed(jobs, 1, OBD_E_UNREACHABLE, "HTTP 404");
    CHECK(atomic_load(&fixture.nr_questions) == 2);
    fetch_chunks(&fixture, jobs, 1, 3, FETCH_DEMAND); /* later reads try again */
    all_came_right(jobs, 3);
    close_after(3, 3);
}

TEST(a_401_is_asked_about_twice_and_the_third_is_an_error)
{
    struct noted_job job;
    const struct act unauthorized = {ACT_STATUS, .status = 401}, right = {.kind = ACT_SERVE};
    open_impatient();
    PEER_SCRIPT(&fixture.peer, unauthorized, unauthorized, right, unauthorized, unauthorized, unauthorized);
    fetch_chunks(&fixture, &job, 1, 1, FETCH_DEMAND);
    all_came_right(&job, 1);
    fetch_chunks(&fixture, &job, 2, 1, FETCH_DEMAND);
    all_failed(&job, 1, OBD_E_UNREACHABLE, "HTTP 401");
    close_after(6, 5);
}

TEST(a_refusal_after_data_is_the_first_of_a_new_row)
{
    struct noted_job job;
    const struct act unauthorized = {ACT_STATUS, .status = 401}, right = {.kind = ACT_SERVE};
    open_impatient();
    PEER_SCRIPT(&fixture.peer, unauthorized, right, unauthorized, right, unauthorized);
    for (unsigned i = 0; i < 3; i++) {
        fetch_chunks(&fixture, &job, i, 1, FETCH_DEMAND);
        all_came_right(&job, 1);
    }
    close_after(6, 4);
}

TEST(a_chain_of_redirects_is_followed_and_a_circle_is_not)
{
    struct noted_job job;
    struct act acts[PEER_MAX_ACTS];
    open_impatient();
    for (unsigned i = 0; i < PEER_MAX_ACTS; i++)
        acts[i] = (struct act){ACT_STATUS, .status = 307, .headers = "Location: /again\r\n"};
    peer_script(&fixture.peer, acts, 5);
    fetch_chunks(&fixture, &job, 1, 1, FETCH_DEMAND);
    all_came_right(&job, 1);
    peer_script(&fixture.peer, acts, PEER_MAX_ACTS);
    fetch_chunks(&fixture, &job, 1, 1, FETCH_DEMAND);
    all_failed(&job, 1, OBD_E_UNREACHABLE, "HTTP 307");
    CHECK(peer_nr_requests(&fixture.peer) < 6 + PEER_MAX_ACTS);
    fixture_close(&fixture);
}

TEST(transfers_refused_side_by_side_ask_once)
{
    struct noted_job jobs[4];
    const struct act unauthorized = {ACT_STATUS, .status = 401};
    open_impatient();
    PEER_SCRIPT(&fixture.peer, unauthorized, unauthorized, unauthorized, unauthorized);
    for (unsigned i = 0; i < 4; i++) {
        noted_init(&jobs[i], &fixture, 10 * i);
        CHECK_OK(fetch_submit(&jobs[i].job));
    }
    fetch_begin(fixture.origin);
    for (unsigned i = 0; i < 4; i++) { /* right, or all refused in a row */
        noted_wait(&jobs[i]);
        CHECK(jobs[i].status == OBD_OK ? jobs[i].is_right : jobs[i].status == OBD_E_UNREACHABLE);
    }
    CHECK(atomic_load(&fixture.nr_questions) <= 3);
    fixture_close(&fixture);
}

TEST(a_resolver_that_fails_ends_the_jobs_with_its_words)
{
    struct noted_job jobs[2];
    memset(&fixture, 0, sizeof fixture);
    fixture.refusal = OBD_E_UNREACHABLE;
    fixture_open_with(&fixture, &(struct obd_fetcher_params){.proxy = ""});
    fetch_chunks(&fixture, jobs, 1, 2, FETCH_DEMAND);
    all_failed(jobs, 2, OBD_E_UNREACHABLE, "the resolver says no");
    fixture_close(&fixture);
}

TEST(a_resolution_that_is_over_is_asked_for_anew)
{
    struct noted_job job;
    memset(&fixture, 0, sizeof fixture);
    fixture.valid_ms = 1;
    fixture_open_with(&fixture, &(struct obd_fetcher_params){.proxy = ""});
    fetch_chunks(&fixture, &job, 0, 1, FETCH_DEMAND);
    all_came_right(&job, 1);
    usleep(5000);
    fetch_chunks(&fixture, &job, 1, 1, FETCH_DEMAND);
    all_came_right(&job, 1);
    CHECK(fixture.last.reason == OBD_RESOLVE_EXPIRED && fixture.last.http_status == 0);
    fixture_close(&fixture);
}

/* ---- answers of the resolver that make no sense ------------------------------------------------ */

TEST(only_http_urls_and_whole_headers_are_taken)
{
    static const char *const urls[] = {"", "file:///etc/passwd", "nonsense", "http://"};
    static const char *const headers[] = {"no colon\n", ": no name\n", "A: b\rC: d\n"};
    open_impatient();
    for (unsigned i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        struct obd_resolve_reply reply = {.origin_id = 7, .url = urls[i]};
        CHECK_FAILS(resolve_reply(fixture.fetcher, &reply), OBD_E_INVALID, "the blob: not an http");
    }
    for (unsigned i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        struct obd_resolve_reply reply = {.origin_id = 7, .url = fixture.url_of_peer, .headers = headers[i]};
        CHECK_FAILS(resolve_reply(fixture.fetcher, &reply), OBD_E_INVALID, "not headers");
    }
    fixture_close(&fixture);
}

TEST_MAIN(T(busy_answers_are_tried_again), T(retry_after_is_obeyed), T(a_cut_body_goes_on_where_it_stopped),
          T(a_body_cut_byte_after_byte_comes_all_the_same), T(a_body_shorter_than_its_range_goes_on_where_it_stopped),
          T(a_stalled_body_is_cut_and_goes_on_where_it_stopped), T(a_server_that_never_answers_is_asked_again),
          T(a_connection_closed_without_an_answer_is_tried_again), T(another_range_than_asked_for_is_not_used),
          T(a_range_of_another_blob_is_not_used), T(a_whole_blob_instead_of_a_range_is_not_read),
          T(a_whole_blob_is_read_from_when_the_range_begins_at_0), T(what_keeps_going_wrong_ends_with_its_reason),
          T(a_server_that_is_not_there_is_unreachable),
          T(who_comes_in_a_long_pause_with_little_time_is_not_left_without_a_try),
          T(a_refusal_asks_for_another_resolution), T(a_redirect_is_handed_to_the_resolver_as_it_was_sent),
          T(a_refusal_that_comes_back_at_once_is_an_error), T(a_401_is_asked_about_twice_and_the_third_is_an_error),
          T(a_refusal_after_data_is_the_first_of_a_new_row), T(a_chain_of_redirects_is_followed_and_a_circle_is_not),
          T(transfers_refused_side_by_side_ask_once), T(a_resolver_that_fails_ends_the_jobs_with_its_words),
          T(a_resolution_that_is_over_is_asked_for_anew), T(only_http_urls_and_whole_headers_are_taken))
