/* options: see options.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "helper/options.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct key {
    const char *name;
    size_t place;
    bool is_number;
};

#define TEXT(field)                                                                                                    \
    {                                                                                                                  \
#field, offsetof(struct options, field), false                                                                 \
    }
#define NUMBER(field)                                                                                                  \
    {                                                                                                                  \
#field, offsetof(struct options, field), true                                                                  \
    }

static const struct key keys[] = {
    TEXT(configfs),
    TEXT(sysfs),
    TEXT(dev),
    TEXT(hba),
    TEXT(name),
    TEXT(config),
    TEXT(serial),
    TEXT(port),
    TEXT(nexus),
    TEXT(disk),
    NUMBER(size),
    NUMBER(deadline_ms),
    NUMBER(queue_depth),
    NUMBER(data_area_mb),
    NUMBER(ring_mb),
    NUMBER(max_sectors),
    NUMBER(qfull_time_out),
    NUMBER(disk_timeout),
    NUMBER(read_ahead_kb),
    NUMBER(kernel_waits),
    NUMBER(claim),
    NUMBER(spare_flush),
    NUMBER(abandon),
};

static const struct options defaults = {
    .configfs = "/sys/kernel/config/target",
    .sysfs = "/sys",
    .dev = "/dev",
    .hba = "",
    .name = "",
    .config = "",
    .serial = "",
    .port = "",
    .nexus = "",
    .disk = "",
    .deadline_ms = 10000,
    .queue_depth = 128,
    .data_area_mb = 128,
    .ring_mb = 1,
    .max_sectors = 2048,
    .qfull_time_out = 60,
    .disk_timeout = 60,
    .read_ahead_kb = 1024,
    .kernel_waits = 1,
};

static const struct key *key_find(const char *argument, size_t length)
{
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strlen(keys[i].name) == length && memcmp(keys[i].name, argument, length) == 0)
            return &keys[i];
    return NULL;
}

static bool number_parse(const char *text, uint64_t *number)
{
    char *end;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno == 0 && *text >= '0' && *text <= '9' && *end == '\0';
}

static bool option_set(struct options *options, const char *argument)
{
    const char *equals = strchr(argument, '=');
    const struct key *key = equals ? key_find(argument, (size_t)(equals - argument)) : NULL;
    if (!key) {
        fprintf(stderr, "obd-lio-helper: %s: no such option\n", argument);
        return false;
    }
    void *field = (char *)options + key->place;
    if (!key->is_number) {
        *(const char **)field = equals + 1;
        return true;
    }
    if (number_parse(equals + 1, field))
        return true;
    fprintf(stderr, "obd-lio-helper: %s: not a number\n", argument);
    return false;
}

bool options_parse(int argc, char **argv, struct options *options)
{
    *options = defaults;
    for (int i = 0; i < argc; i++)
        if (!option_set(options, argv[i]))
            return false;
    return true;
}
