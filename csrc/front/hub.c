/* See hub.h.  The declarations of libtcmu below are its public ABI (tcmu-runner
 * 1.5, libtcmu.so.2), as far as we use it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "front/hub.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/status.h"

#define LIBRARY "libtcmu.so.2"

/* Each process that makes or removes a device waits for our answer to its message of
 * about 1 KiB, so this is room for 4,000 processes at a time.  libtcmu leaves it at
 * 32 KiB: one that found no room would be lost, and its process wait for ever. */
#define RECEIVE_BUFFER (4 << 20)

struct tcmu_device;
struct tcmulib_context;

/* A change of a backstore's attribute; kind says which member is meant, and its
 * numbers are those of enum obd_hub_change. */
struct tcmulib_cfg_info {
    int kind;
    union {
        uint64_t size;
        char *config;
        bool write_cache;
    } value;
};

/* What we announce.  The order of the members is libtcmu's. */
struct tcmulib_handler {
    const char *name;
    const char *subtype;
    const char *description;
    struct tcmulib_context *context; /* libtcmu's */
    bool (*check_config)(const char *config, char **reason);
    int (*reconfig)(struct tcmu_device *device, struct tcmulib_cfg_info *info);
    bool (*update_log_folder)(void);
    int (*added)(struct tcmu_device *device);
    void (*removed)(struct tcmu_device *device);
    void *private_data;
    void *connection;
};

struct libtcmu {
    struct tcmulib_context *(*initialize)(struct tcmulib_handler *handlers, size_t nr);
    int (*master_fd)(struct tcmulib_context *context);
    int (*master_fd_ready)(struct tcmulib_context *context);
    int (*device_fd)(struct tcmu_device *device);
    const char *(*device_uio_name)(struct tcmu_device *device);
    char *(*device_config)(struct tcmu_device *device);
};

struct hub {
    struct libtcmu libtcmu;
    struct tcmulib_handler handler;
    struct tcmulib_context *context;
    struct obd_hub_params params;
    char *subtype;
    char *description;
};

/* ---- loading ---- */

struct symbol {
    const char *name;
    void *place; /* a function pointer of struct libtcmu */
};

static enum obd_status load_symbol(void *library, const struct symbol *symbol)
{
    void *address = dlsym(library, symbol->name);
    if (address == NULL)
        return status_set(OBD_E_UNSUPPORTED, "hub: %s has no %s", LIBRARY, symbol->name);
    memcpy(symbol->place, &address, sizeof address); /* ISO C has no cast from data to function */
    return OBD_OK;
}

/* The library stays loaded for the rest of the process. */
static enum obd_status load_libtcmu(struct libtcmu *libtcmu)
{
    const struct symbol symbols[] = {
        {"tcmulib_initialize", &libtcmu->initialize},           {"tcmulib_get_master_fd", &libtcmu->master_fd},
        {"tcmulib_master_fd_ready", &libtcmu->master_fd_ready}, {"tcmu_dev_get_fd", &libtcmu->device_fd},
        {"tcmu_dev_get_uio_name", &libtcmu->device_uio_name},   {"tcmu_dev_get_cfgstring", &libtcmu->device_config},
    };
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return status_set(OBD_E_UNSUPPORTED, "hub: %s cannot be loaded (Debian package libtcmu2): %s", LIBRARY,
                          dlerror());
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        enum obd_status status = load_symbol(library, &symbols[i]);
        if (status != OBD_OK)
            return status;
    }
    return OBD_OK;
}

/* ---- what libtcmu calls ---- */

/* A callback is given nothing but the device.  One process has one hub, since a
 * second would take the rings from the first, so it can be found here. */
static struct hub *the_hub;

/* libtcmu takes a config string to be ours when it begins like the subtype, even
 * when it ends there early ("over/..."). */
static bool is_ours(const struct hub *hub, const char *config)
{
    size_t length = strlen(hub->subtype);
    return strncmp(config, hub->subtype, length) == 0 && config[length] == '/';
}

