/* hook: named steps at which a test may kill the process.
 *
 * HOOK("upper.data_written") is nothing in a release build.  In the test build
 * (-DOBD_TEST_BUILD) the process kills itself with SIGKILL when the environment
 * variable OBD_TEST_KILL_AT is that name, or "name:n" and this is the n-th time
 * (from 1) that a thread passes it; "name:stop" raises SIGSTOP instead, and
 * "name:parent" kills the process that started this one as well.  Python passes hooks
 * by native/testing.py, the helper program one at each of its steps (helper/step.c).
 * tests/kill_points.py is the table of all names, with the test that walks each.
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
