/* obd: the only header that Python sees.
 *
 * What lies between the two "cffi" markers is compiled here and fed to cffi by
 * tcmu_overlaybd/native/build.py, so the two cannot drift; it holds nothing but
 * enums, structs, opaque handles and functions.
 *
 * Conventions
 *   - A function that can fail returns an enum obd_status as an int; the sentence
 *     is obd_error_text() of the same thread.
 *   - Handles are opaque.  A pointer parameter is borrowed unless the comment
 *     says *takes*; a handle given through "out" is the caller's to close.
 *   - Offsets and lengths are bytes unless the name says sectors.
 *   - Functions that can wait take a time-out in ms and end with OBD_E_TIMEOUT.
 *   - No function calls back into Python, except the hub's three (front/hub).
 *   - cffi releases the GIL around every call.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_H
#define OBD_H

#include <stddef.h>
#include <stdint.h>

/* cffi: begin */

/* ---- status ------------------------------------------------------------- */

enum obd_status {
    OBD_OK = 0,
    OBD_E_AGAIN,     /* would have to wait; run again elsewhere (never leaves the core) */
    OBD_E_MISS,      /* data is not here yet (never leaves the core) */
    OBD_E_INVALID,   /* the caller's arguments make no sense */
    OBD_E_RANGE,     /* outside the device */
    OBD_E_READ_ONLY, /* the image or its upper cannot be written */
    OBD_E_NO_SPACE,  /* the disk under the upper is full */
    OBD_E_NO_MEMORY,
    OBD_E_LIMIT,       /* the format has no room for it */
    OBD_E_NOT_FOUND,   /* no such file */
    OBD_E_IO,          /* a local disk or system call failed */
    OBD_E_CORRUPT,     /* bytes break a checksum or a rule of the format */
    OBD_E_UNSUPPORTED, /* well-formed, but nothing we can read */
    OBD_E_UNREACHABLE, /* the source of the data does not answer */
    OBD_E_TIMEOUT,     /* a deadline passed */
    OBD_E_CANCELLED,   /* the device is being closed */
    OBD_E_BUSY,        /* another process holds it */
    OBD_E_JOURNAL,     /* the journal does not belong to the upper beside it */
    OBD_E_MISCOMPARE,  /* VERIFY found other data */
    OBD_E_CLOSED,      /* the queue or connection has ended */
    OBD_NR_STATUS
};

/* This thread's sentence about its last failure; valid until the next one. */
const char *obd_error_text(void);
/* "OBD_E_CORRUPT"; "?" for a number that is none. */
const char *obd_status_name(int status);
/* 1 when compiled with -DOBD_TEST_BUILD. */
int obd_is_test_build(void);

/* ---- constants of the formats, read by Python at import ------------------ */

enum obd_codec { OBD_CODEC_NONE = 0, OBD_CODEC_LZ4 = 1, OBD_CODEC_ZSTD = 2 }; /* as in ZFile headers */

enum obd_limits {
    OBD_SECTOR_SIZE = 512,
    OBD_MAX_LAYERS = 255,
    OBD_MAX_LAYER_SEGMENTS = 1000000,
    OBD_MAX_UPPER_SEGMENTS = 128000000,
    OBD_MAX_TRANSFER_SECTORS = 2048, /* of one SCSI command, as VPD page B0 says: 1 MiB */
    OBD_MAX_UNMAP_DESCRIPTORS = 32   /* of one UNMAP, as VPD page B0 says */
};

/* Raw CRC-32C of spec/zfile.md section 4. */
uint32_t obd_crc32c(const void *data, size_t length, uint32_t seed);

/* ---- sources ------------------------------------------------------------- */

struct source;

struct obd_zfile_params { /* from the header or trailer, checked for sense by C again */
    uint64_t index_offset;
    uint64_t nr_blocks;
    uint64_t original_size;
    uint32_t block_size;
    uint32_t codec; /* enum obd_codec */
    uint32_t has_block_crc;
    uint32_t has_index_crc;
    uint32_t index_crc;
};

