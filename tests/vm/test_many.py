"""Many devices at once, and one whose data never arrives among them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from vm_daemon import leftovers, wait_until
from vm_images import MIB
from vm_soak import usual_or_soak

from tcmu_overlaybd.errors import OverlayBDError

NR = 20
ROUNDS = usual_or_soak(1, 15)


@pytest.fixture
def daemon(make_daemon):
    return make_daemon(TCMU_OVERLAYBD_TEST_SLOW="*/dead.layer=65536:never")


class Attach(threading.Thread):
    """An attach that goes on beside the test."""

    def __init__(self, daemon, *source, **options):
        super().__init__()
        self._call = lambda: daemon.attach(*source, **options)
        self.error = None
        self.start()

    def run(self):
        try:
            self._call()
        except OverlayBDError as error:
            self.error = error


def wait_for_parked(daemon, name):
    """The kernel has read from the disk, and waits."""
    wait_until(lambda: any(d.name == name and d.parked for d in daemon.client.devices()))


def attach_twenty(daemon, layer, stem):
    """Attaches all at once; (devices, seconds)."""
    begun = time.monotonic()
    with ThreadPoolExecutor(NR) as pool:
        devices = list(pool.map(lambda i: daemon.attach(layer, name=f"{stem}{i}"), range(NR)))
    return devices, time.monotonic() - begun


@pytest.mark.timeout(300 * ROUNDS)
def test_twenty_devices_at_once_read_as_their_images(daemon, plain_layer, raw_disk):
    for _ in range(ROUNDS):
        devices, _ = attach_twenty(daemon, plain_layer, "d")
        with ThreadPoolExecutor(NR) as pool:
            assert len({device.disk for device in devices}) == NR
            contents = pool.map(lambda device: Path(device.disk).read_bytes(), devices)
            assert set(contents) == {raw_disk.read_bytes()}
            list(pool.map(lambda device: daemon.detach(device.name), devices))
        assert leftovers() == []


def test_default_names_do_not_collide(daemon):
    with ThreadPoolExecutor(8) as pool:
        devices = list(pool.map(lambda _: daemon.attach(new=True, size=MIB), range(8)))
    assert sorted(device.name for device in devices) == [f"disk{i}" for i in range(8)]


def test_dead_image_delays_none_of_twenty_others_and_goes_by_force(daemon, dead_layer, plain_layer):
    """Two seconds, or on a machine that is slow today, as long as without the dead one."""
    _, without = attach_twenty(daemon, plain_layer, "before")
    dead = Attach(daemon, dead_layer, name="dead", timeout=300)
    devices, took = attach_twenty(daemon, plain_layer, "d")
    assert [device.state for device in devices] == ["ready"] * NR
    assert took < max(2, 3 * without), f"20 attaches took {took:.2f} s, without the dead one {without:.2f} s"
    wait_for_parked(daemon, "dead")
    assert dead.is_alive()
    begun = time.monotonic()
    daemon.detach("dead", force=True, timeout=20)
    assert time.monotonic() - begun < 20
    dead.join(30)
    assert "dead" not in {device.name for device in daemon.client.devices()}
    assert dead.error is not None
    for device in devices:
        assert len(Path(device.disk).read_bytes()) == 16 * MIB


def test_attach_of_a_dead_image_ends_at_its_time_out_and_leaves_nothing(daemon, dead_layer):
    result = daemon.cli("attach", dead_layer, "--name", "dead", "--timeout", "2")
    assert result.returncode == 4
    assert daemon.client.devices() == ()
    assert leftovers() == []


def test_stop_with_a_dead_attach_takes_it_back(daemon, dead_layer):
    dead = Attach(daemon, dead_layer, name="dead", timeout=300)
    wait_for_parked(daemon, "dead")
    assert daemon.stop() < 25
    dead.join(30)
    assert leftovers() == []


def test_stop_leaves_parked_commands_to_the_next_daemon(daemon, dead_layer):
    """The image's data does not come in this daemon's time; in the next one's it does."""
    daemon.stop()
    daemon.environment["TCMU_OVERLAYBD_TEST_SLOW"] = ""
    daemon.start()
    device = daemon.attach(dead_layer, name="late")
    daemon.stop()
    daemon.environment["TCMU_OVERLAYBD_TEST_SLOW"] = "*/dead.layer=65536:never"
    daemon.start()
    with ThreadPoolExecutor(1) as pool:
        content = pool.submit(Path(device.disk).read_bytes)
        try:
            wait_for_parked(daemon, "late")
            took = daemon.stop()
            assert not content.done()
        finally:  # else the pool would wait for a read that never ends
            daemon.environment["TCMU_OVERLAYBD_TEST_SLOW"] = ""
            daemon.start()
        assert content.result(60) == dead_layer.with_name("dead.raw").read_bytes()
    assert took < 8, "less than the deadline of what cannot be closed"


def test_layer_that_many_images_use_is_open_once(daemon, plain_layer):
    for i in range(4):
        daemon.attach(plain_layer, name=f"d{i}")
    files = [
        link.readlink() for link in Path(f"/proc/{daemon.process.pid}/fd").iterdir() if link.is_symlink()
    ]
    assert files.count(plain_layer) == 1
