"""The service for targetcli, on a bus of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tcmu_overlaybd.errors import MissingError
from tcmu_overlaybd.lio import tcmu_service
from tcmu_overlaybd.lio.tcmu_service import NAME, ROOT, TcmuService

POLICY = Path(__file__).parents[2] / "packaging/org.kernel.TCMUService1.conf"
CONFIG = """<busconfig>
  <type>system</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><deny own="*"/><deny send_type="method_call"/>
    <allow send_type="signal"/><allow send_type="error"/><allow send_type="method_return"/>
    <allow receive_type="method_call"/><allow receive_type="method_return"/>
    <allow receive_type="error"/><allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  {policy}
</busconfig>"""

pytestmark = pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="dbus-daemon is not installed")


class Bus:
    """A system bus with the policy that we install, or without it."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "bus"
        self._config = folder / "bus.conf"
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self, *, has_policy: bool = True) -> None:
        policy = POLICY.read_text().partition("<busconfig>")[2].replace("</busconfig>", "")
        if os.geteuid() != 0:
            policy = policy.replace('user="root"', f'user="{os.geteuid()}"')
        self._config.write_text(CONFIG.format(socket=self.socket, policy=policy if has_policy else ""))
        self._daemon = subprocess.Popen(["dbus-daemon", "--nofork", f"--config-file={self._config}"])
        wait_until(self.socket.exists)

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait(30)
            self._daemon = None
        self.socket.unlink(missing_ok=True)

    def call(self, path: str, method: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["dbus-send", "--system", "--print-reply", f"--dest={NAME}", path, method, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def check(self, config: str) -> str:
        return self.call(f"{ROOT}/overlaybd", f"{NAME}.CheckConfig", f"string:{config}").stdout

    def is_served(self) -> bool:
        return "boolean" in self.check("x")


def wait_until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def bus(tmp_path, monkeypatch):
    bus = Bus(tmp_path)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={bus.socket}")
    monkeypatch.setattr(tcmu_service, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(tcmu_service, "MAX_PAUSE_S", 0.1)
    yield bus
    bus.stop()


def check(text: str) -> None:
    if text == "overlaybd/bad":
        raise MissingError("bad: no such file")
    if text == "overlaybd/fault":
        raise ZeroDivisionError


def service() -> TcmuService:
    return TcmuService("overlaybd", "what a config string is", check)


def test_targetcli_finds_the_handler_with_its_description(bus):
    bus.start()
    with service():
        wait_until(bus.is_served)
        objects = bus.call(ROOT, "org.freedesktop.DBus.ObjectManager.GetManagedObjects").stdout
    assert f'object path "{ROOT}/overlaybd"' in objects
    assert 'string "ConfigDesc"' in objects
    assert "what a config string is" in objects


def test_check_config_tells_what_is_wrong_also_of_a_fault_of_ours(bus, caplog):
    bus.start()
    with service():
        wait_until(bus.is_served)
        assert "boolean true" in bus.check("overlaybd/good")
        bad, fault = bus.check("overlaybd/bad"), bus.check("overlaybd/fault")
    assert "boolean false" in bad
    assert "bad: no such file" in bad
    assert "a fault in the daemon: ZeroDivisionError" in fault


def test_check_that_hangs_is_answered_in_time_and_holds_up_no_other(bus, monkeypatch):
    monkeypatch.setattr(tcmu_service, "CHECK_TIMEOUT_S", 0.2)
    bus.start()
    hang = threading.Event()
    with TcmuService("overlaybd", "", lambda text: text == "overlaybd/hang" and hang.wait(60)):
        wait_until(bus.is_served)
        assert "not checked within" in bus.check("overlaybd/hang")
        assert "boolean true" in bus.check("overlaybd/good")
        hang.set()


def test_bus_that_comes_later_or_comes_back_is_joined(bus, caplog):
    with service():
        wait_until(lambda: "there is no system bus" in caplog.text)
        for number in range(2):
            bus.start()
            wait_until(bus.is_served)
            bus.stop()
            wait_until(lambda number=number: caplog.text.count("there is no system bus") == number + 2)


def test_missing_policy_is_named(bus, caplog):
    bus.start(has_policy=False)
    with service():
        wait_until(lambda: "its policy file is missing" in caplog.text)


def test_name_of_another_daemon_is_waited_for(bus, caplog):
    bus.start()
    with service():
        wait_until(bus.is_served)
        with TcmuService("other", "", check):
            wait_until(lambda: "belongs to another daemon" in caplog.text)
            assert bus.is_served()


def test_end_is_quick_with_and_without_a_bus(bus):
    begun = time.monotonic()
    with service():
        pass
    bus.start()
    with service():
        wait_until(bus.is_served)
    assert time.monotonic() - begun < 20
    assert not bus.is_served()