int obd_source_open_file(const char *path, struct source **out);
int obd_source_open_slice(struct source *below, uint64_t offset, uint64_t size, struct source **out);
int obd_source_open_zfile(struct source *below, const struct obd_zfile_params *params, uint32_t timeout_ms,
                          struct source **out);
/* Test build only, else OBD_E_UNSUPPORTED.  delay_ms 0xffffffff: never arrives. */
int obd_source_open_slow(struct source *below, uint32_t chunk_size, uint32_t delay_ms, uint32_t keep_ms,
                         struct source **out);
/* Whether it keeps readers waiting; not while a layer over it is being opened. */
int obd_source_set_late(struct source *slow, int is_late);
/* Reads of whoever has time: what is absent is fetched when nothing else of its host is.
 * One thread reads. */
struct background_reader;
int obd_background_reader_open(struct source *source, struct background_reader **out);
int obd_background_reader_read(struct background_reader *reader, void *buffer, size_t length, uint64_t offset,
                               uint32_t timeout_ms);
/* From any thread: a read that waits ends with OBD_E_CANCELLED, and so does every later
 * one that would wait. */
void obd_background_reader_stop(struct background_reader *reader);
void obd_background_reader_close(struct background_reader *reader);
uint64_t obd_source_size(const struct source *source);
int obd_source_read(struct source *source, void *buffer, size_t length, uint64_t offset, uint32_t timeout_ms);
int obd_source_verify_zfile(struct source *zfile, uint64_t first_block, uint64_t nr_blocks, uint32_t timeout_ms);
/* These bytes are wrong, as a check above has found: fetched again when read again.
 * OBD_E_CORRUPT: that would not help, they would come from the same place. */
int obd_source_discard(struct source *source, uint64_t offset, uint64_t length);
/* One more handle of it, to be closed like the first. */
struct source *obd_source_share(struct source *source);
void obd_source_close(struct source *source);

/* ---- registry blobs: fetcher, cache, sources of both ------------------------- */

struct fetcher;
struct origin; /* one blob in one repository */
struct cache;

struct obd_fetcher_params {
    const char *user_agent;
    const char *ca_file;     /* NULL: the system's */
    const char *client_cert; /* NULL: none */
    const char *client_key;
    const char *proxy;             /* NULL: from the environment; "": none */
    uint32_t connections_per_host; /* 0: 8; at least 2 */
    uint32_t connect_timeout_ms;   /* name look-up included; 0: 10,000 */
    uint32_t stall_timeout_ms;     /* no byte for so long: the transfer is cut; 0: 10,000 */
};

int obd_fetcher_open(const struct obd_fetcher_params *params, struct fetcher **out);
/* What is being fetched ends with OBD_E_CANCELLED.  No thread may be in
 * obd_resolve_next any more (obd_resolve_close).  Origins and sources may be closed
 * later; the cache must be. */
void obd_fetcher_close(struct fetcher *fetcher);

struct obd_host_traffic {
    char host[256]; /* NAME:PORT that is spoken to, which may be where a registry redirects to; "": all others */
    uint64_t nr_requests;
    uint64_t fetched_bytes; /* that were wanted */
    uint64_t nr_refused;    /* requests answered with 3xx or 4xx: Python was asked again */
    uint64_t nr_failed;     /* requests that were cut, or answered with 429 or 5xx, or not at all */
};

struct obd_fetcher_stats {
    uint64_t nr_errors[20]; /* chunks that did not come, by enum obd_status */
    uint32_t nr_hosts;      /* in hosts; the first is that of all others */
    struct obd_host_traffic hosts[17];
};

/* Since the fetcher was opened, of all its origins, also those that have been closed. */
void obd_fetcher_stats(struct fetcher *fetcher, struct obd_fetcher_stats *stats);

/* size of the blob, in bytes; id, which must be new, names it in the resolve queue,
 * name (a digest and its repository) in messages. */
int obd_origin_open(struct fetcher *fetcher, uint64_t id, uint64_t size, const char *name, struct origin **out);
void obd_origin_close(struct origin *origin);

/* The resolve queue: which URL and headers a blob has now.  Any number of threads. */

