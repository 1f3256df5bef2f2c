"""The names of attached disks by their serial numbers, for udev.

``/run/tcmu-overlaybd/names/<serial>`` holds the device's name, from before the disk
appears until it is gone; the rule in packaging/ makes ``/dev/overlaybd/NAME`` of it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from tcmu_overlaybd.daemon.state import Record

logger = logging.getLogger(__name__)


class Names:
    def __init__(self, folder: Path, records: list[Record]) -> None:
        """Starts with records: after a restart of the machine the folder is empty."""
        self._folder = folder
        for record in records:
            if record.is_ours:
                self.put(record)

    def put(self, record: Record) -> None:
        """Never fails: a disk without the link is a disk all the same."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / record.serial).write_text(record.name)
        except OSError as error:
            logger.warning("%s: %s: no /dev/overlaybd/%s", self._folder, error.strerror, record.name)

    def drop(self, record: Record) -> None:
        (self._folder / record.serial).unlink(missing_ok=True)
