"""``download``: whole blobs come in the background (spec/config.md section 1, spec/cache.md section 5).

The service's configuration has it for all images; an image's own replaces it wholesale,
as in the reference.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

MIB = 1 << 20
DEFAULT_DELAY_EXTRA = 30


class DownloadConfig(msgspec.Struct, frozen=True, rename="camel"):
    enable: bool = False
    delay: Annotated[int, msgspec.Meta(ge=0)] = 300  # seconds from the attach
    delay_extra: int = DEFAULT_DELAY_EXTRA  # of these, a random part is added
    max_mbps: int = msgspec.field(default=100, name="maxMBps")  # MiB a second; 0 and less: no limit
    try_cnt: int = 5
    block_size: Annotated[int, msgspec.Meta(ge=4096, le=16 * MIB)] = 262144  # asked for at once, at least

    @property
    def bytes_per_s(self) -> int | None:
        """None: no limit."""
        return self.max_mbps * MIB if self.max_mbps > 0 else None

    @property
    def tries(self) -> int:
        return max(self.try_cnt, 1)

    def delay_s(self, random: float) -> float:
        """How long an image waits; random in [0, 1) says how much of the extra, so that the
        machines of a cluster do not all begin at once.
        """
        extra = self.delay_extra if self.delay_extra > 0 else DEFAULT_DELAY_EXTRA
        return self.delay + random * extra
