/* nbd: the transmission phase of one NBD connection.
 *
 * Python does the handshake (tcmu_overlaybd/nbd/handshake.py) and hands the socket
 * over; from then on only the connection's thread touches it.  A client that does
 * not read, sends half a request, or lies, hurts its own connection only: no
 * worker ever waits for a socket, and what is buffered is bounded.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_FRONT_NBD_H
#define OBD_FRONT_NBD_H

#include <stdbool.h>

#include "base/status.h"

struct device;
struct nbd;

/* Takes params->fd, a connected stream socket, also when this fails.  device must
 * stay open until nbd_close. */
enum obd_status nbd_start(struct device *device, const struct obd_nbd_params *params, struct nbd **out);

/* OBD_E_TIMEOUT while it goes on; OBD_OK after a clean end (the client's, or
 * nbd_stop), else what ended it: OBD_E_CLOSED or OBD_E_IO for the socket or a
 * client that does not read, OBD_E_INVALID for one that breaks the protocol. */
enum obd_status nbd_wait(struct nbd *nbd, uint64_t deadline_ns);

/* No new request is read; those in flight are answered, as far as the client
 * takes the answers within a few seconds.  Does not wait. */
void nbd_stop(struct nbd *nbd);

/* Waits for the end and frees it.  After nbd_stop the end is near: the deadlines
 * of the commands in flight, and five seconds for a client that does not read. */
void nbd_close(struct nbd *nbd);

/* The errno that a client is told for a status. */
uint32_t nbd_errno(enum obd_status status);

#endif
