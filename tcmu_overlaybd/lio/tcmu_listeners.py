"""Which processes hear the kernel's messages about TCMU devices, and so may answer them.

Each is a socket in the multicast group of the family TCM-USER, and ``/proc/net/netlink`` shows
the groups of every socket: that finds a daemon by what it does, whatever it is called, with or
without devices of its own.  Its column has room for 32 groups; beyond that, and in another
network namespace, only a process that is called tcmu-runner is found.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.lio.genetlink import NETLINK_GENERIC, look_up_group
from tcmu_overlaybd.lio.kernel_text import read_kernel_text
from tcmu_overlaybd.lio.netlink_hub import FAMILY, GROUP

PROC = Path("/proc")
RUNNER = "tcmu-runner"
NR_GROUPS_SHOWN = 32
PID_MASK = (1 << 22) - 1  # a port is the process's id; libnl adds a counter above it


@dataclass(frozen=True, slots=True, order=True)
class Listener:
    pid: int
    program: str

    def __str__(self) -> str:
        return f"{self.program} (pid {self.pid})"


def other_listeners(ours: Iterable[int] = (), proc: Path = PROC) -> list[Listener]:
    """All but this process and ours."""
    known = {os.getpid(), *ours}
    pids = members_of_group(read_kernel_text(proc / "net/netlink"), tcmu_group()) | runners(proc)
    programs = {pid: read_kernel_text(proc / str(pid) / "comm").strip() for pid in pids - known}
    return sorted(Listener(pid, program or "a process") for pid, program in programs.items())


def tcmu_group() -> int:
    """0 when the kernel has no such family: the module is not loaded."""
    try:
        return look_up_group(FAMILY, GROUP)
    except OverlayBDError:
        return 0


def members_of_group(table: str, group: int) -> set[int]:
    """The process ids in table, which is /proc/net/netlink, of the sockets in group."""
    members = set()
    for line in table.splitlines()[1:]:
        _socket, protocol, port, groups, *_ = line.split()
        is_member = 0 < group <= NR_GROUPS_SHOWN and int(groups, 16) >> (group - 1) & 1
        if int(protocol) == NETLINK_GENERIC and is_member:
            members.add(int(port) & PID_MASK)
    return members


def runners(proc: Path = PROC) -> set[int]:
    return {
        int(entry.parent.name)
        for entry in proc.glob("[0-9]*/comm")
        if read_kernel_text(entry).strip() == RUNNER
    }
