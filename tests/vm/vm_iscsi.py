"""open-iscsi, the initiator of this machine: iscsid by hand, sessions by iscsiadm."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType

from vm_daemon import run, wait_until

NAME = "iqn.1993-08.org.debian:01:vm"


class Initiator:
    """A context manager: logged out of everything at its end."""

    def __enter__(self) -> Initiator:
        run("modprobe", "iscsi_tcp")
        run("ip", "link", "set", "lo", "up")
        for folder in ("/run/lock/iscsi", "/etc/iscsi"):
            Path(folder).mkdir(parents=True, exist_ok=True)
        Path("/etc/iscsi/initiatorname.iscsi").write_text(f"InitiatorName={NAME}\n")
        # It ends with a signal to its whole process group.
        self._iscsid = subprocess.Popen(
            ["iscsid", "-f"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: _iscsiadm("-m", "session").returncode in (0, 21))  # 21: it answers, none there
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _iscsiadm("-m", "node", "-u")
        _iscsiadm("-m", "node", "-o", "delete")
        self._iscsid.terminate()
        self._iscsid.wait(30)

    def discover(self, portal: str) -> str:
        return run("iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", portal)

    def log_in(self, iqn: str, chap: str = "", portal: str = "127.0.0.1:3260") -> str:
        """The disk's /dev/sdX.  chap: USER:PASSWORD.  Raises LoginError."""
        run("iscsiadm", "-m", "node", "-o", "new", "-T", iqn, "-p", portal)
        user, _, password = chap.partition(":")
        values = {"authmethod": "CHAP", "username": user, "password": password} if chap else {}
        for key, value in values.items():
            self._set(iqn, f"node.session.auth.{key}", value)
        result = _iscsiadm("-m", "node", "-T", iqn, "-l")
        if result.returncode != 0:
            raise LoginError(result)
        wait_until(lambda: disk_of(iqn) != "")
        return disk_of(iqn)

    def _set(self, iqn: str, key: str, value: str) -> None:
        run("iscsiadm", "-m", "node", "-T", iqn, "-o", "update", "-n", key, "-v", value)

    def log_out(self, iqn: str) -> None:
        run("iscsiadm", "-m", "node", "-T", iqn, "-u")


class LoginError(Exception):
    def __init__(self, result: subprocess.CompletedProcess[str]) -> None:
        super().__init__(result.stderr)
        self.code = result.returncode


def _iscsiadm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["iscsiadm", *arguments], capture_output=True, text=True, check=False, timeout=120)


def disk_of(iqn: str) -> str:
    """/dev/sdX of the session with iqn; "" while there is none."""
    for session in Path("/sys/class/iscsi_session").glob("session*"):
        if (session / "targetname").read_text().strip() == iqn:
            for disk in session.glob("device/target*/*/block/sd*"):
                if Path("/dev", disk.name).exists():
                    return f"/dev/{disk.name}"
    return ""
