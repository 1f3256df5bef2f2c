"""Fixtures of the tests that need a kernel with TCMU.

They run inside the test VM (``tests/run-vm``), or directly as root where the machine's
own kernel has the modules.  Elsewhere they skip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vm_daemon import VmDaemon, leftovers, run
from vm_images import MIB, make_ext4, make_layer, make_raw

MODULES = ("target_core_user", "tcm_loop", "sd_mod", "sg")


def can_run() -> bool:
    if os.geteuid() != 0:
        return False
    if os.environ.get("IN_UML") == "1" or Path("/sys/module/target_core_user").exists():
        return True
    modprobe = shutil.which("modprobe")
    return (
        modprobe is not None
        and subprocess.run([modprobe, "-n", "-q", "target_core_user"], check=False).returncode == 0
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    mine = [item for item in items if here in item.path.parents]
    runs = bool(mine) and can_run()
    for item in mine:
        item.add_marker(pytest.mark.vm)
        if not runs:
            item.add_marker(pytest.mark.skip(reason="needs a kernel with TCMU: run by tests/run-vm"))


@pytest.fixture(scope="session", autouse=True)
def kernel() -> None:
    for module in MODULES:
        run("modprobe", module)
    if not Path("/sys/kernel/config/target").is_dir():
        run("mount", "-t", "configfs", "none", "/sys/kernel/config")


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., VmDaemon]]:
    """Starts a daemon, see VmDaemon; at the end nothing of it may be left in the kernel."""
    made: list[VmDaemon] = []

    def make(**options: Any) -> VmDaemon:
        daemon = VmDaemon(tmp_path, **options)
        made.append(daemon)
        daemon.start()
        return daemon

    yield make
    for daemon in made:
        daemon.clean_up()
    assert leftovers() == []


@pytest.fixture
def daemon(make_daemon: Callable[..., VmDaemon]) -> VmDaemon:
    return make_daemon()


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="session")
def raw_disk(images: Path) -> Path:
    """16 MiB, half of it random."""
    return make_raw(images / "plain.raw", 16 * MIB)


@pytest.fixture(scope="session")
def plain_layer(raw_disk: Path) -> Path:
    return make_layer(raw_disk)


@pytest.fixture(scope="session")
def dead_layer(images: Path) -> Path:
    """A layer that the daemons of these tests open, and never get data of."""
    return make_layer(make_raw(images / "dead.raw", 16 * MIB))


@pytest.fixture(scope="session")
def content() -> Path:
    """Real files: this project's C sources."""
    return Path(__file__).parents[2] / "csrc"


@pytest.fixture(scope="session")
def ext4_layer(images: Path, content: Path) -> Path:
    """An ext4 file system that holds content."""
    return make_layer(make_ext4(images / "ext4.raw", content, 64 * MIB))


@pytest.fixture
def mount_point(tmp_path: Path) -> Iterator[Path]:
    point = tmp_path / "mnt"
    point.mkdir()
    yield point
    while point.is_mount():
        run("umount", point)