enum obd_resolve_reason {
    OBD_RESOLVE_FIRST = 0,   /* it never had a resolution */
    OBD_RESOLVE_EXPIRED = 1, /* valid_ms are over */
    OBD_RESOLVE_REFUSED = 2  /* the server answered with http_status */
};

struct obd_resolve {
    uint64_t origin_id;
    uint32_t reason;      /* enum obd_resolve_reason */
    uint32_t http_status; /* of a refusal: 3xx or 4xx; else 0 */
    char location[2048];  /* of a redirect, as it was sent; else "" */
    char www_authenticate[512];
};

struct obd_resolve_reply {
    uint64_t origin_id;
    const char *url;     /* http or https */
    const char *headers; /* "Name: value" lines, each with its newline; NULL: none */
    uint64_t valid_ms;   /* asked for anew after so long; 0: when it is refused */
};

/* The next origin that needs a resolution; OBD_E_TIMEOUT, OBD_E_CLOSED. */
int obd_resolve_next(struct fetcher *fetcher, struct obd_resolve *question, uint32_t timeout_ms);
/* OBD_E_NOT_FOUND: the origin has been closed meanwhile.  OBD_E_INVALID: not a URL. */
int obd_resolve_reply(struct fetcher *fetcher, const struct obd_resolve_reply *reply);
/* What waits for the origin ends with status and text; later reads ask again. */
int obd_resolve_fail(struct fetcher *fetcher, uint64_t origin_id, int status, const char *text);
/* obd_resolve_next returns OBD_E_CLOSED from now on, and what needs a resolution fails. */
void obd_resolve_close(struct fetcher *fetcher);

struct obd_cache_params {
    const char *folder;
    uint64_t limit_bytes;
    uint64_t free_floor_bytes; /* left free on the file system */
    uint32_t chunk_size;       /* 64 KiB .. 1 MiB, a power of two */
};

struct obd_cache_stats {
    uint64_t limit_bytes;
    uint64_t used_bytes;
    uint64_t nr_blobs;
    uint64_t nr_evicted; /* chunks, as the next two */
    uint64_t nr_damaged;
    uint64_t nr_not_kept;
    uint64_t nr_hits;   /* chunks that a command read without waiting */
    uint64_t nr_misses; /* and those that one had to wait for */
};

/* OBD_E_BUSY names the owner; a read-only folder opens and keeps nothing new. */
int obd_cache_open(const struct obd_cache_params *params, struct cache **out);
void obd_cache_close(struct cache *cache); /* all its sources closed */
void obd_cache_stats(struct cache *cache, struct obd_cache_stats *stats);

struct obd_cached_source_stats {
    uint64_t fetched_bytes; /* from the registry, by all sources of the origin */
    uint64_t nr_requests;   /* GETs, likewise */
    uint64_t nr_errors[20]; /* chunks that did not come, by enum obd_status; likewise */
    uint64_t cached_bytes;  /* of this source: read without waiting */
    uint64_t present_bytes; /* of the blob: in the cache now */
    uint32_t chunk_size;
    uint32_t is_local; /* a local file has taken over */
};

/* digest: 32 bytes. */
int obd_source_open_cached(struct cache *cache, struct origin *origin, const uint8_t *digest, struct source **out);
/* Starts fetching what is absent of the range; nobody waits for it, so it is given up
 * after a minute: a few MiB at a time. */
int obd_source_prefetch(struct source *source, uint64_t offset, uint64_t length);
/* From now on everything is read from local, a file with the same bytes; also what waits
 * for the registry just now.  Should it fail later, reads go to the registry again.
 * OBD_E_INVALID: its size differs, or another has taken over before. */
int obd_source_switch_to(struct source *cached, struct source *local);
int obd_cached_source_stats(struct source *source, struct obd_cached_source_stats *stats);

/* ---- layers -------------------------------------------------------------- */

struct layer;

struct obd_layer_params {
    uint64_t index_offset; /* bytes */
    uint64_t nr_entries;   /* padding included */
    uint64_t virtual_size;
};

