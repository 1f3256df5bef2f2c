/* api/process: what concerns the whole process.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "base/file_calls.h"
#include "base/hook.h"
#include "base/status.h"
#include "source/demand_wait.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57 /* Linux 5.6 */
#endif

/* The kernel may write to our disk in order to free memory.  A thread that serves
 * it must then neither wait for that very memory (IO_FLUSHER, inherited by the
 * threads that start later) nor have its own pages on the way out (mlockall; only
 * those touched, as the thread stacks alone are hundreds of MiB of address space). */
int obd_process_guard_memory(void)
{
    int flusher_error = prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0 ? errno : 0;
    int lock_error = mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0 ? errno : 0;
    if (flusher_error != 0) /* half of it is better than nothing, so the other was tried */
        return status_set_errno(flusher_error, "cannot become an I/O flusher");
    return lock_error == 0 ? OBD_OK : status_set_errno(lock_error, "cannot lock memory");
}

void obd_interrupt_waits(int wanted)
{
    demand_wait_interrupt(wanted != 0);
}

int obd_test_file_fault(const char *suffix, const char *operation, uint32_t n, int error, int sticky)
{
#ifdef OBD_TEST_BUILD
    return fault_file_add_rule(suffix, operation, n, error, sticky);
#else
    (void)suffix, (void)operation, (void)n, (void)error, (void)sticky;
    return status_set(OBD_E_UNSUPPORTED, "file faults are in the test build only");
#endif
}

int obd_test_record_files(const char *folder, const char *tape_path)
{
#ifdef OBD_TEST_BUILD
    if (folder[0] != '\0')
        return record_file_start(folder, tape_path);
    record_file_stop();
    return OBD_OK;
#else
    (void)folder, (void)tape_path;
    return status_set(OBD_E_UNSUPPORTED, "files are recorded in the test build only");
#endif
}

void obd_test_hook(const char *name)
{
    (void)name;
    HOOK(name);
}