static int on_added(struct tcmu_device *device)
{
    struct hub *hub = the_hub;
    struct obd_hub_device described = {.handle = device,
                                       .fd = hub->libtcmu.device_fd(device),
                                       .uio_name = hub->libtcmu.device_uio_name(device),
                                       .cfg_string = hub->libtcmu.device_config(device)};
    if (!is_ours(hub, described.cfg_string))
        return -ENOENT;
    return hub->params.added(hub->params.context, &described);
}

static void on_removed(struct tcmu_device *device)
{
    the_hub->params.removed(the_hub->params.context, device);
}

static int on_reconfig(struct tcmu_device *device, struct tcmulib_cfg_info *info)
{
    struct obd_hub_params *params = &the_hub->params;
    uint64_t value = 0;
    if (info->kind == OBD_HUB_SIZE)
        value = info->value.size;
    else if (info->kind == OBD_HUB_WRITE_CACHE)
        value = info->value.write_cache;
    const char *text = info->kind == OBD_HUB_CONFIG ? info->value.config : NULL;
    return params->reconfig(params->context, device, info->kind, value, text);
}

/* ---- life ---- */

static enum obd_status copy_params(struct hub *hub, const struct obd_hub_params *params)
{
    hub->params = *params;
    hub->subtype = strdup(params->subtype);
    hub->description = strdup(params->description);
    if (hub->subtype == NULL || hub->description == NULL)
        return status_set(OBD_E_NO_MEMORY, "hub: no memory");
    hub->handler = (struct tcmulib_handler){.name = hub->subtype,
                                            .subtype = hub->subtype,
                                            .description = hub->description,
                                            .reconfig = on_reconfig,
                                            .added = on_added,
                                            .removed = on_removed};
    return OBD_OK;
}

/* A full buffer is not worth an error: libtcmu could do nothing about it, and would
 * take it for the end of the socket. */
static void make_room_for_messages(int fd)
{
    int size = RECEIVE_BUFFER, on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) ||
        setsockopt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof on))
        log_write(OBD_LOG_WARNING, "hub: the kernel's messages have only a small buffer: %s", strerror(errno));
}

/* libtcmu keeps pointers into the hub from the moment it has been called. */
static enum obd_status announce(struct hub *hub)
{
    the_hub = hub;
    hub->context = hub->libtcmu.initialize(&hub->handler, 1);
    if (hub->context != NULL) {
        make_room_for_messages(hub->libtcmu.master_fd(hub->context));
        return OBD_OK;
    }
    the_hub = NULL;
    return status_set(OBD_E_UNSUPPORTED, "hub: libtcmu cannot reach the kernel: is the module target_core_user loaded, "
                                         "and are we root?");
}

static void free_hub(struct hub *hub)
{
    free(hub->subtype);
    free(hub->description);
    free(hub);
}

enum obd_status hub_open(const struct obd_hub_params *params, struct hub **out)
{
    if (the_hub != NULL)
        return status_set(OBD_E_BUSY, "hub: this process has one already");
    struct hub *hub = calloc(1, sizeof *hub);
    if (hub == NULL)
        return status_set(OBD_E_NO_MEMORY, "hub: no memory");
    enum obd_status status = copy_params(hub, params);
    if (status == OBD_OK)
        status = load_libtcmu(&hub->libtcmu);
    if (status == OBD_OK)
        status = announce(hub);
    if (status != OBD_OK)
        free_hub(hub);
    else
        *out = hub;
    return status;
}

int hub_fd(const struct hub *hub)
{
    return hub->libtcmu.master_fd(hub->context);
}

/* A message about another daemon's device is an error to libtcmu, which says no
 * more than that; it is none to us. */
void hub_ready(struct hub *hub)
{
    int error = hub->libtcmu.master_fd_ready(hub->context);
    if (error != 0)
        log_write(OBD_LOG_DEBUG, "hub: libtcmu: error %d in a message of the kernel", error);
}
