/* tcmu: the TCMU front: ring threads, their rings, and the control queue.
 *
 * The functions on a ring are for any thread: they call over to the ring's thread
 * and wait for it, at most until their deadline.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_FRONT_TCMU_H
#define OBD_FRONT_TCMU_H

#include "command/core.h"

struct tcmu;
struct ring;

enum obd_status tcmu_open(const struct obd_tcmu_params *params, struct tcmu **out);
void tcmu_close(struct tcmu *tcmu); /* all rings are unbound, nobody is in tcmu_control_next */

/* See obd.h, "front: tcmu". */
enum obd_status tcmu_bind(struct tcmu *tcmu, const struct obd_ring_params *params, struct ring **out);
enum obd_status tcmu_set_device(struct ring *ring, struct device *device, uint64_t deadline_ns);
enum obd_status tcmu_set_broken(struct ring *ring, enum obd_status status, uint64_t deadline_ns);
enum obd_status tcmu_unbind(struct ring *ring, bool leave_parked, uint64_t deadline_ns);
enum obd_status tcmu_ring_stats(struct ring *ring, struct obd_ring_stats *stats, uint64_t deadline_ns);

enum obd_status tcmu_control_next(struct tcmu *tcmu, uint64_t deadline_ns, struct obd_control *control);
enum obd_status tcmu_control_reply(struct tcmu *tcmu, const struct obd_control_reply *reply);
void tcmu_wake(struct tcmu *tcmu);

#endif
