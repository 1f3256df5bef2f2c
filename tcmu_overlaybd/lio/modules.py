"""What must be there in the kernel before a device can be made, and how to get it."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tcmu_overlaybd.errors import UnavailableError
from tcmu_overlaybd.lio.kernel_text import read_kernel_text
from tcmu_overlaybd.native.testing import hook

CONFIGFS = Path("/sys/kernel/config")
TARGET = CONFIGFS / "target"
MODULES = ("target_core_mod", "target_core_user", "tcm_loop", "sd_mod")
MODPROBE_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is needed: what was seen, and the command that mends it ("" when all is well)."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def is_loaded(module: str, sys: Path = Path("/sys")) -> bool:
    """Loaded, or built into the kernel in a way that shows."""
    return (sys / "module" / module).is_dir()


def make_ready() -> None:
    """Loads the modules, mounts configfs.

    Raises UnavailableError with the command that mends it.
    """
    for module in MODULES:
        if not is_loaded(module):
            _modprobe(module)
    if not TARGET.is_dir():
        _mount_configfs()
    if not TARGET.is_dir():
        raise UnavailableError(f"{TARGET} is missing although target_core_mod is loaded")
    # The kernel keeps its target database's folder here, and complains when it cannot.
    Path("/etc/target").mkdir(exist_ok=True)


@contextmanager
def netlink_held() -> Iterator[None]:
    """Ends requests of the kernel that wait for an answer of a daemon that is gone, and refuses new
    ones (EAGAIN) until the hub that is opened inside can hear them.

    Without the first an ``enable`` that hung with the last daemon hangs for ever, and all later
    ones behind it; without the second one that comes before the hub listens would.  Both hit
    the devices of every daemon: only where ours is the only one.
    """
    _set_parameter("block_netlink", 1)
    hook("start.netlink_blocked")
    _set_parameter("reset_netlink", 1)
    hook("start.netlink_reset")
    try:
        yield
    finally:
        _set_parameter("block_netlink", 0)
        hook("start.netlink_open")


def is_netlink_blocked() -> bool:
    """A start that died in the midst left it so; then every ``enable`` of a TCMU device fails."""
    path = Path("/sys/module/target_core_user/parameters/block_netlink")
    return read_kernel_text(path).strip() in ("1", "Y")


def open_netlink() -> None:
    _set_parameter("block_netlink", 0)


def _set_parameter(name: str, value: int) -> None:
    """Older kernels have no such parameters, nor the queue."""
    path = Path("/sys/module/target_core_user/parameters", name)
    if path.exists():
        path.write_text(str(value))


def _modprobe(module: str) -> None:
    program = shutil.which("modprobe", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise UnavailableError(
            f"kernel module {module} is not loaded and there is no modprobe: apt-get install kmod"
        )
    try:
        result = subprocess.run(
            [program, module], capture_output=True, text=True, timeout=MODPROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"modprobe {module}: no end after {MODPROBE_TIMEOUT_S} s") from None
    if result.returncode != 0 and not is_loaded(module):
        reason = (result.stderr.strip().splitlines() or ["it failed"])[-1]
        raise UnavailableError(
            f"kernel module {module} is not there: {reason}; a kernel with it is needed for disks "
            f"(the nbd command needs none)"
        )


def _mount_configfs() -> None:
    mount = shutil.which("mount") or "/bin/mount"
    subprocess.run([mount, "-t", "configfs", "none", str(CONFIGFS)], capture_output=True, check=False)


def facts() -> list[Fact]:
    """What doctor shows of the kernel and of libtcmu; looks only, changes and loads nothing."""
    return [
        _root_fact(),
        *(_module_fact(module) for module in ("target_core_user", "tcm_loop")),
        _configfs_fact(),
        _library_fact(),
    ]


def _root_fact() -> Fact:
    if os.geteuid() == 0:
        return Fact("root", True, "running as root")
    return Fact(
        "root", False, f"running as user {os.geteuid()}; disks need root", "sudo tcmu-overlaybd serve"
    )


def _module_fact(module: str) -> Fact:
    name = f"module {module}"
    if is_loaded(module):
        return Fact(name, True, "loaded")
    release = os.uname().release
    files = list(Path("/lib/modules", release).rglob(f"{module}.ko*"))
    if files:
        return Fact(name, False, f"not loaded, but there: {files[0]}", f"modprobe {module}")
    return Fact(name, False, f"not in /lib/modules/{release}", f"boot a kernel that has {module}, or use nbd")


def _configfs_fact() -> Fact:
    if TARGET.is_dir():
        return Fact("configfs", True, str(TARGET))
    if is_loaded("target_core_mod"):
        return Fact("configfs", False, f"{CONFIGFS} is not mounted", f"mount -t configfs none {CONFIGFS}")
    return Fact("configfs", False, f"{TARGET} is not there", "modprobe target_core_mod")


def _library_fact() -> Fact:
    """Only looked for: to initialise it would reset the rings of a living daemon."""
    found = ctypes.util.find_library("tcmu")
    return Fact("libtcmu", True, found or "not installed: the daemon takes the netlink hub")
