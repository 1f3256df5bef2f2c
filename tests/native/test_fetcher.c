/* The fetcher against a scripted peer: merging, order, cancelling.  Also for TSan.
 * What servers do wrong is in test_fetch_faults.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "fetch_fixture.h"

static struct fetch_fixture fixture;

TEST(a_chunk_comes_with_the_headers_that_the_resolver_gave)
{
    struct noted_job job;
    memset(&fixture, 0, sizeof fixture);
    fixture.headers = "Authorization: Bearer secret\nX-Other: 1\n";
    fixture_open_with(&fixture, &(struct obd_fetcher_params){.user_agent = "agent/1", .proxy = ""});
    fetch_chunks(&fixture, &job, 3, 1, FETCH_DEMAND);
    all_came_right(&job, 1);
    CHECK(fixture.last.reason == OBD_RESOLVE_FIRST && fixture.last.origin_id == 7);
    CHECK(strstr(fixture.peer.last_head, "Authorization: Bearer secret\r\n") != NULL);
    CHECK(strstr(fixture.peer.last_head, "X-Other: 1\r\n") != NULL);
    CHECK(strstr(fixture.peer.last_head, "User-Agent: agent/1\r\n") != NULL);
    fixture_close(&fixture);
}

TEST(chunks_side_by_side_are_one_request)
{
    struct noted_job jobs[16];
    fixture_open(&fixture);
    fetch_chunks(&fixture, jobs, 4, 16, FETCH_DEMAND);
    all_came_right(jobs, 16);
    CHECK(fixture.peer.nr_requests == 1);
    CHECK(fixture.peer.begins[0] == 4 * CHUNK && fixture.peer.ends[0] == 20 * CHUNK);
    fixture_close(&fixture);
}

TEST(chunks_submitted_backwards_are_one_request_too)
{
    struct noted_job jobs[8];
    fixture_open(&fixture);
    for (unsigned i = 8; i-- > 0;) {
        noted_init(&jobs[i], &fixture, i);
        CHECK_OK(fetch_submit(&jobs[i].job));
    }
    fetch_begin(fixture.origin);
    all_came_right(jobs, 8);
    CHECK(fixture.peer.nr_requests == 1);
    fixture_close(&fixture);
}

TEST(chunks_with_a_gap_are_two_requests)
{
    struct noted_job jobs[2];
    fixture_open(&fixture);
    noted_init(&jobs[0], &fixture, 1);
    noted_init(&jobs[1], &fixture, 3);
    CHECK_OK(fetch_submit(&jobs[0].job));
    CHECK_OK(fetch_submit(&jobs[1].job));
    fetch_begin(fixture.origin);
    all_came_right(jobs, 2);
    CHECK(fixture.peer.nr_requests == 2);
    fixture_close(&fixture);
}

TEST(the_whole_blob_comes_in_ranges_of_bounded_length)
{
    enum { NR = PEER_BLOB_SIZE / CHUNK + 1 };
    static struct noted_job jobs[NR];
    struct origin_stats stats;
    fixture_open(&fixture);
    fetch_chunks(&fixture, jobs, 0, NR, FETCH_DEMAND);
    all_came_right(jobs, NR);
    CHECK(fixture.peer.nr_requests == PEER_BLOB_SIZE / FETCH_MAX_BYTES + 1);
    for (unsigned i = 0; i < fixture.peer.nr_requests; i++)
        CHECK(fixture.peer.ends[i] - fixture.peer.begins[i] <= FETCH_MAX_BYTES);
    origin_stats(fixture.origin, &stats);
    CHECK(stats.nr_requests == fixture.peer.nr_requests && stats.fetched_bytes == PEER_BLOB_SIZE);
    fixture_close(&fixture);
}

TEST(a_slow_host_is_asked_for_no_more_than_it_sends_in_a_quarter_of_a_second)
{
    enum { FIRST = 64, NR = PEER_BLOB_SIZE / CHUNK + 1 - FIRST, PACE_MS = 2 };
    static struct noted_job jobs[FIRST + NR];
    const uint64_t most = UINT64_C(1000) / PACE_MS * PEER_PIECE / 4;
    fixture_open(&fixture);
    fixture.peer.pace_ms = PACE_MS;
    fetch_chunks(&fixture, jobs, 0, FIRST, FETCH_DEMAND);
    all_came_right(jobs, FIRST);
    CHECK(fixture.peer.nr_requests == 1); /* nothing was known of it */
    fetch_chunks(&fixture, jobs + FIRST, FIRST, NR, FETCH_DEMAND);
    all_came_right(jobs + FIRST, NR);
    for (unsigned i = 1; i < fixture.peer.nr_requests; i++)
        CHECK(fixture.peer.ends[i] - fixture.peer.begins[i] <= most);
    fixture_close(&fixture);
}

