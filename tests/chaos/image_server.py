"""The daemon's part of the work without the kernel: many images, one cache, in one process.

    python -m tests.chaos.image_server FOLDER DOCKER_CONFIG LIMIT_BYTES

In FOLDER: ``cache``, and ``control``, a socket where a line of JSON is a request and a
line the answer: ``["open", NAME, REFERENCE]`` serves an image as NBD on FOLDER/NAME,
``["close", NAME]`` ends that, ``["stats"]`` tells of the cache.  It prints a line when it
listens, and ends at SIGTERM.
"""

from __future__ import annotations

import json
import signal
import socketserver
import sys
import threading
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from tcmu_overlaybd.daemon.logs import LogPump
from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.nbd.service import serve_image
from tcmu_overlaybd.registry.docker_config import DockerConfig
from tcmu_overlaybd.registry.transport import Transport
from tcmu_overlaybd.remote.settings import StoreSettings
from tcmu_overlaybd.remote.store import BlobStore

IO_TIMEOUT_MS = 30_000
# A registry that stalls is to be found out while a test is young.
TRANSPORT = Transport(proxy="", connect_timeout_s=2, stall_timeout_s=1)


class Images:
    """What is open, by name.  A request runs in the thread of its connection."""

    def __init__(self, folder: Path, store: BlobStore) -> None:
        self._folder = folder
        self._store = store
        self._open: dict[str, ExitStack] = {}
        self._lock = threading.Lock()

    def open(self, name: str, reference: str) -> None:
        with ExitStack() as undo:
            opened = open_image(reference, name=name, store=self._store)
            undo.enter_context(serve_image(opened, self._folder / name, io_timeout_ms=IO_TIMEOUT_MS))
            with self._lock:
                self._open[name] = undo.pop_all()

    def close(self, name: str) -> None:
        with self._lock:
            stack = self._open.pop(name)
        stack.close()

    def stats(self) -> dict[str, int] | None:
        stats = self._store.cache_stats()
        return None if stats is None else asdict(stats)

    def close_all(self) -> None:
        for name in list(self._open):
            self.close(name)


class _Request(socketserver.StreamRequestHandler):
    server: _Control

    def handle(self) -> None:
        operation, *arguments = json.loads(self.rfile.readline())
        try:
            answer = ["done", getattr(self.server.images, operation)(*arguments)]
        except OverlayBDError as error:
            answer = [type(error).__name__, str(error)]
        self.wfile.write(json.dumps(answer).encode() + b"\n")


class _Control(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, images: Images) -> None:
        path.unlink(missing_ok=True)
        self.images = images
        super().__init__(str(path), _Request)


def main() -> None:
    folder, docker_config, limit_bytes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    settings = StoreSettings(
        folder=folder / "cache",
        has_stand_in=False,
        limit_bytes=limit_bytes,
        free_floor_bytes=0,
        transport=TRANSPORT,
        credentials=DockerConfig(docker_config),
    )
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    with LogPump(), BlobStore(settings) as store:
        images = Images(folder, store)
        with _Control(folder / "control", images) as control:
            threading.Thread(target=control.serve_forever, daemon=True).start()
            print("ready", flush=True)
            signal.sigwait({signal.SIGTERM})
            control.shutdown()
        images.close_all()


if __name__ == "__main__":
    main()
