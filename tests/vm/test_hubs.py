"""The two hubs: what either does alone, and ours beside tcmu-runner."""

from __future__ import annotations

import errno
import json
import os
import select
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from vm_daemon import CONFIGFS, leftovers, run
from vm_images import MIB
from vm_runner import PROGRAM, ForeignDisk, TcmuRunner, put

from tcmu_overlaybd.errors import RefusedError
from tcmu_overlaybd.lio.genetlink import GenericNetlink
from tcmu_overlaybd.lio.netlink_hub import FAMILY, GROUP, RECEIVE_BUFFER, VERSION, NetlinkHub
from tcmu_overlaybd.native.hub import ConfigChange, SizeChange, WriteCacheChange

SET_FEATURES, A_KERNEL_WAITS = 7, 9  # <linux/target_core_user.h>


@pytest.fixture
def runner(tmp_path):
    if not PROGRAM.exists():
        pytest.skip("tcmu-runner is not to be had here (packaging/fetch-tcmu-runner.sh)")
    with TcmuRunner(tmp_path) as running:
        yield running


def hub_of(daemon):
    return daemon.client.version().hub


def write_and_read_back(disk, pattern):
    data = pattern * (MIB // len(pattern))
    fd = os.open(disk, os.O_RDWR)
    try:
        assert os.pwrite(fd, data, MIB) == len(data)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(fd, len(data), MIB) == data
    finally:
        os.close(fd)


def test_libtcmu_is_taken_when_we_are_alone(daemon):
    assert hub_of(daemon) == "libtcmu"


def test_the_netlink_hub_serves_disks_through_a_kill_and_a_restart(make_daemon, plain_layer, raw_disk):
    daemon = make_daemon(config={"hub": "netlink"})
    assert hub_of(daemon) == "netlink"
    read_only, writable = daemon.attach(plain_layer), daemon.attach(new=True, size=8 * MIB)
    write_and_read_back(writable.disk, b"before")
    daemon.kill()
    daemon.start()
    assert Path(read_only.disk).read_bytes() == raw_disk.read_bytes()
    write_and_read_back(writable.disk, b"after!")
    for device in (read_only, writable):
        daemon.detach(device.name)
    assert leftovers() == []
    assert " ERROR " not in daemon.log()


def test_tcmu_runner_and_our_daemon_both_make_disks(make_daemon, runner, tmp_path, plain_layer, raw_disk):
    daemon = make_daemon()
    assert hub_of(daemon) == "netlink", "chosen since tcmu-runner is there"
    theirs_file = tmp_path / "theirs.qcow"
    run("qemu-img", "create", "-q", "-f", "qcow", theirs_file, "16M")
    before = daemon.attach(plain_layer)
    theirs = ForeignDisk("theirs", f"qcow/{theirs_file}", 16 * MIB)
    try:
        after = daemon.attach(new=True, size=8 * MIB)
        disk = theirs.link()
        write_and_read_back(disk, b"theirs")
        write_and_read_back(after.disk, b"ours..")
        assert Path(before.disk).read_bytes() == raw_disk.read_bytes()
    finally:
        theirs.remove()
    for device in (before, after):
        daemon.detach(device.name)
    assert " ERROR " not in daemon.log()


def test_doctor_says_which_hub_to_use_beside_tcmu_runner(make_daemon, runner):
    daemon = make_daemon(config={"hub": "libtcmu"})
    facts = {fact["name"]: fact for fact in json.loads(daemon.cli("doctor", "--json").stdout)}
    assert not facts["other daemons"]["ok"]
    assert f"tcmu-runner (pid {runner.pid})" in facts["other daemons"]["detail"]
    assert facts["other daemons"]["remedy"] == "tcmu-overlaybd serve --hub netlink"


class Recorder:
    """A listener that takes everything."""

    def __init__(self):
        self.names = {}
        self.events = []

    def added(self, device):
        name = device.config.partition("/")[2]
        self.names[device.handle] = name
        self.events.append(("added", name))

    def removed(self, handle):
        self.events.append(("removed", self.names[handle]))

    def reconfig(self, handle, change):
        self.events.append((change, self.names[handle]))


def drain(hub):
    while select.select([hub], [], [], 0.5)[0]:
        hub.ready()


def test_devices_whose_messages_were_lost_are_found_in_sys(kernel):
    """The smallest buffer that the kernel gives holds two or three messages."""
    listener = Recorder()
    hub = NetlinkHub(listener, receive_buffer=1)
    names = [f"lost{i}" for i in range(20)]
    disks = [ForeignDisk(name, f"overlaybd/{name}", MIB, ",nl_reply_supported=-1") for name in names]
    drain(hub)
    assert sorted(listener.events) == sorted(("added", name) for name in names)
    listener.events.clear()
    for disk in disks:
        disk.remove()
    drain(hub)
    assert sorted(listener.events) == sorted(("removed", name) for name in names)


@pytest.fixture
def waiting_kernel():
    """The kernel waits for answers, as it does once a daemon with libtcmu has run."""
    netlink = GenericNetlink(FAMILY, GROUP, RECEIVE_BUFFER)
    netlink.send(SET_FEATURES, VERSION, {A_KERNEL_WAITS: b"\1"})
    yield
    netlink.send(SET_FEATURES, VERSION, {A_KERNEL_WAITS: b"\0"})


@contextmanager
def serving(listener):
    """A netlink hub in a thread."""
    hub, end = NetlinkHub(listener), threading.Event()

    def serve():
        while not end.is_set():
            if select.select([hub], [], [], 0.05)[0]:
                hub.ready()

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    end.set()
    thread.join()


class Refuser(Recorder):
    def added(self, device):
        super().added(device)
        if device.config.endswith("unwelcome"):
            raise RefusedError("no", errno.ENODEV)

    def reconfig(self, handle, change):
        super().reconfig(handle, change)
        if change == SizeChange(MIB):
            raise RefusedError("no", errno.EOPNOTSUPP)


def test_what_a_listener_says_reaches_who_waits_in_the_kernel(kernel, waiting_kernel):
    listener = Refuser()
    with serving(listener):
        with pytest.raises(OSError) as refused:
            ForeignDisk("unwelcome", "overlaybd/unwelcome", MIB)
        assert refused.value.errno == errno.ENODEV
        (CONFIGFS / "core/user_7/unwelcome").rmdir()
        disk = ForeignDisk("welcome", "overlaybd/welcome", 2 * MIB)
        attributes = disk.backstore / "attrib"
        with pytest.raises(OSError) as refused:
            put(attributes / "dev_size", str(MIB))
        assert refused.value.errno == errno.EOPNOTSUPP
        put(attributes / "dev_size", str(4 * MIB))
        put(attributes / "dev_config", "overlaybd/elsewhere")
        put(attributes / "emulate_write_cache", "1")
        disk.remove()
    assert listener.events == [
        ("added", "unwelcome"),
        ("added", "welcome"),
        (SizeChange(MIB), "welcome"),
        (SizeChange(4 * MIB), "welcome"),
        (ConfigChange("overlaybd/elsewhere"), "welcome"),
        (WriteCacheChange(True), "welcome"),
        ("removed", "welcome"),
    ]
