/* fetcher: ranged GETs, by libcurl, of blobs whose URL Python has found.
 *
 * One thread drives all transfers (curl multi, CURLOPT_QUICK_EXIT, no redirects
 * followed).  An *origin* is one blob in one repository: what is fetched from it
 * needs a resolution (URL and headers), which Python gives and which C asks for
 * again when it stops working: the resolve queue.
 *
 *   fetch job --no valid resolution--> waits in its origin --resolved--> ready
 *   ready --a connection of its host is free, demand before read-ahead--> running
 *   running --206, right Content-Range, right length--> done
 *           --401 403 404 3xx--> origin unresolved, with status and Location, job waits
 *           --429, 5xx, cut, stalled, refused--> ready again after a pause (Retry-After,
 *             else growing with jitter) until its deadline
 *           --200 or a wrong Content-Range: the whole transfer is dropped at the header;
 *             a 200 is read only when the range begins at 0
 *
 * Adjacent chunks that are wanted at once are merged into one range of at most
 * FETCH_MAX_BYTES.  Concurrency per host is bounded.  A job's data is handed over
 * chunk by chunk as it arrives.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_FETCHER_H
#define OBD_CACHE_FETCHER_H

#include <stdbool.h>

#include "base/list.h"
#include "base/status.h"

#define FETCH_MAX_BYTES (1u << 20)

struct fetcher;
struct origin;

enum fetch_class { FETCH_DEMAND, FETCH_READ_AHEAD };

/* A run of chunks that someone wants.  Owned by the caller until done. */
struct fetch_job {
    struct origin *origin;
    uint64_t offset;
    uint64_t length;
    uint32_t chunk_size;
    enum fetch_class class;
    uint64_t deadline_ns;
    /* On the fetcher's thread, no lock held: one chunk's bytes, borrowed; in order. */
    void (*chunk_arrived)(struct fetch_job *job, uint64_t offset, const void *bytes, uint32_t length);
    /* Once, after the last chunk: OBD_OK, or why the rest is not coming (status_text). */
    void (*done)(struct fetch_job *job, enum obd_status status);
    struct list link;
};

struct fetcher_params {
    uint32_t connections_per_host; /* 0: 8 */
    uint32_t connect_timeout_ms;   /* 0: 10,000 */
    uint32_t stall_timeout_ms;     /* no byte for so long: the transfer is cut; 0: 10,000 */
    const char *user_agent;
    const char *ca_file;     /* NULL: the system's */
    const char *client_cert; /* NULL: none */
    const char *client_key;
    const char *proxy; /* NULL: from the environment, "" : none */
};

enum obd_status fetcher_open(const struct fetcher_params *params, struct fetcher **out);
void fetcher_close(struct fetcher *fetcher); /* jobs end with OBD_E_CANCELLED */

/* name is for messages; id for the resolve queue. */
enum obd_status origin_open(struct fetcher *fetcher, uint64_t id, const char *name, struct origin **out);
struct origin *origin_ref(struct origin *origin);
void origin_unref(struct origin *origin);

void fetch_submit(struct fetch_job *job);
/* True: it will not be done.  False: it is done or just being. */
bool fetch_cancel(struct fetch_job *job);
/* Read-ahead that a reader has caught up with. */
void fetch_promote(struct fetch_job *job, uint64_t deadline_ns);

#endif