TEST(a_connection_is_used_again)
{
    struct noted_job job;
    fixture_open(&fixture);
    for (unsigned i = 0; i < 10; i++) {
        fetch_chunks(&fixture, &job, i, 1, FETCH_DEMAND);
        all_came_right(&job, 1);
    }
    CHECK(fixture.peer.nr_requests == 10 && fixture.peer.nr_connections == 1);
    CHECK(atomic_load(&fixture.nr_questions) == 1);
    fixture_close(&fixture);
}

/* ---- concurrency and order ------------------------------------------------------- */

TEST(a_host_has_so_many_connections_and_no_more)
{
    struct noted_job jobs[20];
    memset(&fixture, 0, sizeof fixture);
    fixture_open_with(&fixture, &(struct obd_fetcher_params){.connections_per_host = 3, .proxy = ""});
    for (unsigned i = 0; i < 20; i++) {
        noted_init(&jobs[i], &fixture, 2 * i);
        CHECK_OK(fetch_submit(&jobs[i].job));
    }
    fetch_begin(fixture.origin);
    all_came_right(jobs, 20);
    CHECK(fixture.peer.nr_requests == 20 && fixture.peer.nr_connections <= 3);
    fixture_close(&fixture);
}

TEST(read_ahead_that_hangs_keeps_no_demand_waiting)
{
    struct noted_job ahead[8], wanted;
    fixture_open(&fixture);
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_WAIT}, {.kind = ACT_WAIT}, {.kind = ACT_WAIT}, {.kind = ACT_WAIT});
    for (unsigned i = 0; i < 8; i++) { /* of which four get a connection */
        noted_init(&ahead[i], &fixture, 2 * i);
        ahead[i].job.class = FETCH_READ_AHEAD;
        CHECK_OK(fetch_submit(&ahead[i].job));
    }
    fetch_begin(fixture.origin);
    peer_wait_for_requests(&fixture.peer, 4);
    fetch_chunks(&fixture, &wanted, 100, 1, FETCH_DEMAND);
    all_came_right(&wanted, 1);
    CHECK(peer_nr_requests(&fixture.peer) == 5);
    peer_release(&fixture.peer);
    all_came_right(ahead, 8);
    fixture_close(&fixture);
}

TEST(demand_goes_before_read_ahead_that_was_there_first)
{
    struct noted_job first, ahead, wanted;
    memset(&fixture, 0, sizeof fixture);
    fixture_open_with(&fixture, &(struct obd_fetcher_params){.connections_per_host = 2, .proxy = ""});
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_WAIT});
    fetch_chunks(&fixture, &first, 0, 1, FETCH_READ_AHEAD);
    peer_wait_for_requests(&fixture.peer, 1);
    fetch_chunks(&fixture, &ahead, 50, 1, FETCH_READ_AHEAD); /* no room for another */
    fetch_chunks(&fixture, &wanted, 100, 1, FETCH_DEMAND);
    all_came_right(&wanted, 1);
    CHECK(peer_nr_requests(&fixture.peer) == 2);
    peer_release(&fixture.peer);
    all_came_right(&first, 1);
    all_came_right(&ahead, 1);
    fixture_close(&fixture);
}

TEST(promoted_read_ahead_is_demand)
{
    struct noted_job first, ahead;
    memset(&fixture, 0, sizeof fixture);
    fixture_open_with(&fixture, &(struct obd_fetcher_params){.connections_per_host = 2, .proxy = ""});
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_WAIT});
    fetch_chunks(&fixture, &first, 0, 1, FETCH_READ_AHEAD);
    peer_wait_for_requests(&fixture.peer, 1);
    fetch_chunks(&fixture, &ahead, 50, 1, FETCH_READ_AHEAD);
    fetch_promote(&ahead.job, FETCH_DEMAND, SECONDS(20));
    all_came_right(&ahead, 1);
    peer_release(&fixture.peer);
    all_came_right(&first, 1);
    fixture_close(&fixture);
}

