/* hub: libtcmu's control side, bound at run time.
 *
 * Debian ships libtcmu.so.2 without headers, so its public ABI is declared in
 * hub.c and filled by dlsym; a machine without it gets one sentence, and all but
 * the TCMU front works.  Only the master-fd functions are used: the rings are
 * walked by front/ring.c (architecture, section 7).
 *
 * The three hub_* functions at the end are Python's (extern "Python"): libtcmu
 * calls them on the thread that is inside obd_hub_open or obd_hub_ready, which
 * holds no lock of ours.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_FRONT_HUB_H
#define OBD_FRONT_HUB_H

#include "obd.h"

/* cffi: begin */

/* Loads libtcmu and announces the handler.  Resets the rings of every device of
 * the subtype: the caller holds the lock that makes it the only daemon.  Calls
 * hub_added for each device found.  OBD_E_UNSUPPORTED: there is no libtcmu. */
int obd_hub_open(const char *subtype, const char *description, int *master_fd);
/* The master fd is readable: handles what came. */
int obd_hub_ready(void);

/* What hub_added is told about a device; valid during the call, handle until removed. */
struct obd_hub_device {
    void *handle;
    int fd;
    const char *uio_name;   /* "uio3" */
    const char *cfg_string; /* "overlaybd/<path>[;<id>]" */
};

/* cffi: end */

#endif
