/* check: the smallest test harness that says where and what.
 *
 * A test file defines functions with TEST(name) and ends in TEST_MAIN(a, b, c).
 * A failed CHECK ends the program: with sanitizers on, the first fault is the one
 * to look at.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

#define TEST(name) static void name(void)

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: failed: %s\n  last error: %s\n", __FILE__, __LINE__, #condition, status_text());   \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define CHECK_OK(call) CHECK((call) == OBD_OK)

/* The call fails with status, and its sentence has part in it. */
#define CHECK_FAILS(call, expected, part)                                                                              \
    do {                                                                                                               \
        CHECK((call) == (expected));                                                                                   \
        CHECK(strstr(status_text(), (part)) != NULL);                                                                  \
    } while (0)

struct check_test {
    const char *name;
    void (*run)(void);
};

#define TEST_MAIN(...)                                                                                                 \
    int main(void)                                                                                                     \
    {                                                                                                                  \
        struct check_test tests[] = {__VA_ARGS__};                                                                     \
        size_t nr = sizeof tests / sizeof tests[0];                                                                    \
        for (size_t i = 0; i < nr; i++) {                                                                              \
            printf("  %s\n", tests[i].name);                                                                           \
            fflush(stdout);                                                                                            \
            tests[i].run();                                                                                            \
        }                                                                                                              \
        printf("%zu passed, 0 failed\n", nr);                                                                          \
        return 0;                                                                                                      \
    }

#define T(name)                                                                                                        \
    {                                                                                                                  \
#name, name                                                                                                    \
    }

#endif
