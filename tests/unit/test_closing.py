"""A disk under an upper whose sync hangs: what waits for it has a deadline, and others do not wait."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tcmu_overlaybd.config.download_config import DownloadConfig
from tcmu_overlaybd.config.service_config import DeviceConfig
from tcmu_overlaybd.daemon.closing import Closing
from tcmu_overlaybd.daemon.device import Device
from tcmu_overlaybd.daemon.devices import Devices
from tcmu_overlaybd.daemon.messages import CommitRequest
from tcmu_overlaybd.daemon.names import Names
from tcmu_overlaybd.daemon.resources import Resources
from tcmu_overlaybd.daemon.served_image import ServedImage
from tcmu_overlaybd.daemon.state import Record, State
from tcmu_overlaybd.daemon.table import DeviceTable
from tcmu_overlaybd.errors import BusyError, FailedError, TimeoutExpiredError
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.native import mem, testing
from tcmu_overlaybd.native.core import CommandKind, Core
from tcmu_overlaybd.remote.download import Downloads
from tcmu_overlaybd.remote.settings import StoreSettings
from tcmu_overlaybd.remote.store import BlobStore

SIZE = 1 << 20
LIMIT_S = 0.5
SLOW_S = 20.0  # far more than any of it takes on a busy machine


@pytest.fixture
def core():
    with Core.open() as core:
        yield core


class Stall:
    """Syncs of uppers in folders called ``hanging`` hang until ``end``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "hanging"
        self._marker = self.folder / "data.stall"

    def begin(self) -> None:
        self._marker.touch()
        testing.file_fault("hanging/data", "stall", 1, 5, sticky=True)

    def end(self) -> None:
        self._marker.unlink(missing_ok=True)
        testing.file_fault("", "", 0, 0)


@pytest.fixture
def stall(tmp_path):
    stall = Stall(tmp_path)
    yield stall
    stall.end()


def serve(core: Core, folder: Path, name: str) -> ServedImage:
    """A blank disk with one write that is not flushed, and will not be by the clock."""
    opened = open_image(None, writable=True, upper_dir=folder, size=SIZE, flush_interval_ms=0)
    served = ServedImage(opened, core, name, DeviceConfig())
    mem.write(served.device, b"x" * 4096, 0)
    return served


def wait_until_free(folder: Path) -> bytes:
    """The first block of the upper in folder, once nobody holds it any more."""
    deadline = time.monotonic() + SLOW_S
    while True:
        try:
            with open_image(folder / "config.v1.json", writable=True) as opened:
                return opened.image.read(4096, 0, 1000)
        except BusyError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def wait_until_closed(folder: Path) -> None:
    """Its journal is the last that goes."""
    deadline = time.monotonic() + SLOW_S
    while (folder / "index.journal").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_close_gives_up_waiting_for_a_hanging_sync_and_ends_by_itself(core, stall):
    served = serve(core, stall.folder, "web")
    stall.begin()
    begun = time.monotonic()
    with pytest.raises(TimeoutExpiredError, match=r"web: not closed within .* has not ended a sync"):
        served.close(LIMIT_S)
    assert time.monotonic() - begun < SLOW_S
    with pytest.raises(BusyError):  # nobody opens it meanwhile
        open_image(stall.folder / "config.v1.json", writable=True)
    stall.end()
    assert wait_until_free(stall.folder) == b"x" * 4096
    assert not (stall.folder / "index.journal").exists()


def test_close_says_when_it_is_a_flush_command_that_has_not_ended(core, stall):
    served = serve(core, stall.folder, "web")
    stall.begin()
    flush = mem.Pending(served.device, CommandKind.FLUSH, 0, 0, None)
    with pytest.raises(TimeoutExpiredError, match="1 commands are still in flight"):
        served.close(LIMIT_S)
    stall.end()
    assert flush.wait(int(SLOW_S * 1000))
    assert wait_until_free(stall.folder) == b"x" * 4096


def test_a_commit_that_hangs_in_its_flush_ends_before_its_image_is_closed(core, stall, tmp_path):
    served = serve(core, stall.folder, "web")
    stall.begin()

    def commit():
        with suppress(FailedError):  # it may hear of the close at its last step, or not any more
            served.commit(tmp_path / "layer", LayerOptions())

    thread = threading.Thread(target=commit)
    thread.start()
    time.sleep(0.1)
    with pytest.raises(TimeoutExpiredError):
        served.close(LIMIT_S)
    stall.end()
    thread.join(SLOW_S)
    assert not thread.is_alive()
    assert wait_until_free(stall.folder) == b"x" * 4096


@pytest.fixture
def resources(core, tmp_path):
    return Resources(
        table=DeviceTable([]),
        state=State(tmp_path / "state"),
        names=Names(tmp_path / "names", []),
        core=core,
        limits=DeviceConfig(),
        store=BlobStore(StoreSettings(folder=tmp_path / "cache")),
        downloads=Downloads(DownloadConfig()),
    )


def add(resources: Resources, name: str, served: ServedImage) -> Device:
    record = Record(name, name, config_path="/x", size=SIZE, serial=name, hba="user_1", phase="attached")
    device = Device(record, "ready", served=served)
    resources.table.add(device)
    return device


def test_stop_of_the_daemon_closes_the_others_and_ends_inside_its_deadline(
    core, resources, stall, tmp_path, monkeypatch
):
    monkeypatch.setattr("tcmu_overlaybd.daemon.devices.STOP_TIMEOUT_S", 1.0)
    add(resources, "hanging", serve(core, stall.folder, "hanging"))
    for number in range(3):
        add(resources, f"sound{number}", serve(core, tmp_path / f"sound{number}", f"sound{number}"))
    stall.begin()
    devices = Devices(resources, None, None)
    begun = time.monotonic()
    assert devices.stop() is False
    assert time.monotonic() - begun < SLOW_S
    for number in range(3):  # on a slow disk they, too, may end only after the deadline
        wait_until_closed(tmp_path / f"sound{number}")
    with pytest.raises(FailedError, match="not open"):
        devices.commit("sound0", CommitRequest(output=str(tmp_path / "layer")))
    assert devices.status("hanging").commands.write == 0  # told of without its image
    stall.end()
    assert wait_until_free(stall.folder) == b"x" * 4096


def test_what_the_close_raised_is_raised_by_the_wait():
    def fail():
        raise FailedError("no")

    with pytest.raises(FailedError, match="no"):
        Closing("web", fail).wait(SLOW_S, lambda: "")


def test_a_close_that_ends_badly_when_nobody_waits_any_more_is_logged(caplog):
    gate = threading.Event()

    def fail():
        gate.wait()
        raise FailedError("the disk is broken")

    closing = Closing("web", fail)
    with pytest.raises(TimeoutExpiredError, match="web: not closed within 0 s: it sleeps"):
        closing.wait(0.01, lambda: "it sleeps")
    gate.set()
    deadline = time.monotonic() + SLOW_S
    while "web: closed at last: the disk is broken" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.01)