struct obd_segment { /* sectors; a segment taken apart, for tools */
    uint64_t offset;
    uint64_t moffset;
    uint32_t length;
    uint8_t zeroed;
    uint8_t tag;
};

int obd_layer_open(struct source *source, const struct obd_layer_params *params, uint32_t timeout_ms,
                   struct layer **out);
int obd_layer_open_raw(const char *path, struct layer **out);
uint64_t obd_layer_nr_segments(const struct layer *layer);
/* Copies at most max segments from place first on; returns how many. */
size_t obd_layer_segments(const struct layer *layer, uint64_t first, struct obd_segment *out, size_t max);
void obd_layer_close(struct layer *layer);

/* ---- uppers -------------------------------------------------------------- */

struct upper;

enum obd_upper_flags {
    OBD_UPPER_READ_ONLY = 1,      /* shared lock, replay in memory only, change nothing */
    OBD_UPPER_DROP_UNFLUSHED = 2, /* give up a journal that does not fit, or the failed mark */
    OBD_UPPER_NO_JOURNAL = 4,     /* test build only: what would be lost without it */
    OBD_UPPER_SPARSE = 8,         /* the data file is written in place, see image/upper_sectors.h */
    OBD_UPPER_LOSE_NOTHING = 16   /* refuse where acknowledged writes are lost: somebody counts on them */
};

struct obd_upper_params {
    const char *data_path;
    const char *index_path;
    const char *uuid;   /* of the index file's header, or a sparse data file's; 36 characters */
    const char *holder; /* who we are, for the one we keep out; the process id is added */
    uint64_t virtual_size;
    uint64_t journal_slots;     /* of a journal that is made new; 0: 16384 */
    uint32_t flush_interval_ms; /* 0: no flush by the clock */
    uint32_t tag;               /* number of lowers, written into entries */
    uint32_t flags;
};

struct obd_upper_stats {
    uint64_t nr_segments;
    uint64_t nr_journal_slots; /* 0: it has no journal */
    uint64_t nr_journal_used;
    uint64_t log_bytes;       /* size of the data file's log; of a sparse one what it takes on its disk */
    uint64_t live_bytes;      /* of it, still visible */
    uint64_t unflushed_bytes; /* acknowledged, not yet synced */
    uint64_t nr_flushes;      /* sync pairs made */
    uint64_t nr_flush_calls;  /* flushes asked for */
    uint64_t replayed;        /* journal records applied at open */
    uint64_t dropped_writes;  /* at open: records of acknowledged writes that could not be applied */
    uint64_t dropped_bytes;   /* at open: of the index file's end, which were not believed */
    uint32_t is_failed;
    uint32_t is_drop_unexplained; /* dropped_bytes, and no journal says that they were never flushed */
};

/* The index that a seal has written behind the log. */
struct obd_sealed_index {
    uint64_t index_offset; /* bytes; where the log ends */
    uint64_t nr_entries;
    uint64_t trailer_offset;
};

int obd_upper_open(const struct obd_upper_params *params, struct upper **out);
int obd_upper_close(struct upper *upper); /* only one that no image has taken */
void obd_upper_stats(struct upper *upper, struct obd_upper_stats *stats);

/* ---- images -------------------------------------------------------------- */

struct image;

enum obd_extent_kind { OBD_EXTENT_HOLE = 0, OBD_EXTENT_ZERO = 1, OBD_EXTENT_DATA = 2 };

struct obd_extent {
    uint64_t offset; /* bytes */
    uint64_t length;
    uint32_t kind; /* enum obd_extent_kind; hole: no layer has it; zero: a layer says so */
    int32_t layer; /* place in lowers, the upper = their number; -1 for a hole */
};

/* lowers[0] is the lowest; borrowed.  Takes upper (may be NULL), also on failure. */
int obd_image_open(struct layer *const *lowers, size_t nr_lowers, struct upper *upper, uint64_t virtual_size,
                   const char *name, struct image **out);
