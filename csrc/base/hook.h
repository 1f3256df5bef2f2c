/* hook: named steps at which a test may kill the process.
 *
 * HOOK("upper.data_written") is nothing in a release build.  In the test build
 * (-DOBD_TEST_BUILD) the process kills itself with SIGKILL when the environment
 * variable OBD_TEST_KILL_AT is that name, or "name:n" and this is the n-th time
 * (from 1) that a thread passes it; "name:stop" raises SIGSTOP instead.
 * tests/nbd/test_nbd_kill.py collects the names from the sources and walks them all.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_BASE_HOOK_H
#define OBD_BASE_HOOK_H

#ifdef OBD_TEST_BUILD
void hook_reached(const char *name);
#define HOOK(name) hook_reached(name)
#else
#define HOOK(name) ((void)0)
#endif

#endif
