"""tcmu-runner, Debian's daemon for other subtypes, with a system bus of its own, and disks of its."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from vm_daemon import CONFIGFS, wait_until

ROOT = Path(__file__).parents[2] / "build/tcmu-runner"  # packaging/fetch-tcmu-runner.sh
PROGRAM = ROOT / "usr/bin/tcmu-runner"
CONFIG = Path("/etc/tcmu/tcmu.conf")  # it insists on this very file
HANDLERS = ROOT / "usr/lib/x86_64-linux-gnu/tcmu-runner"

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""


class TcmuRunner:
    """A context manager: it runs inside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "runner"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._made_config = False

    def __enter__(self) -> TcmuRunner:
        if not CONFIG.exists():
            CONFIG.parent.mkdir(exist_ok=True)
            CONFIG.touch()
            self._made_config = True
        address = self._start_bus()
        self._log.mkdir()
        environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": address}
        command = [PROGRAM, "--handler-path", HANDLERS, "--tcmu-log-dir", self._log, "--debug"]
        self._start(command, environment)
        wait_until(self._is_listening)
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(30)
        if self._made_config:
            CONFIG.unlink()
            CONFIG.parent.rmdir()

    @property
    def pid(self) -> int:
        return self._processes[-1].pid

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self._log.iterdir())

    def _start_bus(self) -> str:
        path, config = self._folder / "bus", self._folder / "bus.conf"
        config.write_text(BUS.format(path=path))
        self._start(["dbus-daemon", f"--config-file={config}", "--nofork"], dict(os.environ))
        wait_until(path.exists)
        return f"unix:path={path}"

    def _start(self, command: list[object], environment: dict[str, str]) -> None:
        with (self._folder / "runner.out").open("ab") as out:
            self._processes.append(
                subprocess.Popen(list(map(str, command)), env=environment, stdout=out, stderr=out)
            )

    def _is_listening(self) -> bool:
        assert self._processes[-1].poll() is None, (self._folder / "runner.out").read_text()
        table = Path("/proc/net/netlink").read_text()
        ports = [
            int(line.split()[2]) & 0x3FFFFF for line in table.splitlines()[1:] if line.split()[1] == "16"
        ]
        return self.pid in ports


def put(path: Path, text: str) -> None:
    """Once: Path.write_text asks again when the kernel refuses."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


class ForeignDisk:
    """A disk through a loopback port, of any subtype, made as a person would by hand."""

    def __init__(self, name: str, config: str, size: int, control: str = "") -> None:
        self.backstore = CONFIGFS / "core/user_7" / name
        self.port = CONFIGFS / f"loopback/naa.5001405{abs(hash(name)) % 16**9:09x}"
        self._name = name
        self.backstore.mkdir(parents=True)
        put(self.backstore / "control", f"dev_config={config},dev_size={size}{control}")
        put(self.backstore / "enable", "1")

    def link(self) -> Path:
        """Returns the disk's path."""
        lun = self.port / "tpgt_1/lun/lun_0"
        (self.port / "tpgt_1").mkdir(parents=True)
        (self.port / "tpgt_1/nexus").write_text(
            f"{self.port.name[:-1]}{'0' if self.port.name[-1] != '0' else '1'}"
        )
        lun.mkdir()
        (lun / self._name).symlink_to(self.backstore)
        address = (self.port / "tpgt_1/address").read_text().strip()
        block = Path(f"/sys/class/scsi_device/{address}:0/device/block")
        wait_until(block.is_dir)
        disk = Path("/dev", next(block.iterdir()).name)
        wait_until(
            lambda: disk.exists() and (Path("/sys/block", disk.name, "size").read_text().strip() != "0")
        )
        return disk

    def remove(self) -> None:
        if self.port.is_dir():
            (self.port / "tpgt_1/lun/lun_0" / self._name).unlink()
            (self.port / "tpgt_1/lun/lun_0").rmdir()
            (self.port / "tpgt_1/nexus").write_text("NULL")
            (self.port / "tpgt_1").rmdir()
            self.port.rmdir()
        self.backstore.rmdir()
        with suppress(OSError):  # others are in it
            self.backstore.parent.rmdir()
