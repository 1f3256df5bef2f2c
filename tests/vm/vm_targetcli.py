"""targetcli, and the system bus that it needs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from vm_daemon import run

from tcmu_overlaybd.lio.tcmu_service import NAME, ROOT

POLICY = Path(__file__).parents[2] / "packaging/org.kernel.TCMUService1.conf"


def start_bus() -> None:
    """dbus-daemon by hand, with the policy that we install; as systemd has it where that runs."""
    shutil.copy(POLICY, "/etc/dbus-1/system.d/tcmu-overlaybd.conf")
    Path("/run/dbus").mkdir(exist_ok=True)
    if not Path("/run/dbus/pid").exists():
        run("dbus-daemon", "--system", "--fork")


def is_served() -> bool:
    """Whether a handler answers on the bus."""
    command = ["dbus-send", "--system", "--print-reply", f"--dest={NAME}"]
    command += [f"{ROOT}/overlaybd", f"{NAME}.CheckConfig", "string:x"]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def targetcli(*words: object) -> subprocess.CompletedProcess[str]:
    """One command; 0.7 s each."""
    command = ["targetcli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