uint64_t obd_image_size(const struct image *image);
int obd_image_is_read_only(const struct image *image);
/* These wait: for missing data until time-out, for the disk, for journal room. */
int obd_image_read(struct image *image, void *buffer, size_t length, uint64_t offset, uint32_t timeout_ms);
int obd_image_write(struct image *image, const void *buffer, size_t length, uint64_t offset, uint32_t timeout_ms);
int obd_image_discard(struct image *image, uint64_t length, uint64_t offset, uint32_t timeout_ms);
int obd_image_flush(struct image *image);
/* The disk has size bytes from now on; never fewer than before.  A flush makes it durable. */
int obd_image_grow(struct image *image, uint64_t size);
int obd_image_extents(struct image *image, uint64_t offset, uint64_t length, struct obd_extent *out, size_t max,
                      size_t *nr);
uint64_t obd_image_nr_segments(struct image *image);
/* OBD_E_NOT_FOUND when it has no upper. */
int obd_image_upper_stats(struct image *image, struct obd_upper_stats *stats);
/* Ends the upper in place; no write may run (obd_device_hold).  The first writes the index
 * behind the log, the second the trailer that Python has made for it, 4096 bytes: then the
 * data file is a sealed layer, and everything acknowledged is durable in it.  unseal takes
 * it back while nobody uses that layer; see image/upper.h. */
int obd_image_seal(struct image *image, struct obd_sealed_index *index);
int obd_image_finish_seal(struct image *image, const void *trailer);
int obd_image_unseal(struct image *image);
/* One more handle of it, to be closed like the first. */
struct image *obd_image_share(struct image *image);
/* Gives the reference back; with the last one the upper is flushed and closed,
 * and what that said is returned. */
int obd_image_close(struct image *image);

/* ---- writing layers ------------------------------------------------------ */

struct writer;
struct compact;

struct obd_writer_params {
    int fd; /* borrowed */
    uint64_t offset;
    uint32_t codec;      /* OBD_CODEC_NONE: a plain copy */
    uint32_t block_size; /* 4096 .. 65536, a power of two */
    uint32_t nr_threads; /* that compress; at least 1 */
};

struct obd_writer_result {
    uint64_t bytes_in;
    uint64_t bytes_out;    /* blocks and jump table */
    uint64_t index_offset; /* of the jump table, from params.offset */
    uint64_t nr_blocks;
    uint32_t index_crc;
};

struct obd_compact_params {
    uint32_t detect_zeros; /* all-zero 4 KiB pieces become zeroed segments */
    uint32_t drop_zeros;   /* and zeroed segments are left out (a lowest layer) */
    uint32_t keep_tags;    /* merge: write source layer numbers as tags */
    uint32_t upper_only;   /* of a stack with lowers only its upper: a commit of an image in use */
    uint32_t timeout_ms;   /* for one step that meets missing data */
};

struct obd_compact_result {
    uint64_t index_offset; /* bytes, in the LSMT file */
    uint64_t nr_entries;   /* padding included */
    uint64_t nr_segments;  /* without it */
};

int obd_writer_open(const struct obd_writer_params *params, struct writer **out);
int obd_writer_write(struct writer *writer, const void *bytes, size_t length);
int obd_writer_finish(struct writer *writer, struct obd_writer_result *result);
void obd_writer_close(struct writer *writer);

int obd_compact_open(struct image *image, struct writer *writer, const struct obd_compact_params *params,
                     struct compact **out);
uint64_t obd_compact_total(const struct compact *compact);
int obd_compact_step(struct compact *compact, uint64_t max_bytes, uint64_t *done);
int obd_compact_finish(struct compact *compact, struct obd_compact_result *result);
void obd_compact_close(struct compact *compact);

/* ---- core and devices ---------------------------------------------------- */

struct core;
struct device;

struct obd_core_params {
    uint32_t nr_workers;        /* 0: four per processor, at least 16, at most 64 */
    uint64_t park_budget_bytes; /* of all devices together; 0: 256 MiB */
};

enum obd_on_timeout { OBD_ON_TIMEOUT_ERROR = 0, OBD_ON_TIMEOUT_RETRY = 1, OBD_ON_TIMEOUT_FREEZE = 2 };

