"""200 devices made at once by 20 processes, and what so many cost when nobody uses them.

Each hub has a file, and so a VM, of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vm_daemon import leftovers
from vm_images import MIB

NR_PROCESSES = 20
NR_EACH = 10  # the first of them writable
NR = NR_PROCESSES * NR_EACH
IDLE_S = 4.0
TIMEOUT_S = 600


def attach_some(daemon, layer, process, failures):
    """One of the processes."""
    try:
        daemon.attach(new=True, size=8 * MIB, name=f"d{process}-0", timeout=TIMEOUT_S)
        for i in range(1, NR_EACH):
            daemon.attach(layer, name=f"d{process}-{i}", timeout=TIMEOUT_S)
    except Exception as error:
        failures.put(f"process {process}: {error!r}")


def storm(daemon, layer):
    """Seconds until all are there."""
    context = multiprocessing.get_context("fork")
    failures = context.Queue()
    processes = [
        context.Process(target=attach_some, args=(daemon, layer, i, failures)) for i in range(NR_PROCESSES)
    ]
    begun = time.monotonic()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert failures.empty(), failures.get()
    return time.monotonic() - begun


class Use:
    """What the daemon and the kernel hold at one moment."""

    def __init__(self, daemon):
        folder = Path(f"/proc/{daemon.process.pid}")
        status = dict(re.findall(r"^(\w+):\s+(\d+)", (folder / "status").read_text(), re.MULTILINE))
        memory = dict(re.findall(r"^(\w+):\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE))
        self.threads = int(status["Threads"])
        self.private_kib = int(status["RssAnon"])
        self.available_kib = int(memory["MemAvailable"])
        self.descriptors = len(list((folder / "fd").iterdir()))
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        self.cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        self.switches = sum(
            int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", path.read_text(), re.MULTILINE)[1])
            for path in (folder / "task").glob("*/status")
        )


def lost_messages(pid):
    """The kernel's count of messages for which the sockets of a process had no room."""
    rows = [line.split() for line in Path("/proc/net/netlink").read_text().splitlines()[1:]]
    return [int(row[8]) for row in rows if int(row[1]) == 16 and int(row[2]) & 0x3FFFFF == pid]


def detach_all(daemon):
    """By force, which does not look around for users of each disk."""
    begun = time.monotonic()
    with ThreadPoolExecutor(NR_PROCESSES) as pool:
        list(
            pool.map(lambda d: daemon.detach(d.name, timeout=TIMEOUT_S, force=True), daemon.client.devices())
        )
    return time.monotonic() - begun


def check_storm(daemon, layer, capsys):
    """They come, none is lost, and none costs anything when idle; prints what was measured."""
    hub = daemon.client.version().hub
    before = Use(daemon)
    took = storm(daemon, layer)
    devices = daemon.client.devices()
    assert [device.state for device in devices] == ["ready"] * NR
    assert len({device.disk for device in devices}) == NR
    assert set(lost_messages(daemon.process.pid)) == {0}
    after = Use(daemon)
    time.sleep(IDLE_S)
    idle = Use(daemon)
    went = detach_all(daemon)
    assert leftovers() == []
    with capsys.disabled():
        print(
            f"\nhub {hub}: {NR} devices from {NR_PROCESSES} processes in {took:.1f} s, gone in {went:.1f} s;"
            f" each {(after.private_kib - before.private_kib) / NR:.0f} KiB of the daemon,"
            f" {(before.available_kib - after.available_kib) / NR:.0f} KiB of the machine,"
            f" {(after.descriptors - before.descriptors) / NR:.1f} descriptors;"
            f" threads {before.threads} -> {after.threads} ({NR_PROCESSES} are writable);"
            f" idle for {IDLE_S:.0f} s: {idle.cpu_s - after.cpu_s:.2f} s of CPU,"
            f" {idle.switches - after.switches} wake-ups"
        )
    assert after.threads - before.threads <= NR_PROCESSES + 40, "a thread per device"
    assert idle.switches - after.switches < NR, "something wakes for each device"