TEST(promoted_read_ahead_has_the_time_of_its_reader)
{
    struct noted_job first, ahead;
    memset(&fixture, 0, sizeof fixture);
    fixture_open_with(&fixture, &(struct obd_fetcher_params){.connections_per_host = 2, .proxy = ""});
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_WAIT}, {.kind = ACT_WAIT});
    fetch_chunks(&fixture, &first, 0, 1, FETCH_READ_AHEAD);
    peer_wait_for_requests(&fixture.peer, 1);
    fetch_chunks(&fixture, &ahead, 50, 1, FETCH_READ_AHEAD);
    fetch_promote(&ahead.job, FETCH_DEMAND, clock_deadline_ns(100));
    all_failed(&ahead, 1, OBD_E_TIMEOUT, "in time");
    peer_release(&fixture.peer);
    all_came_right(&first, 1);
    fixture_close(&fixture);
}

TEST(a_background_job_begins_only_when_nothing_else_of_its_host_runs)
{
    struct noted_job ahead, later;
    fixture_open(&fixture);
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_WAIT});
    fetch_chunks(&fixture, &ahead, 0, 1, FETCH_READ_AHEAD);
    peer_wait_for_requests(&fixture.peer, 1);
    fetch_chunks(&fixture, &later, 50, 1, FETCH_BACKGROUND);
    for (unsigned i = 0; i < 10; i++) {
        struct noted_job wanted; /* and it goes past what waits */
        fetch_chunks(&fixture, &wanted, 100 + 2 * i, 1, FETCH_DEMAND);
        all_came_right(&wanted, 1);
    }
    CHECK(peer_nr_requests(&fixture.peer) == 11);
    peer_release(&fixture.peer);
    all_came_right(&ahead, 1);
    all_came_right(&later, 1);
    fixture_close(&fixture);
}

TEST(a_background_job_that_hangs_keeps_nobody_waiting_but_the_next_of_its_kind)
{
    struct noted_job first, second, others[2];
    fixture_open(&fixture);
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_WAIT});
    fetch_chunks(&fixture, &first, 0, 1, FETCH_BACKGROUND);
    peer_wait_for_requests(&fixture.peer, 1);
    fetch_chunks(&fixture, &second, 50, 1, FETCH_BACKGROUND);
    fetch_chunks(&fixture, &others[0], 100, 1, FETCH_DEMAND);
    fetch_chunks(&fixture, &others[1], 120, 1, FETCH_READ_AHEAD);
    all_came_right(others, 2);
    CHECK(peer_nr_requests(&fixture.peer) == 3);
    peer_release(&fixture.peer);
    all_came_right(&first, 1);
    all_came_right(&second, 1);
    fixture_close(&fixture);
}

TEST(a_demand_range_takes_no_background_job_with_it)
{
    struct noted_job first, later, wanted;
    fixture_open(&fixture);
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_WAIT});
    fetch_chunks(&fixture, &first, 0, 1, FETCH_BACKGROUND);
    peer_wait_for_requests(&fixture.peer, 1);
    fetch_chunks(&fixture, &later, 51, 1, FETCH_BACKGROUND);
    fetch_chunks(&fixture, &wanted, 50, 1, FETCH_DEMAND);
    all_came_right(&wanted, 1);
    CHECK(fixture.peer.ends[1] - fixture.peer.begins[1] == CHUNK);
    peer_release(&fixture.peer);
    all_came_right(&first, 1);
    all_came_right(&later, 1);
    fixture_close(&fixture);
}

TEST(a_background_job_that_a_reader_wants_is_demand)
{
    struct noted_job first, later;
    fixture_open(&fixture);
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_WAIT});
    fetch_chunks(&fixture, &first, 0, 1, FETCH_BACKGROUND);
    peer_wait_for_requests(&fixture.peer, 1);
    fetch_chunks(&fixture, &later, 50, 1, FETCH_BACKGROUND);
    CHECK(fetch_promote(&later.job, FETCH_BACKGROUND, SECONDS(20)) && later.job.class == FETCH_BACKGROUND);
    CHECK(fetch_promote(&later.job, FETCH_DEMAND, SECONDS(20)));
    all_came_right(&later, 1);
    peer_release(&fixture.peer);
    all_came_right(&first, 1);
    fixture_close(&fixture);
}