struct obd_device_params {
    const char *name;
    uint32_t io_timeout_ms;     /* 0: 20,000 */
    uint32_t on_timeout;        /* enum obd_on_timeout */
    uint64_t park_budget_bytes; /* of this device; 0: 32 MiB */
};

enum obd_command_kind {
    OBD_COMMAND_READ = 0,
    OBD_COMMAND_WRITE = 1,
    OBD_COMMAND_DISCARD = 2,
    OBD_COMMAND_FLUSH = 3,
    OBD_COMMAND_VERIFY = 4,
    OBD_NR_COMMAND_KINDS = 5
};

/* Where the bytes of a read came from, the furthest last. */
enum obd_provenance {
    OBD_FROM_ZEROS = 0, /* no layer has them, or one says zeros */
    OBD_FROM_UPPER = 1,
    OBD_FROM_LAYER = 2,    /* a local file */
    OBD_FROM_DOWNLOAD = 3, /* a blob of a registry that has become a local file */
    OBD_FROM_CACHE = 4,
    OBD_FROM_REGISTRY = 5, /* fetched for this read */
    OBD_NR_PROVENANCES = 6
};

/* What a command had to wait for.  Commands that read nothing are local. */
enum obd_latency_class {
    OBD_LATENCY_LOCAL = 0,
    OBD_LATENCY_CACHE = 1,    /* some of its bytes were in the cache, and none had to be fetched */
    OBD_LATENCY_REGISTRY = 2, /* it was parked for some, whether they came or not */
    OBD_NR_LATENCY_CLASSES = 3
};

enum obd_latency_buckets {
    OBD_NR_LATENCY_BUCKETS = 24,
    OBD_LATENCY_FIRST_NS = 8000 /* bound of the first; each next one is twice as long, the last has none */
};

struct obd_latency {
    uint64_t nr[24]; /* by bucket, each for itself */
    uint64_t sum_ns;
};

struct obd_device_stats {
    uint64_t nr_commands[5];   /* done, by enum obd_command_kind, however they ended */
    uint64_t nr_bytes[5];      /* of those that ended well */
    uint64_t nr_bytes_from[6]; /* of reads, by enum obd_provenance */
    uint64_t nr_errors[20];    /* done with this status, by enum obd_status */
    uint64_t nr_in_flight;
    uint64_t nr_parked;
    uint64_t parked_bytes; /* admitted to the budget */
    uint64_t oldest_ms;    /* age of the oldest command in flight */
    uint64_t nr_parks;     /* times a command was parked, or paused for another try */
};

int obd_core_open(const struct obd_core_params *params, struct core **out);
void obd_core_close(struct core *core);
int obd_device_open(struct core *core, struct image *image, const struct obd_device_params *params,
                    struct device **out);
/* What is parked, waits or is queued, and every later command, ends with status. */
void obd_device_fail_parked(struct device *device, int status);
/* OBD_E_TIMEOUT leaves it open; anything else closes it. */
int obd_device_close(struct device *device, uint32_t timeout_ms);
void obd_device_stats(struct device *device, struct obd_device_stats *stats);
/* obd_image_grow, and commands may go past the old end from now on. */
int obd_device_grow(struct device *device, uint64_t size);
/* No write or discard runs from when this is OBD_OK until obd_device_resume: they wait.
 * OBD_E_TIMEOUT, OBD_E_BUSY: nothing has changed. */
int obd_device_hold(struct device *device, uint32_t timeout_ms);
void obd_device_resume(struct device *device);
/* While held: image, of the same size and content, takes the place of the one it has. */
int obd_device_replace_image(struct device *device, struct image *image);
/* Waits until no command uses images that were replaced, and gives them back.  After
 * OBD_E_TIMEOUT the device keeps them until another call, or its close. */
int obd_device_drop_replaced(struct device *device, uint32_t timeout_ms);
/* out: OBD_NR_COMMAND_KINDS x OBD_NR_LATENCY_CLASSES, class by class within a kind.  All
 * commands are in it.  Of those carried out at once, on the thread of a front, one in 16
 * is timed, and the others count as if they had taken as long as the last of these. */
