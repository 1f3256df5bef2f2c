"""The private folder of an NBD socket: gone after kill -9, with the next start, and a living one never."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tcmu_overlaybd.nbd.socket_folder import PREFIX, socket_folder
from tests.nbd.disks import VECTORS
from tests.nbd.serving import NbdProcess

EMPTY = VECTORS / "empty.config.v1.json"


@pytest.fixture
def temporary(monkeypatch) -> Iterator[Path]:
    """A folder for temporary files of the test's own; short, because a socket's path is."""
    folder = Path(tempfile.mkdtemp(prefix="obd-"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)


def serve(temporary: Path) -> NbdProcess:
    return NbdProcess(EMPTY, environment={"TMPDIR": str(temporary)})


def test_what_a_killed_server_left_goes_at_the_next_start_and_a_living_one_stays(temporary):
    killed = serve(temporary)
    killed.signal(signal.SIGKILL)
    killed.end()
    left = killed.socket.parent
    assert left.is_dir()
    with serve(temporary) as living:
        assert not left.exists()
        with serve(temporary) as other:
            assert set(temporary.glob(f"{PREFIX}*")) == {living.socket.parent, other.socket.parent}
            assert living.socket.is_socket()
    assert list(temporary.glob(f"{PREFIX}*")) == []


def make(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    return folder


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def test_only_sockets_and_their_folders_are_removed(temporary):
    dead = make(temporary / f"{PREFIX}dead")
    bind(dead / "nbd.sock")
    kept = make(temporary / f"{PREFIX}with-a-file")
    (kept / "precious").touch()
    file = make(temporary / f"{PREFIX}no-socket")
    (file / "nbd.sock").touch()
    target = make(temporary / "target")
    (temporary / f"{PREFIX}link").symlink_to(target)
    (temporary / f"{PREFIX}file").touch()
    with socket_folder() as path:
        assert not dead.exists()
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert (kept / "precious").exists()
    assert (file / "nbd.sock").exists()
    assert target.is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="we are an ordinary user already")
def test_a_folder_of_another_user_stays(temporary):
    other = make(temporary / f"{PREFIX}other")
    os.chown(other, 65534, 65534)
    with socket_folder():
        pass
    assert other.is_dir()


def test_starts_at_the_same_time_each_keep_their_folder(temporary):
    """Each is a moment without its lock, and then taken for a dead one by the others."""
    failures = []

    def start() -> None:
        for _ in range(200):
            with socket_folder() as path:
                if not path.parent.is_dir():
                    failures.append(path)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(temporary.iterdir()) == []
