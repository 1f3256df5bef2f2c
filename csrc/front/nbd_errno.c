/* nbd_errno: the table at the NBD border.
 *
 * The protocol knows a handful of errno values; one that it does not list must
 * not be sent.  The front itself answers ENOSPC, not this table's EINVAL, to a
 * write past the end, as the protocol wants (nbd_reply.c).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "front/nbd.h"
#include "front/nbd_wire.h"

uint32_t nbd_errno(enum obd_status status)
{
    switch (status) {
    case OBD_OK:
        return 0;
    case OBD_E_INVALID:
    case OBD_E_RANGE:
        return NBD_EINVAL;
    case OBD_E_READ_ONLY:
        return NBD_EPERM;
    case OBD_E_NO_SPACE:
    case OBD_E_LIMIT: /* an upper that is full in another way */
        return NBD_ENOSPC;
    case OBD_E_NO_MEMORY:
        return NBD_ENOMEM;
    case OBD_E_UNSUPPORTED:
        return NBD_ENOTSUP;
    case OBD_E_CANCELLED:
    case OBD_E_CLOSED:
        return NBD_ESHUTDOWN;
    case OBD_E_AGAIN: /* these two never leave the core */
    case OBD_E_MISS:
    case OBD_E_NOT_FOUND:
    case OBD_E_IO:
    case OBD_E_CORRUPT:
    case OBD_E_UNREACHABLE:
    case OBD_E_TIMEOUT:
    case OBD_E_BUSY:
    case OBD_E_JOURNAL:
    case OBD_E_MISCOMPARE:
    case OBD_NR_STATUS:
        return NBD_EIO;
    }
    return NBD_EIO;
}