TEST(a_chunk_is_handed_over_before_its_request_ends)
{
    struct noted_job jobs[4];
    memset(&fixture, 0, sizeof fixture);
    fixture_open_with(&fixture, &(struct obd_fetcher_params){.stall_timeout_ms = 1000, .proxy = ""});
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_STALL, .number = 2 * CHUNK + 5});
    fetch_chunks(&fixture, jobs, 0, 4, FETCH_DEMAND);
    all_came_right(jobs, 2);
    all_came_right(jobs + 2, 2); /* from a second request, after the stall */
    CHECK(fixture.peer.begins[1] == 2 * CHUNK + 5);
    fixture_close(&fixture);
}

/* ---- cancelling, deadlines, closing ------------------------------------------------ */

TEST(a_cancelled_job_is_not_done_and_its_neighbours_are)
{
    struct noted_job jobs[5];
    fixture_open(&fixture);
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_WAIT});
    fetch_chunks(&fixture, jobs, 0, 5, FETCH_DEMAND);
    peer_wait_for_requests(&fixture.peer, 1);
    CHECK(fetch_cancel(&jobs[0].job) && fetch_cancel(&jobs[2].job) && fetch_cancel(&jobs[4].job));
    CHECK(!fetch_cancel(&jobs[0].job));
    peer_release(&fixture.peer);
    all_came_right(&jobs[1], 1);
    all_came_right(&jobs[3], 1);
    CHECK(sem_trywait(&jobs[0].is_done) != 0 && sem_trywait(&jobs[2].is_done) != 0);
    fixture_close(&fixture);
}

TEST(a_request_that_nobody_wants_any_more_gives_its_connection_back)
{
    struct noted_job jobs[4], wanted;
    memset(&fixture, 0, sizeof fixture);
    fixture_open_with(&fixture, &(struct obd_fetcher_params){.connections_per_host = 2, .proxy = ""});
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_HANG}, {.kind = ACT_HANG});
    fetch_chunks(&fixture, &jobs[0], 0, 1, FETCH_DEMAND);
    fetch_chunks(&fixture, &jobs[1], 10, 1, FETCH_DEMAND);
    peer_wait_for_requests(&fixture.peer, 2);
    CHECK(fetch_cancel(&jobs[0].job));
    fetch_chunks(&fixture, &wanted, 20, 1, FETCH_DEMAND);
    all_came_right(&wanted, 1);
    CHECK(fetch_cancel(&jobs[1].job));
    fixture_close(&fixture);
}

TEST(a_deadline_ends_a_job_whose_server_says_nothing)
{
    struct noted_job job;
    memset(&fixture, 0, sizeof fixture);
    fixture_open_with(&fixture, &(struct obd_fetcher_params){.proxy = ""});
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_HANG});
    noted_init(&job, &fixture, 0);
    job.job.deadline_ns = clock_now_ns() + 50 * NS_PER_MS;
    CHECK_OK(fetch_submit(&job.job));
    fetch_begin(fixture.origin);
    all_failed(&job, 1, OBD_E_TIMEOUT, "the blob: fetching 65536 bytes at 0: it did not come in time");
    fixture_close(&fixture);
}

TEST(a_deadline_ends_a_job_whose_question_nobody_answers)
{
    struct fetcher *fetcher;
    struct noted_job job;
    struct obd_resolve question;
    memset(&fixture, 0, sizeof fixture);
    CHECK_OK(fetcher_open(&(struct obd_fetcher_params){0}, &fetcher));
    CHECK_OK(origin_open(fetcher, 1, PEER_BLOB_SIZE, "the blob", &fixture.origin));
    noted_init(&job, &fixture, 0);
    job.job.deadline_ns = clock_now_ns() + 50 * NS_PER_MS;
    CHECK_OK(fetch_submit(&job.job));
    fetch_begin(fixture.origin);
    CHECK_OK(resolve_next(fetcher, &question, SECONDS(20)));
    all_failed(&job, 1, OBD_E_TIMEOUT, "was not found out in time");
    CHECK_FAILS(resolve_next(fetcher, &question, clock_now_ns()), OBD_E_TIMEOUT, "no origin");
    origin_unref(fixture.origin);
    struct obd_resolve_reply late = {.origin_id = 1, .url = "http://127.0.0.1/"};
    CHECK_FAILS(resolve_reply(fetcher, &late), OBD_E_NOT_FOUND, "no origin 1");
    fetcher_close(fetcher);
}

