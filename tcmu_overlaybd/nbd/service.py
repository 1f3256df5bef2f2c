"""An image in service over NBD, from this process: core, device, server, in that order.

It ends in the reverse order and inside deadlines: connections are answered, then
the device is closed.  What was acknowledged is flushed at the latest when the image
is closed, by whoever opened it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tcmu_overlaybd.errors import TimeoutExpiredError
from tcmu_overlaybd.native.core import Core, Device
from tcmu_overlaybd.native.image import Image
from tcmu_overlaybd.nbd.handshake import Export
from tcmu_overlaybd.nbd.server import Server

GRACE_SECONDS = 2.0  # for what is in flight, before it is cancelled
STOP_SECONDS = 15.0


@contextmanager
def serve_image(image: Image, name: str, path: Path, *, io_timeout_ms: int) -> Iterator[Server]:
    """Serves image on the unix socket path while the context lasts.

    Raises BusyError when somebody listens there; at the end TimeoutExpiredError when
    a command hangs: then nothing is freed under it, and the process should end.
    """
    export = Export(image.size, description=name, is_read_only=image.is_read_only)
    with ExitStack() as stack:
        core = stack.enter_context(Core.open())
        device = stack.enter_context(Device.open(core, image, name=name, io_timeout_ms=io_timeout_ms))
        server = Server(path, device, export)
        try:
            yield server
        finally:
            try:
                end(server, device)
            except TimeoutExpiredError:
                stack.pop_all()
                raise


def end(server: Server, device: Device) -> None:
    """Answers what is in flight; what is still parked or queued after a while ends as cancelled."""
    server.begin_stop()
    if not server.wait_stopped(GRACE_SECONDS):
        device.fail_parked()
    server.finish_stop(STOP_SECONDS)
    device.close()
