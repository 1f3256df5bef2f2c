/* uml-xstate: lets User-Mode Linux run on processors with AMX; umlrun preloads it.
 *
 * UML moves a guest process's vector registers with ptrace(PTRACE_SETREGSET,
 * NT_X86_XSTATE), from a buffer of 2,696 bytes: all that x86 had when it was written.
 * A host kernel whose processor has AMX knows 11,008 bytes and refuses to set fewer
 * (EFAULT), so the guest's first process dies at once.  What lies above UML's buffer is
 * tile data, which no process may use that has not asked for it, and a guest's cannot
 * ask: so the missing end is always zeros, which means "in its initial state".
 *
 * A library and not a patched UML, because Debian's package is what everybody has.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define MAX_XSTATE 65536

typedef long ptrace_call(int request, pid_t pid, void *address, void *data);

static ptrace_call *real_ptrace;
static size_t host_size; /* of the whole state, as this host wants it; UML has one thread */

/* How much the host would have given to a buffer that is large enough. */
static void learn_host_size(pid_t pid)
{
    static char whole[MAX_XSTATE];
    struct iovec all = {.iov_base = whole, .iov_len = sizeof whole};
    if (real_ptrace(PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, &all) == 0)
        host_size = all.iov_len;
}

static long set_with_zero_end(pid_t pid, const struct iovec *given)
{
    static char whole[MAX_XSTATE];
    memcpy(whole, given->iov_base, given->iov_len);
    struct iovec all = {.iov_base = whole, .iov_len = host_size};
    return real_ptrace(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);
    if (!real_ptrace)
        real_ptrace = (ptrace_call *)dlsym(RTLD_NEXT, "ptrace");
    if (request != PTRACE_SETREGSET || (long)address != NT_X86_XSTATE)
        return real_ptrace((int)request, pid, address, data);
    if (!host_size)
        learn_host_size(pid);
    const struct iovec *given = data;
    if (given->iov_len >= host_size)
        return real_ptrace((int)request, pid, address, data);
    return set_with_zero_end(pid, given);
}
