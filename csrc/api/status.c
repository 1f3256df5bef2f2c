/* api/status: the names of the statuses, and what Python asks about itself.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/status.h"

#include "codec/crc32c.h"

static const char *const names[OBD_NR_STATUS] = {
    [OBD_OK] = "OBD_OK",
    [OBD_E_AGAIN] = "OBD_E_AGAIN",
    [OBD_E_MISS] = "OBD_E_MISS",
    [OBD_E_INVALID] = "OBD_E_INVALID",
    [OBD_E_RANGE] = "OBD_E_RANGE",
    [OBD_E_READ_ONLY] = "OBD_E_READ_ONLY",
    [OBD_E_NO_SPACE] = "OBD_E_NO_SPACE",
    [OBD_E_NO_MEMORY] = "OBD_E_NO_MEMORY",
    [OBD_E_LIMIT] = "OBD_E_LIMIT",
    [OBD_E_NOT_FOUND] = "OBD_E_NOT_FOUND",
    [OBD_E_IO] = "OBD_E_IO",
    [OBD_E_CORRUPT] = "OBD_E_CORRUPT",
    [OBD_E_UNSUPPORTED] = "OBD_E_UNSUPPORTED",
    [OBD_E_UNREACHABLE] = "OBD_E_UNREACHABLE",
    [OBD_E_TIMEOUT] = "OBD_E_TIMEOUT",
    [OBD_E_CANCELLED] = "OBD_E_CANCELLED",
    [OBD_E_BUSY] = "OBD_E_BUSY",
    [OBD_E_JOURNAL] = "OBD_E_JOURNAL",
    [OBD_E_MISCOMPARE] = "OBD_E_MISCOMPARE",
    [OBD_E_CLOSED] = "OBD_E_CLOSED",
};

const char *obd_error_text(void)
{
    return status_text();
}

const char *obd_status_name(int status)
{
    return status >= 0 && status < OBD_NR_STATUS ? names[status] : "?";
}

int obd_is_test_build(void)
{
#ifdef OBD_TEST_BUILD
    return 1;
#else
    return 0;
#endif
}

uint32_t obd_crc32c(const void *data, size_t length, uint32_t seed)
{
    return crc32c_raw(data, length, seed);
}