void obd_device_latency(struct device *device, struct obd_latency *out);

/* ---- front: mem ---------------------------------------------------------- */

/* For tests and benchmarks: commands from memory. */
struct mem_command;

struct obd_mem_params {
    uint32_t kind; /* enum obd_command_kind */
    uint32_t fua;
    uint64_t offset;
    uint64_t length;
    void *buffer; /* borrowed until waited for; READ, WRITE, VERIFY (may be NULL there) */
};

int obd_mem_submit(struct device *device, const struct obd_mem_params *params, struct mem_command **out);
/* The command's status; it is freed, and *command is NULL.  OBD_E_TIMEOUT with
 * *command left as it was: it goes on. */
int obd_mem_wait(struct mem_command **command, uint32_t timeout_ms);
/* Submit and wait, with no allocation: the shortest way through the core. */
int obd_mem_run(struct device *device, const struct obd_mem_params *params);
/* Benchmark loop in C: nr reads of length bytes at offsets[i], on nr_threads
 * threads; elapsed_ns of the whole. */
int obd_mem_read_loop(struct device *device, const uint64_t *offsets, size_t nr, uint32_t length, uint32_t nr_threads,
                      uint64_t *elapsed_ns);

/* ---- front: nbd ---------------------------------------------------------- */

/* The transmission phase of one connection; Python has done the handshake. */
struct nbd;

enum obd_nbd_flags {
    OBD_NBD_STRUCTURED = 1,   /* structured replies were negotiated */
    OBD_NBD_BLOCK_STATUS = 2, /* base:allocation was, with context id 1 */
    OBD_NBD_READ_ONLY = 4
};

struct obd_nbd_params {
    int fd; /* taken, also on failure */
    uint32_t flags;
    uint32_t max_in_flight; /* 0: 64 */
};

int obd_nbd_start(struct device *device, const struct obd_nbd_params *params, struct nbd **out);
/* OBD_E_TIMEOUT while it goes on; else how it ended. */
int obd_nbd_wait(struct nbd *nbd, uint32_t timeout_ms);
/* Asks it to end: no new request is read, those in flight are answered. */
void obd_nbd_stop(struct nbd *nbd);
/* Waits for the end, which after obd_nbd_stop is near, and frees it. */
void obd_nbd_close(struct nbd *nbd);

/* ---- front: tcmu --------------------------------------------------------- */

struct tcmu;
struct ring;

struct obd_tcmu_params {
    uint32_t nr_threads; /* ring threads; 0: 1 */
};

struct obd_ring_params {
    int fd; /* of /dev/uioN, borrowed: libtcmu's */
    const char *name;
    uint64_t map_size;        /* of maps/map0/size in sysfs */
    void *map;                /* NULL: map fd; tests give memory that looks like a mailbox */
    uint32_t open_timeout_ms; /* how long data commands wait for a device; 0: 20,000 */
};

struct obd_ring_stats {
    uint64_t nr_commands;  /* taken from the ring */
    uint64_t nr_in_flight; /* of them, not answered yet */
    uint64_t nr_waiting;   /* of those, wait for a device */
    uint64_t nr_batches;   /* times the kernel was told of answers */
    uint32_t is_broken;    /* the kernel's side made no sense: nothing is taken any more */
};

/* A CDB that is not C's (all that only describe the disk), for Python. */
struct obd_control {
    uint64_t ring_id;
    uint64_t token;
    uint8_t cdb[16];
    uint32_t data_in_length;  /* room for an answer, bytes */
    uint32_t data_out_length; /* of what came with it, at most sizeof data_out */
    uint8_t data_out[512];
};

enum obd_scsi_class {
    OBD_SCSI_UNKNOWN = 0,
    OBD_SCSI_DATA = 1,   /* carried out in C */
    OBD_SCSI_CONTROL = 2 /* only describes the disk: answered by Python */
};

struct obd_control_reply {
    uint64_t ring_id;
    uint64_t token;
    uint32_t scsi_status; /* 0 GOOD, 2 CHECK CONDITION */
    uint32_t sense;       /* key << 16 | asc << 8 | ascq */
    const void *data;
    uint32_t length; /* cut to the room there is */
};

