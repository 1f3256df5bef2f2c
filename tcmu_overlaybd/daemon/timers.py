"""The timers around a command, which must end in this order: ours, the disk's, the kernel's queue.

Ours ends a command with an error that Linux does not try again (csrc/front/scsi_sense.h).  If
the disk's own timer were first, the kernel would abort and send again, and after a few
rounds take the disk offline for good; if the queue's were first, it would say TASK SET
FULL, which is sent again and stalls the disk.  With a policy of ``retry`` or ``freeze`` commands
may wait for as long as it takes, so all three are as long as the kernel lets them be.
"""

from __future__ import annotations

from tcmu_overlaybd.config.service_config import DeviceConfig

DEFAULT_IO_TIMEOUT_MS = 20_000
DISK_TIMEOUT_EXTRA_S = 40  # for a restart of the daemon

LONGEST_S = 2_147_483  # 24 days; in milliseconds it just fits into 31 bits
LONGEST_MS = LONGEST_S * 1000


def io_timeout_ms(limits: DeviceConfig) -> int:
    """Of a command while the image is open, with a policy of ``error``."""
    return limits.io_timeout_ms or DEFAULT_IO_TIMEOUT_MS


def open_timeout_ms(limits: DeviceConfig) -> int:
    """How long a command waits for an image that is still being opened."""
    return io_timeout_ms(limits) if limits.on_timeout == "error" else LONGEST_MS


def disk_timeout_s(limits: DeviceConfig) -> int:
    """Of the disk, and of the kernel's queue before the ring."""
    return io_timeout_ms(limits) // 1000 + DISK_TIMEOUT_EXTRA_S if limits.on_timeout == "error" else LONGEST_S
