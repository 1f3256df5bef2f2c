/* Hooks: a process dies where OBD_TEST_KILL_AT says, and nowhere else.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#include "base/hook.h"

/* How a child ends that passes "here" three times; the exit code is how often it
 * came through. */
static int run_child(const char *kill_at, int wait_flags)
{
    int state;
    pid_t child = fork(); /* the environment is read once, and not by the parent */
    CHECK(child >= 0);
    if (child == 0) {
        if (kill_at != NULL)
            setenv("OBD_TEST_KILL_AT", kill_at, 1);
        int nr_passed = 0;
        for (; nr_passed < 3; nr_passed++) {
            HOOK("elsewhere");
            HOOK("here");
        }
        _exit(nr_passed);
    }
    CHECK(waitpid(child, &state, wait_flags) == child);
    if (WIFSTOPPED(state)) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    return state;
}

TEST(without_the_variable_nothing_happens)
{
    int state = run_child(NULL, 0);
    CHECK(WIFEXITED(state) && WEXITSTATUS(state) == 3);
}

TEST(another_name_is_passed)
{
    int state = run_child("her", 0);
    CHECK(WIFEXITED(state) && WEXITSTATUS(state) == 3);
}

TEST(the_named_hook_kills)
{
    int state = run_child("here", 0);
    CHECK(WIFSIGNALED(state) && WTERMSIG(state) == SIGKILL);
}

TEST(the_nth_pass_kills_and_one_too_many_does_not)
{
    int state = run_child("here:3", 0);
    CHECK(WIFSIGNALED(state) && WTERMSIG(state) == SIGKILL);
    state = run_child("here:4", 0);
    CHECK(WIFEXITED(state) && WEXITSTATUS(state) == 3);
}

TEST(the_named_hook_can_stop_instead)
{
    int state = run_child("here:stop", WUNTRACED);
    CHECK(WIFSTOPPED(state) && WSTOPSIG(state) == SIGSTOP);
}

TEST_MAIN(T(without_the_variable_nothing_happens), T(another_name_is_passed), T(the_named_hook_kills),
          T(the_nth_pass_kills_and_one_too_many_does_not), T(the_named_hook_can_stop_instead))
