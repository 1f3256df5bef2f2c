"""systemd as process 1 of a PID namespace of the VM, with our units as they are installed.

The VM's own process 1 is a script, and its root a chroot, which systemd has to be told not to mind.
Commands for systemctl run inside the namespace: systemd does not listen to anybody else.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from vm_daemon import run, wait_until

TOP = Path(__file__).parents[2]
PROGRAM = Path("/usr/bin/tcmu-overlaybd")
UNITS = Path("/etc/systemd/system")
RULES = Path("/etc/udev/rules.d/60-tcmu-overlaybd.rules")
UNIT = "tcmu-overlaybd.service"
# What a container needs none of; each would cost the tests some of their time.
MASKED = ("systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "systemd-journal-flush.service")
TARGET = "[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n"


class Systemd:
    """A context manager: booted, and gone with all its services at its end."""

    def __enter__(self) -> Systemd:
        if not Path("/sys/fs/cgroup/cgroup.procs").exists():
            run("mount", "-t", "cgroup2", "none", "/sys/fs/cgroup")
        install()
        run("dmesg", "--clear")
        command = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child", "/lib/systemd/systemd"]
        self._outer = subprocess.Popen(
            [*command, "--unit=bare.target", "--log-target=kmsg", "--show-status=no"],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "SYSTEMD_IGNORE_CHROOT": "1", "container": "uml"},
        )
        wait_until(lambda: "Reached target bare.target" in self.log())
        self._pid = int(run("pgrep", "-x", "-P", self._outer.pid, "systemd"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._outer.kill()  # --kill-child: and so all in the namespace
        self._outer.wait(30)

    def log(self) -> str:
        """What it has said since it was booted, to the kernel's log."""
        return run("dmesg")

    def inside(self, *command: str) -> str:
        """A command that must succeed, with systemd as its process 1; what it printed."""
        enter = ("nsenter", "-t", str(self._pid), "-p", "-m", "-r", "-w", "env", "SYSTEMD_IGNORE_CHROOT=1")
        return run(*enter, *command)

    def property(self, name: str) -> str:
        """Of our service."""
        return self.inside("systemctl", "show", "--value", "-p", name, UNIT).strip()


def install() -> None:
    """Our units and rules as packaging/ has them, and a program where they look for it."""
    PROGRAM.write_text(f'#!/bin/sh\nexec {sys.executable} -m tcmu_overlaybd "$@"\n')
    PROGRAM.chmod(0o755)
    for unit in [*(TOP / "packaging").glob("*.service"), *(TOP / "packaging").glob("*.socket")]:
        (UNITS / unit.name).write_bytes(unit.read_bytes())
    RULES.parent.mkdir(parents=True, exist_ok=True)
    RULES.write_bytes((TOP / "packaging" / RULES.name).read_bytes())
    (UNITS / "bare.target").write_text(TARGET)
    for masked in MASKED:
        (UNITS / masked).unlink(missing_ok=True)
        (UNITS / masked).symlink_to("/dev/null")


def program(*arguments: str) -> str:
    """Our command as an administrator types it; what it printed on stdout."""
    return run(PROGRAM, *arguments).strip()
