/* hanging_getaddrinfo: preloaded, makes the look-up of hangs.test take a minute, as a
 * name server that drops packets does.  Each one that begins is a line in the file
 * HANGING_LOOKUPS.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static void note(void)
{
    int file = open(getenv("HANGING_LOOKUPS"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (write(file, "\n", 1) != 1)
        abort();
    close(file);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    if (name != NULL && strcmp(name, "hangs.test") == 0) {
        note();
        sleep(60);
        return EAI_AGAIN;
    }
    return ((lookup *)dlsym(RTLD_NEXT, "getaddrinfo"))(name, service, hints, found);
}
