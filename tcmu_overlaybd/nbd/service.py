"""An image in service over NBD, from this process: core, device, server, in that order.

It ends in the reverse order and inside deadlines: connections are answered, what is
still parked is cancelled, the device is closed, and with the image what was
acknowledged is flushed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tcmu_overlaybd.image.open import OpenImage
from tcmu_overlaybd.native.core import Core, Device, OnTimeout
from tcmu_overlaybd.nbd.handshake import Export
from tcmu_overlaybd.nbd.server import Server

GRACE_SECONDS = 2.0  # for what is in flight, before it is cancelled
STOP_SECONDS = 15.0


@contextmanager
def serve_image(
    opened: OpenImage, path: Path, *, io_timeout_ms: int, on_timeout: OnTimeout = OnTimeout.ERROR
) -> Iterator[Server]:
    """Serves opened, which it takes, on the unix socket path while the context lasts.

    When that cannot begin (BusyError: somebody listens there), the image is closed and
    an upper that was made for it is gone again.  At the end it raises what the last
    flush said, or TimeoutExpiredError when a command hangs.
    """
    try:
        service = Service(opened, path, io_timeout_ms, on_timeout)
    except BaseException:
        opened.undo()
        raise
    try:
        yield service.server
    finally:
        try:
            service.end()
        finally:
            opened.close()


class Service:
    """What serves one image.  An end that failed leaves threads behind: the process should end."""

    def __init__(self, opened: OpenImage, path: Path, io_timeout_ms: int, on_timeout: OnTimeout) -> None:
        image = opened.image
        export = Export(image.size, description=opened.name, is_read_only=image.is_read_only)
        with ExitStack() as undo:
            self.core = undo.enter_context(Core.open())
            self.device = undo.enter_context(
                Device.open(
                    self.core, image, name=opened.name, io_timeout_ms=io_timeout_ms, on_timeout=on_timeout
                )
            )
            self.server = Server(path, self.device, export)
            undo.pop_all()

    def end(self) -> None:
        """Answers what is in flight; what still waits after a while ends as cancelled."""
        self.server.begin_stop()
        if not self.server.wait_stopped(GRACE_SECONDS):
            self.device.fail_parked()
        self.server.finish_stop(STOP_SECONDS)
        self.device.close()
        self.core.close()
