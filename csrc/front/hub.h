/* hub: libtcmu's control side, bound at run time.
 *
 * Debian ships libtcmu.so.2 without headers, so its public ABI is declared in
 * hub.c and filled by dlsym; a machine without it gets one sentence, and all but
 * the TCMU front works.  Only the master-fd functions are used: the rings are
 * walked by front/ring.c (architecture, section 7).
 *
 * The three callbacks are Python's (extern "Python"; native/build.py).  libtcmu
 * calls them on the thread that is inside obd_hub_open or obd_hub_ready, which
 * holds no lock of ours.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_FRONT_HUB_H
#define OBD_FRONT_HUB_H

#include "obd.h"

/* cffi: begin */

struct hub;

/* What added is told about a device; valid during the call, handle until removed. */
struct obd_hub_device {
    void *handle;
    int fd;
    const char *uio_name;   /* "uio3" */
    const char *cfg_string; /* "overlaybd/<path>[;<id>]" */
};

enum obd_hub_change { OBD_HUB_CONFIG = 0, OBD_HUB_SIZE = 1, OBD_HUB_WRITE_CACHE = 2 };

struct obd_hub_params {
    const char *subtype;     /* what stands before the first '/' of a config string */
    const char *description; /* shown by targetcli */
    void *context;           /* given to the callbacks */
    /* 0: the device is served.  A negative errno value: it is not, and enable fails. */
    int (*added)(void *context, struct obd_hub_device *device);
    void (*removed)(void *context, void *handle);
    /* 0: agreed; a negative errno value refuses.  The new size or switch is value,
     * the new config string is text (else NULL). */
    int (*reconfig)(void *context, void *handle, int change, uint64_t value, const char *text);
};

/* Loads libtcmu and announces the handler.  Resets the rings of every device of
 * the subtype: the caller holds the lock that makes it the only daemon.  Calls
 * added for each device found.  OBD_E_UNSUPPORTED: there is no libtcmu, or no
 * kernel module.
 *
 * Nothing closes a hub: tcmulib_close waits for parked commands without a
 * deadline, so a daemon ends by exiting (architecture, section 7). */
int obd_hub_open(const struct obd_hub_params *params, struct hub **out);
/* Readable when obd_hub_ready has something to do. */
int obd_hub_fd(const struct hub *hub);
void obd_hub_ready(struct hub *hub);

/* cffi: end */

#include "base/status.h"

enum obd_status hub_open(const struct obd_hub_params *params, struct hub **out);
int hub_fd(const struct hub *hub);
void hub_ready(struct hub *hub);

#endif
