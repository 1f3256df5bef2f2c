/* provenance: where the bytes of a read came from.
 *
 * A demand has one, which those who deliver bytes fill in on their way: the image knows
 * zeros, the upper and the layer it asks; a source that is a blob of a registry knows
 * better than "a layer", and says so while it is asked.  Of the places that one piece
 * took its bytes from, the furthest counts: a block of a ZFile half of which had to be
 * fetched was fetched.
 *
 * Not thread-safe: it belongs to whoever runs the command.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_SOURCE_PROVENANCE_H
#define OBD_SOURCE_PROVENANCE_H

#include <stdbool.h>
#include <string.h>

#include "obd.h"

struct provenance {
    uint64_t bytes[OBD_NR_PROVENANCES]; /* of the attempt that runs */
    enum obd_provenance piece;          /* of the piece that is being read */
    bool has_missed;                    /* some attempt had to wait for bytes */
};

/* A read begins, or begins anew. */
static inline void provenance_begin(struct provenance *provenance)
{
    memset(provenance->bytes, 0, sizeof provenance->bytes);
}

/* A piece begins: it comes from here, unless somebody notes a place further away. */
static inline void provenance_expect(struct provenance *provenance, enum obd_provenance place)
{
    provenance->piece = place;
}

static inline void provenance_note(struct provenance *provenance, enum obd_provenance place)
{
    if (place > provenance->piece)
        provenance->piece = place;
}

/* The piece is there. */
static inline void provenance_count(struct provenance *provenance, uint64_t length)
{
    provenance->bytes[provenance->piece] += length;
}

static inline enum obd_latency_class provenance_class(const struct provenance *provenance)
{
    if (provenance->has_missed)
        return OBD_LATENCY_REGISTRY;
    return provenance->bytes[OBD_FROM_CACHE] > 0 ? OBD_LATENCY_CACHE : OBD_LATENCY_LOCAL;
}

#endif
