/* fake_source: a source of chunks that arrive when the test says so.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FAKE_SOURCE_H
#define FAKE_SOURCE_H

#include "check.h"

#include "source/source.h"

#define FAKE_CHUNKS 16

struct fake {
    struct source source; /* first */
    struct miss *open[FAKE_CHUNKS];
    bool was_requested[FAKE_CHUNKS];
    int nr_requests, nr_pins, nr_cancels;
    bool answers_at_once;
    bool cancels_while_asked; /* the first request cancels the demand it belongs to */
    bool is_destroyed;
};

static inline enum obd_status fake_read(struct source *source, const struct read_context *context,
                                        struct iov_cursor *cursor, size_t length, uint64_t offset)
{
    (void)cursor, (void)length;
    return demand_add(context->demand, source, offset, 1);
}

static inline void fake_request(struct source *source, struct miss *miss)
{
    struct fake *fake = (struct fake *)source;
    fake->was_requested[miss->chunk] = true;
    if (fake->nr_requests++ == 0 && fake->cancels_while_asked) {
        CHECK(demand_hold(miss->demand));
        status_set(OBD_E_CANCELLED, "cancelled by the first request");
        demand_cancel(miss->demand, OBD_E_CANCELLED);
    }
    if (fake->answers_at_once) {
        fake->nr_pins++;
        demand_arrived(miss, OBD_OK);
    } else {
        fake->open[miss->chunk] = miss;
    }
}

static inline bool fake_cancel(struct source *source, struct miss *miss)
{
    struct fake *fake = (struct fake *)source;
    CHECK(fake->was_requested[miss->chunk]);
    bool is_open = fake->open[miss->chunk] == miss;
    fake->open[miss->chunk] = NULL;
    fake->nr_cancels += is_open;
    return is_open;
}

static inline void fake_release(struct source *source, uint64_t chunk)
{
    (void)chunk;
    ((struct fake *)source)->nr_pins--;
}

static inline void fake_destroy(struct source *source)
{
    ((struct fake *)source)->is_destroyed = true;
}

static const struct source_ops fake_ops = {.kind = "fake",
                                           .read = fake_read,
                                           .request = fake_request,
                                           .cancel = fake_cancel,
                                           .release = fake_release,
                                           .destroy = fake_destroy};

static inline void fake_init(struct fake *fake)
{
    *fake = (struct fake){0};
    CHECK_OK(source_init(&fake->source, &fake_ops, FAKE_CHUNKS, "fake"));
}

/* The chunk arrives (OBD_OK), or fails. */
static inline void fake_answer(struct fake *fake, uint64_t chunk, enum obd_status status)
{
    struct miss *miss = fake->open[chunk];
    CHECK(miss != NULL);
    fake->open[chunk] = NULL;
    fake->nr_pins += status == OBD_OK;
    demand_arrived(miss, status);
}

#endif