TEST(close_ends_what_is_under_way_and_takes_no_more)
{
    struct noted_job jobs[3];
    fixture_open(&fixture);
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_HANG}, {.kind = ACT_HANG});
    fetch_chunks(&fixture, jobs, 0, 1, FETCH_DEMAND);
    fetch_chunks(&fixture, jobs + 1, 10, 1, FETCH_READ_AHEAD);
    peer_wait_for_requests(&fixture.peer, 2);
    fixture_close_fetcher(&fixture);
    all_failed(jobs, 2, OBD_E_CANCELLED, "the fetcher is closed");
    noted_init(&jobs[2], &fixture, 20);
    CHECK_FAILS(fetch_submit(&jobs[2].job), OBD_E_CANCELLED, "the fetcher is closed");
    origin_unref(fixture.origin); /* may outlive it */
    peer_close(&fixture.peer);
}

TEST(an_origin_may_go_while_its_jobs_run)
{
    struct noted_job job;
    fixture_open(&fixture);
    PEER_SCRIPT(&fixture.peer, {.kind = ACT_WAIT});
    fetch_chunks(&fixture, &job, 0, 1, FETCH_DEMAND);
    peer_wait_for_requests(&fixture.peer, 1);
    origin_unref(fixture.origin);
    peer_release(&fixture.peer);
    all_came_right(&job, 1);
    CHECK_OK(origin_open(fixture.fetcher, 8, PEER_BLOB_SIZE, "the next", &fixture.origin));
    fixture_close(&fixture);
}

TEST(two_origins_cannot_have_one_number)
{
    struct origin *origin;
    fixture_open(&fixture);
    CHECK_FAILS(origin_open(fixture.fetcher, 7, 1, "another", &origin), OBD_E_INVALID, "already");
    fixture_close(&fixture);
}

/* ---- many threads ----------------------------------------------------------------- */

static void *fetch_and_cancel(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)&argument;
    for (int i = 0; i < 150; i++) {
        struct noted_job job;
        noted_init(&job, &fixture, (unsigned)rand_r(&seed) % (PEER_BLOB_SIZE / CHUNK));
        job.job.class = (enum fetch_class)(i % NR_FETCH_CLASSES);
        CHECK_OK(fetch_submit(&job.job));
        fetch_begin(fixture.origin);
        if (i % 5 == 0)
            usleep((unsigned)rand_r(&seed) % 2000);
        if (i % 3 == 0)
            fetch_promote(&job.job, FETCH_DEMAND, SECONDS(30));
        if (i % 4 != 0 || !fetch_cancel(&job.job))
            all_came_right(&job, 1);
        else
            sem_destroy(&job.is_done);
    }
    return NULL;
}

TEST(many_threads_submit_promote_and_cancel)
{
    pthread_t threads[6];
    fixture_open(&fixture);
    for (int i = 0; i < 6; i++)
        CHECK(pthread_create(&threads[i], NULL, fetch_and_cancel, NULL) == 0);
    for (int i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    fixture_close(&fixture);
}

TEST_MAIN(T(a_chunk_comes_with_the_headers_that_the_resolver_gave), T(chunks_side_by_side_are_one_request),
          T(chunks_submitted_backwards_are_one_request_too), T(chunks_with_a_gap_are_two_requests),
          T(the_whole_blob_comes_in_ranges_of_bounded_length),
          T(a_slow_host_is_asked_for_no_more_than_it_sends_in_a_quarter_of_a_second), T(a_connection_is_used_again),
          T(a_host_has_so_many_connections_and_no_more), T(read_ahead_that_hangs_keeps_no_demand_waiting),
          T(demand_goes_before_read_ahead_that_was_there_first), T(promoted_read_ahead_is_demand),
          T(promoted_read_ahead_has_the_time_of_its_reader),
          T(a_background_job_begins_only_when_nothing_else_of_its_host_runs),
          T(a_background_job_that_hangs_keeps_nobody_waiting_but_the_next_of_its_kind),
          T(a_demand_range_takes_no_background_job_with_it), T(a_background_job_that_a_reader_wants_is_demand),
          T(a_chunk_is_handed_over_before_its_request_ends), T(a_cancelled_job_is_not_done_and_its_neighbours_are),
          T(a_request_that_nobody_wants_any_more_gives_its_connection_back),
          T(a_deadline_ends_a_job_whose_server_says_nothing), T(a_deadline_ends_a_job_whose_question_nobody_answers),
          T(close_ends_what_is_under_way_and_takes_no_more), T(an_origin_may_go_while_its_jobs_run),
          T(two_origins_cannot_have_one_number), T(many_threads_submit_promote_and_cancel))
