"""What keeps the daemon from starting, and what one that died left behind: for ``doctor``.

Nothing here takes the daemon's lock, but for the repair without a daemon: a look that
took it would make a start that comes at that moment fail.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from tcmu_overlaybd.daemon.client import Client
from tcmu_overlaybd.daemon.control import is_listening
from tcmu_overlaybd.daemon.folders import Folders
from tcmu_overlaybd.daemon.leftovers import Leftover, Places, leftovers_without_daemon
from tcmu_overlaybd.daemon.lock import take_lock
from tcmu_overlaybd.daemon.messages import Leftovers
from tcmu_overlaybd.daemon.start_failure import last_failure
from tcmu_overlaybd.daemon.state import check_version
from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.lio.modules import Fact, is_netlink_blocked, open_netlink

ANSWER_S = 5.0
REPAIR = "tcmu-overlaybd doctor --repair"


def start_facts(client: Client, folders: Folders) -> list[Fact]:
    """Without a daemon, each thing that would make a start of it fail; with one, nothing."""
    if answers(client):
        return []
    return [
        lock_fact(folders.lock),
        state_fact(folders.state),
        socket_fact(client.path),
        failure_fact(folders.run),
    ]


def answers(client: Client) -> bool:
    try:
        client.version(ANSWER_S)
    except OverlayBDError:
        return False
    return True


def lock_fact(path: Path) -> Fact:
    holder = lock_holder(path)
    if not holder:
        return Fact("lock", True, f"{path}: free")
    return Fact("lock", False, f"{path}: held by pid {holder}, which does not answer", f"kill -9 {holder}")


def lock_holder(path: Path, locks: Path = Path("/proc/locks")) -> int:
    """The pid that has path's flock, as the kernel says (proc_locks(5)); 0 when nobody has."""
    try:
        status = path.stat()
        lines = locks.read_text().splitlines()
    except OSError:
        return 0
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in lines:
        match line.split():
            case [_, "FLOCK", _, "WRITE", pid, file, *_] if file == wanted:
                return int(pid)
    return 0


def state_fact(folder: Path) -> Fact:
    reason = check_version(folder)
    if reason:
        return Fact("state folder", False, reason, "install the version that wrote it again")
    return Fact("state folder", True, str(folder))


def socket_fact(path: Path) -> Fact:
    if path.exists() and not path.is_socket():
        return Fact("control socket", False, f"{path}: is no socket", f"rm {path}")
    if is_listening(path):
        return Fact("control socket", False, f"{path}: another program listens there", f"fuser {path}")
    return Fact("control socket", True, f"{path}: free")


def failure_fact(run: Path) -> Fact:
    failure = last_failure(run)
    if failure is None:
        return Fact("last start", True, "no start has failed")
    when = time.strftime("%F %T", time.localtime(failure.time))
    return Fact("last start", False, f"failed at {when}: {failure.reason}")


# -- leftovers


def leftovers_fact(client: Client, folders: Folders, *, repair: bool) -> Fact:
    try:
        found = with_daemon(client, repair) if answers(client) else without_daemon(folders, repair)
    except OverlayBDError as error:
        return Fact("leftovers", False, str(error))
    removed = f"removed: {'; '.join(found.removed)}" if found.removed else ""
    if not found.left:
        return Fact("leftovers", True, removed or "nothing is left of a daemon that died")
    detail = "; ".join([*found.left, *filter(None, [removed])])
    return Fact("leftovers", False, detail, "" if repair else REPAIR)


def with_daemon(client: Client, repair: bool) -> Leftovers:
    return client.repair() if repair else client.leftovers()


def without_daemon(folders: Folders, repair: bool) -> Leftovers:
    """Raises BusyError when a daemon has just started."""
    places = Places(folders.state, folders.run / "names")
    if not repair:
        return Leftovers(tuple(leftover.what for leftover in find_all(places)))
    with take_lock(folders.lock):
        found = find_all(places)
        left = tuple(leftover.what for leftover in found if not is_removed(leftover))
    return Leftovers(left, tuple(leftover.what for leftover in found if leftover.what not in left))


def find_all(places: Places) -> list[Leftover]:
    blocked = Leftover("the kernel's netlink of TCMU is blocked by a start that died", open_netlink)
    return [*([blocked] if is_netlink_blocked() else []), *leftovers_without_daemon(places)]


def is_removed(leftover: Leftover) -> bool:
    remove: Callable[[], None] = leftover.remove
    try:
        remove()
    except (OverlayBDError, OSError):
        return False
    return True
