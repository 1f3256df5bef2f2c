/* source: something that bytes can be read from; sources are stacked.
 *
 *   file        a local file
 *   slice       a part of another source (the payload of a tar wrapper)
 *   padded      another source with zeros behind its end
 *   zfile       the decompressed view of a ZFile in another source
 *   slow        another source, chunk by chunk and late (tests only)
 *   cached      a blob in a registry, through the cache (csrc/cache)
 *
 * A source has a fixed size and never changes.  It is counted: whoever keeps a
 * pointer holds a reference.  Every read goes through source_read(), the one
 * choke point, which checks the range and the promises of the layer below.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_SOURCE_SOURCE_H
#define OBD_SOURCE_SOURCE_H

#include <stdatomic.h>

#include "base/iov.h"
#include "base/status.h"
#include "source/demand.h"

/* How a read may behave. */
struct read_context {
    bool nowait;           /* OBD_E_AGAIN rather than wait for a local disk */
    struct demand *demand; /* where absent chunks are noted; never NULL */
};

struct source_ops {
    const char *kind;

    /* Puts length bytes from offset at the cursor and moves it.  On anything but
     * OBD_OK the cursor's place and the bytes behind it mean nothing.
     *   OBD_E_MISS   all absent chunks of the range are in context->demand
     *   OBD_E_AGAIN  only with nowait                                         */
    enum obd_status (*read)(struct source *source, const struct read_context *context, struct iov_cursor *cursor,
                            size_t length, uint64_t offset);

    /* All NULL in a source that never misses by itself.  request answers with
     * demand_arrived(), now or later; cancel takes a request back: true, it will
     * not be answered, or false, it has been or is just being.  release gives a
     * pin back. */
    void (*request)(struct source *source, struct miss *miss);
    /* All requests of a demand have been made, so what request put off, in order to
     * see them together, shall begin.  NULL: it puts nothing off. */
    void (*begin)(struct source *source);
    bool (*cancel)(struct source *source, struct miss *miss);
    void (*release)(struct source *source, uint64_t chunk);

    /* A chunk whose bytes failed a check in the layer above: forget it, so that
     * it is fetched again.  OBD_E_CORRUPT when that cannot help (a local file).
     * NULL is the same as that answer. */
    enum obd_status (*discard)(struct source *source, uint64_t offset, uint64_t length);

    void (*destroy)(struct source *source); /* frees source, which it embeds */
};

struct source {
    const struct source_ops *ops;
    uint64_t size; /* bytes */
    atomic_uint nr_references;
    char *name; /* what messages call it: a path or a digest; owned */
};

/* For the kinds: fills the head of a new source with one reference. */
enum obd_status source_init(struct source *source, const struct source_ops *ops, uint64_t size, const char *name);

struct source *source_ref(struct source *source);
void source_unref(struct source *source); /* NULL is fine */

/* Reads inside [0, size); a range that is not all inside is OBD_E_CORRUPT
 * ("is shorter than"): only damaged metadata points there. */
enum obd_status source_read(struct source *source, const struct read_context *context, struct iov_cursor *cursor,
                            size_t length, uint64_t offset);

/* ops->discard, where there is one. */
enum obd_status source_discard(struct source *source, uint64_t offset, uint64_t length);

/* Reads and waits: for tools and for opening.  Absent chunks are asked for and
 * waited for until deadline_ns (clock_now_ns; NEVER_NS only in tests), then
 * OBD_E_TIMEOUT. */
enum obd_status source_read_wait(struct source *source, void *buffer, size_t length, uint64_t offset,
                                 uint64_t deadline_ns);

/* The kinds.  A source that reads another takes its own reference to it. */
enum obd_status source_open_file(const char *path, struct source **out);
enum obd_status source_open_slice(struct source *below, uint64_t offset, uint64_t size, struct source **out);
enum obd_status source_open_padded(struct source *below, uint64_t size, struct source **out);
enum obd_status source_open_zfile(struct source *below, const struct obd_zfile_params *params, uint64_t deadline_ns,
                                  struct source **out);

/* Decodes and checks blocks [first, first + nr) of a zfile source and nothing
 * else; OBD_E_CORRUPT names the first bad block. */
enum obd_status source_verify_zfile(struct source *zfile, uint64_t first, uint64_t nr, uint64_t deadline_ns);

#ifdef OBD_TEST_BUILD
#define OBD_SLOW_NEVER UINT32_MAX

/* Cuts below into chunks; the first read of each misses, and it arrives delay_ms
 * after it was asked for (never, when delay_ms is OBD_SLOW_NEVER).  An unpinned
 * chunk is forgotten again keep_ms later (never, likewise). */
enum obd_status source_open_slow(struct source *below, uint32_t chunk_size, uint32_t delay_ms, uint32_t keep_ms,
                                 struct source **out);
/* Whether a slow source keeps its readers waiting (it does from the start). */
enum obd_status source_set_late(struct source *slow, bool is_late);
#endif

#endif
