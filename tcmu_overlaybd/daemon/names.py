"""The names of attached disks by their serial numbers, for udev.

``/run/tcmu-overlaybd/names/<serial>`` holds the device's name, from before the disk
appears until it is gone; the rule in packaging/ makes ``/dev/overlaybd/NAME`` of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from tcmu_overlaybd.daemon.state import Record

logger = logging.getLogger(__name__)


def stale_names(folder: Path, records: Iterable[Record]) -> list[Path]:
    """Files there of devices that are none of records."""
    kept = {record.serial for record in records}
    return [path for path in sorted(folder.glob("*")) if path.name not in kept]


class Names:
    def __init__(self, folder: Path, records: list[Record]) -> None:
        """Starts with records: after a restart of the machine the folder is empty.  What
        a daemon that died had put there besides goes."""
        self.folder = folder
        for path in stale_names(folder, records):
            path.unlink(missing_ok=True)
        for record in records:
            if record.is_ours:
                self.put(record)

    def put(self, record: Record) -> None:
        """Never fails: a disk without the link is a disk all the same."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / record.serial).write_text(record.name)
        except OSError as error:
            logger.warning("%s: %s: no /dev/overlaybd/%s", self.folder, error.strerror, record.name)

    def drop(self, record: Record) -> None:
        (self.folder / record.serial).unlink(missing_ok=True)
