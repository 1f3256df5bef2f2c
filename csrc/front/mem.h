/* mem: commands from memory, for tests, benchmarks and Python.
 *
 * The thinnest front: it shows what the core does and costs by itself.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_FRONT_MEM_H
#define OBD_FRONT_MEM_H

#include "base/status.h"

struct device;
struct mem_command;

/* The command runs on a worker, beside the caller; the buffer is borrowed until it
 * has been waited for. */
enum obd_status mem_submit(struct device *device, const struct obd_mem_params *params, struct mem_command **out);

/* The command's status, with its sentence; it is freed, and *command is NULL.
 * OBD_E_TIMEOUT with *command left as it was: it goes on. */
enum obd_status mem_wait(struct mem_command **command, uint64_t deadline_ns);

/* Submits, on this thread when it can, and waits as long as the device's own time
 * limit allows. */
enum obd_status mem_run(struct device *device, const struct obd_mem_params *params);

/* nr reads of length bytes at offsets, shared among nr_threads threads; elapsed_ns
 * from the moment at which all are ready to the end of the last. */
enum obd_status mem_read_loop(struct device *device, const uint64_t *offsets, size_t nr, uint32_t length,
                              unsigned nr_threads, uint64_t *elapsed_ns);

#endif
