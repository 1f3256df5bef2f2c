/* options: what the daemon asks of one run of the helper.
 *
 * The command line is  obd-lio-helper VERB key=value ...  and is written by
 * tcmu_overlaybd/lio/helper.py only; every key has one row in options.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_HELPER_OPTIONS_H
#define OBD_HELPER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct options {
    const char *configfs; /* /sys/kernel/config/target */
    const char *sysfs;    /* /sys */
    const char *dev;      /* /dev */
    const char *hba;      /* user_N */
    const char *name;     /* of the backstore */
    const char *config;   /* overlaybd/<path>[;<device id>] */
    const char *serial;   /* wwn/vpd_unit_serial */
    const char *port;     /* naa... of the loopback port; "": no fabric */
    const char *nexus;    /* naa... of its initiator */
    const char *disk;     /* rescan, resize: sdX */
    uint64_t size;        /* bytes */
    uint64_t deadline_ms;
    uint64_t queue_depth;
    uint64_t data_area_mb;
    uint64_t ring_mb;
    uint64_t max_sectors;    /* of 512 bytes, in one command */
    uint64_t qfull_time_out; /* seconds */
    uint64_t disk_timeout;   /* seconds: the SCSI command timer of the disk */
    uint64_t read_ahead_kb;
    uint64_t kernel_waits; /* attach: "enable" and rmdir wait for a daemon's answer */
    uint64_t claim;        /* detach: refuse a disk that is in use */
    uint64_t spare_flush;  /* detach: send no SYNCHRONIZE CACHE, which could wait for a disk below */
    uint64_t abandon;      /* detach: no daemon lives, so what waits for one fails */
};

/* False, and a sentence on stderr, for a key that is unknown or a number that is none. */
bool options_parse(int argc, char **argv, struct options *options);

#endif
