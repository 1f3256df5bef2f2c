/* fetcher: ranged GETs, by libcurl, of blobs whose URL Python has found.
 *
 * One thread drives all transfers (curl multi, CURLOPT_QUICK_EXIT, no redirects
 * followed).  An *origin* is one blob in one repository: what is fetched from it
 * needs a resolution (URL and headers), which Python gives and which C asks for
 * again when it stops working: the resolve queue.
 *
 *   fetch job --no valid resolution--> waits in its origin --resolved--> ready
 *   ready --a connection of its host is free, the more urgent class first--> running
 *   running --206, right Content-Range, right length--> done
 *           --401 403 404 3xx--> origin unresolved, with status and Location, job waits
 *           --429, 5xx, cut, stalled, refused--> origin pauses (Retry-After, else
 *             growing with jitter), then the job is ready again, until its deadline
 *           --200 or a wrong Content-Range: the whole transfer is dropped at the header;
 *             a 200 is read only when the range begins at 0
 *
 * A job is one chunk, so that each can be cancelled, promoted and answered by
 * itself.  Jobs of one origin that lie side by side when a connection is free are
 * merged into one GET of at most FETCH_MAX_BYTES; a chunk is handed over when its
 * last byte has come, not when the GET ends, so a long GET delays nobody.  What has
 * come of a chunk when a transfer is cut is kept, and the next begins behind it.
 *
 * Concurrency per host is bounded.  Read-ahead has at most half of a host's
 * connections, so that a demand job never waits for one.  Background jobs begin only
 * while nothing else of their host runs, one transfer at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_FETCHER_H
#define OBD_CACHE_FETCHER_H

#include <stdbool.h>

#include "base/list.h"
#include "base/status.h"

/* Only read-ahead and prefetching ever get so far, and only where as much comes in a
 * quarter of a second (fetch_plan.c).  A registry takes some ms for each GET, whatever
 * its length (docker-registry 2 to 4, of which most is work): by ranges of 2 MiB it gave
 * a third of its speed, by 8 MiB two thirds, by these nearly all of it. */
#define FETCH_MAX_BYTES (32u << 20)

struct fetcher;
struct origin;

/* Most urgent first.  Background: a whole blob is wanted, some time (background download). */
enum fetch_class { FETCH_DEMAND, FETCH_READ_AHEAD, FETCH_BACKGROUND, NR_FETCH_CLASSES };

/* One chunk that someone wants.  Its memory is the owner's; it must stay until done
 * has been called or fetch_cancel has said true. */
struct fetch_job {
    struct origin *origin;
    uint64_t offset;
    uint32_t length; /* at most FETCH_MAX_BYTES */
    enum fetch_class class;
    uint64_t deadline_ns; /* NEVER_NS: as long as it takes */
    /* Once, on the fetcher's thread, with no lock held, and last of all: OBD_OK and
     * the bytes, which are *given* (free them), or why they are not coming
     * (status_text) and NULL. */
    void (*done)(struct fetch_job *job, enum obd_status status, void *bytes);

    /* The fetcher's, guarded by its lock. */
    enum { FETCH_SUBMITTED, FETCH_PENDING, FETCH_RUNNING, FETCH_ENDED } state;
    struct list link;      /* submitted, pending: in its origin, by age; running: in its transfer; else: see ended */
    struct list by_offset; /* pending: in its origin */
    void *partial;         /* what an earlier transfer has brought, or NULL */
    uint32_t partial_length;
    enum obd_status status; /* ended: what done shall be called with */
    char *reason;
};

/* Jobs end with OBD_E_CANCELLED before this returns; later ones are not taken. */
enum obd_status fetcher_open(const struct obd_fetcher_params *params, struct fetcher **out);
void fetcher_close(struct fetcher *fetcher);

/* size is the blob's; name is for messages; id, which must be new, for the resolve queue. */
enum obd_status origin_open(struct fetcher *fetcher, uint64_t id, uint64_t size, const char *name, struct origin **out);
struct origin *origin_ref(struct origin *origin);
void origin_unref(struct origin *origin);
uint64_t origin_size(const struct origin *origin);
const char *origin_name(const struct origin *origin);

/* Requests made, bytes that came and were wanted, and jobs that failed, by status. */
struct origin_stats {
    uint64_t nr_requests;
    uint64_t fetched_bytes;
    uint64_t nr_errors[OBD_NR_STATUS];
};
void origin_stats(struct origin *origin, struct origin_stats *stats);

void fetcher_stats(struct fetcher *fetcher, struct obd_fetcher_stats *stats);

/* Takes a job; it begins with the next fetch_begin, so that jobs submitted together
 * are merged.  OBD_E_CANCELLED, and the job is not taken, once the fetcher is closed. */
enum obd_status fetch_submit(struct fetch_job *job);
void fetch_begin(struct origin *origin);
/* True: done will not be called.  False: it was, or is just being. */
bool fetch_cancel(struct fetch_job *job);
/* Read-ahead that a reader has caught up with, or a reader with more time: it is of that
 * class from now on, unless it is more urgent already.  Nobody waited for read-ahead, so
 * its deadline becomes the reader's, who is told in time what is wrong.  False: too late,
 * it is done or just being. */
bool fetch_promote(struct fetch_job *job, enum fetch_class class, uint64_t deadline_ns);

/* The resolve queue (obd.h says what each does); threads of Python wait in next. */
enum obd_status resolve_next(struct fetcher *fetcher, struct obd_resolve *question, uint64_t deadline_ns);
enum obd_status resolve_reply(struct fetcher *fetcher, const struct obd_resolve_reply *reply);
enum obd_status resolve_fail(struct fetcher *fetcher, uint64_t origin_id, enum obd_status status, const char *text);
void resolve_close(struct fetcher *fetcher);

#endif
