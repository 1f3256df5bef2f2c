/* abandon: the end of what waits for a daemon that will not answer.
 *
 * A command that lies on the ring of a dead daemon stays there for ever (cmd_time_out
 * is 0, so that a restart is only a pause), and whoever waits for it sleeps where no
 * signal reaches.  Three things end that, and all three are needed:
 *   - no flush: the kernel is told that the disk has no cache (disk_spare_flush)
 *   - no new command: the disk goes offline (disk_set_offline)
 *   - no old one: the ring is reset, and what lay on it fails.  The kernel's error
 *     handler puts commands on it whatever the disk's state, so this is repeated
 *     for as long as somebody may wait
 *
 * Nothing of this may be done while a daemon lives: whoever calls holds its lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_HELPER_ABANDON_H
#define OBD_HELPER_ABANDON_H

#include <sys/types.h>

#include "helper/configfs.h"

/* Fails what lies on the ring of places->backstore, now and again and again, by a
 * process of its own, since the caller is about to sleep.  It ends with us at the
 * latest.  -1: there is none. */
pid_t abandon_ring_begin(const struct places *places);
void abandon_ring_end(pid_t pid);

#endif