int obd_tcmu_open(const struct obd_tcmu_params *params, struct tcmu **out);
void obd_tcmu_close(struct tcmu *tcmu); /* all rings unbound */
/* A ring without a device answers what describes it through Python, and lets
 * data commands wait until it gets one, or their deadline. */
int obd_ring_bind(struct tcmu *tcmu, const struct obd_ring_params *params, struct ring **out);
uint64_t obd_ring_id(const struct ring *ring);
/* Borrowed.  NULL takes it away: what is in the device still ends there, later data
 * commands wait again. */
int obd_ring_set_device(struct ring *ring, struct device *device, uint32_t timeout_ms);
/* From now on data commands fail with this status (an image that can't be opened). */
int obd_ring_set_broken(struct ring *ring, int status, uint32_t timeout_ms);
/* Stops walking the ring and waits for commands that run, not for parked ones
 * when leave_parked is set: those stay on the ring for the next daemon.  The
 * handle is gone unless this is OBD_E_TIMEOUT. */
int obd_ring_unbind(struct ring *ring, int leave_parked, uint32_t timeout_ms);
int obd_ring_stats(struct ring *ring, struct obd_ring_stats *stats, uint32_t timeout_ms);
/* The next control command; OBD_E_TIMEOUT, OBD_E_CLOSED after obd_tcmu_wake. */
int obd_control_next(struct tcmu *tcmu, struct obd_control *control, uint32_t timeout_ms);
/* OBD_E_NOT_FOUND: it came too late, the command has been answered. */
int obd_control_reply(struct tcmu *tcmu, const struct obd_control_reply *reply);
void obd_tcmu_wake(struct tcmu *tcmu); /* obd_control_next returns OBD_E_CLOSED from now on */
/* enum obd_scsi_class of an operation code. */
int obd_scsi_class(uint32_t opcode);
/* key << 16 | asc << 8 | ascq of a status: the table at the SCSI border. */
uint32_t obd_status_sense(int status, int is_write);
/* The NBD errno of a status: the table at the NBD border. */
uint32_t obd_status_nbd_errno(int status);

/* ---- log ----------------------------------------------------------------- */

enum obd_log_level { OBD_LOG_DEBUG = 0, OBD_LOG_INFO = 1, OBD_LOG_WARNING = 2, OBD_LOG_ERROR = 3 };

struct obd_log_record {
    uint64_t realtime_ns;
    uint32_t level;
    uint32_t nr_dropped; /* records lost before this one because the queue was full */
    char text[480];
};

int obd_log_next(struct obd_log_record *record, uint32_t timeout_ms); /* OBD_E_CLOSED after obd_log_close */
void obd_log_close(void);

/* ---- process ------------------------------------------------------------- */

/* PR_SET_IO_FLUSHER and mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT), for the
 * daemon, before any thread starts (architecture, section 7). */
int obd_process_guard_memory(void);

/* While wanted, calls that wait for data (reading, opening, commit) end with
 * OBD_E_CANCELLED at once: a thread that waits in C hears of no signal.  Commands of a
 * device are not touched. */
void obd_interrupt_waits(int wanted);

/* Test build only, else OBD_E_UNSUPPORTED: the n-th call (from 1) of operation
 * ("write", "tear", "sync", "reserve", "read", "truncate", "punch", "open", "rename",
 * "remove"; a torn write has written half; and syncs that do not fail: "stall", "forget",
 * "late", see csrc/base/fault_file.c) on a file whose path ends in suffix fails with error (an errno value), and with
 * sticky every later one; n = 0 removes all rules. */
int obd_test_file_fault(const char *suffix, const char *operation, uint32_t n, int error, int sticky);

/* Test build only: from now on what changes files of folder is noted on a new tape at
 * tape_path (csrc/base/record_file.c); folder "" ends that. */
int obd_test_record_files(const char *folder, const char *tape_path);

/* A step of Python's at which a test may kill the process (base/hook.h); test build only. */
void obd_test_hook(const char *name);

/* cffi: end */

#endif
