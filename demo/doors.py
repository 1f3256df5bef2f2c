"""Where the demo can get a disk from, best first, each with the reason when it can't.

A door is a name and why it was taken or passed by: the machine's own kernel (root,
TCMU, and no daemon yet), User-Mode Linux (amd64, and a folder that lets it map executable
memory), and NBD, which needs neither.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from demo.processes import PROGRAM

VM_MEMORY = 1 << 30


@dataclass(frozen=True)
class Door:
    name: str  # "kernel", "uml" or "nbd"
    why: str


def why_not_own_kernel() -> str:
    """Empty when this kernel can be used as it is."""
    if os.geteuid() != 0:
        return "one is not root"
    if subprocess.run([*PROGRAM, "list"], capture_output=True, check=False).returncode == 0:
        return "its daemon runs already, with a cache and passwords that are not the demo's"
    if Path("/sys/module/target_core_user").exists():
        return ""
    probe = subprocess.run(["modprobe", "-n", "target_core_user"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else f"this kernel ({platform.release()}) has no target_core_user"


def executable_folder() -> Path | None:
    """A folder with room for the VM's memory from which memory can be mapped executable."""
    for name in ("/dev/shm", os.environ.get("TMPDIR", "/tmp"), "/tmp", "/var/tmp"):  # noqa: S108
        folder = Path(name)
        if not os.access(folder, os.W_OK):
            continue
        facts = os.statvfs(folder)
        if not facts.f_flag & os.ST_NOEXEC and facts.f_bavail * facts.f_frsize >= VM_MEMORY:
            return folder
    return None


def why_not_uml() -> str:
    if platform.machine() != "x86_64":
        return f"User-Mode Linux is packaged for amd64 only, this is {platform.machine()}"
    if shutil.which("linux.uml") is None:
        return "user-mode-linux is not installed"
    if executable_folder() is None:
        return "no folder with 1 GiB of room allows executable mappings"
    try_out = subprocess.run(
        ["vagrant/umlrun", "-t", "60", "-m", "256M", "--", "modprobe", "target_core_user"],
        capture_output=True,
        text=True,
        check=False,
    )
    if try_out.returncode != 0:
        return f"User-Mode Linux does not run here ({(try_out.stdout + try_out.stderr).strip()[-120:]})"
    return ""


def choose(wanted: str | None = None) -> Door:
    """The first door that opens, or the wanted one."""
    if wanted:
        return Door(wanted, "as asked for")
    own = why_not_own_kernel()
    if not own:
        return Door("kernel", "this kernel has TCMU and one is root")
    uml = why_not_uml()
    if not uml:
        return Door("uml", f"in a User-Mode Linux VM, because {own}")
    return Door("nbd", f"through NBD alone, because {own}, and {uml}")
