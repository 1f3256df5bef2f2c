"""Snapshots and forks of disks in use: what is sealed, what goes on, what the files say."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from live_disks import LiveDisks
from oracle.reader import read_layer, stack

from tcmu_overlaybd.config.image_config import ImageConfig, Lower, load_image_config
from tcmu_overlaybd.config.service_config import ServiceConfig
from tcmu_overlaybd.daemon.client import UnixConnection
from tcmu_overlaybd.daemon.control import ControlServer, listen
from tcmu_overlaybd.daemon.messages import CommitRequest, SnapshotRequest
from tcmu_overlaybd.daemon.reference_api import ReferenceApi
from tcmu_overlaybd.errors import BusyError, LimitError, MissingError, NoSpaceError, UsageError
from tcmu_overlaybd.image.commit import commit_image
from tcmu_overlaybd.image.create import create_layer
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tcmu_overlaybd.native.testing import file_fault

SIZE = 8 << 20
MIB = 1 << 20


@pytest.fixture
def disks(tmp_path):
    with LiveDisks(tmp_path / "state") as disks:
        yield disks


def lowers_of(path: Path) -> ImageConfig:
    return msgspec.structs.replace(load_image_config(path), upper=None)


def bytes_of(layer: str | Path, length: int) -> bytes:
    """The first bytes of a disk that is this layer alone, as the oracle reads it."""
    return stack([read_layer(Path(layer))]).read(0, length)


def test_snapshot_seals_the_upper_and_goes_on_with_a_new_one(disks):
    disk = disks.open("a", SIZE)
    disk.write(b"1" * MIB, 0)
    (made,) = disks.snapshot("a")
    disk.write(b"2" * 4096, 0)
    assert made.sealed == str(disk.upper / "data")
    assert made.upper == str(disk.upper / "data.1")
    assert made.layers == 1
    assert disk.read(MIB, 0) == b"2" * 4096 + b"1" * (MIB - 4096)
    assert disk.seen_by_oracle() == disk.read_all()
    assert bytes_of(made.sealed, MIB) == b"1" * MIB


def test_snapshot_leaves_only_what_is_of_use(disks):
    disk = disks.open("a", SIZE)
    disk.write(b"1" * 4096, 0)
    disks.snapshot("a")
    disks.snapshot("a")
    names = {path.name for path in disk.upper.iterdir()}
    assert names == {"config.v1.json", "data", "data.1", "data.2", "index.2", "index.2.journal"}


def test_snapshot_is_in_the_configuration_of_the_device_and_of_the_upper_folder(disks):
    disk = disks.open("a", SIZE)
    disks.snapshot("a")
    for path in (disk.config, disk.upper / "config.v1.json"):
        config = load_image_config(path)
        assert [lower.file for lower in config.layers] == [str(disk.upper / "data")]
        assert config.writable is not None
        assert config.writable.data == str(disk.upper / "data.1")
    assert json.loads((disk.upper / "config.v1.json").read_text())["lowers"] == [{"file": "data"}]


def test_disk_comes_back_after_a_snapshot(disks):
    disk = disks.open("a", SIZE)
    disk.write(b"1" * MIB, 0)
    disks.snapshot("a")
    disk.write(b"2" * MIB, MIB)
    before = disk.read_all()
    disks.close("a")
    assert disks.reopen("a").read_all() == before


def test_upper_folder_is_attached_again_with_the_layers_that_it_was_made_over(disks):
    disk = disks.open("a", SIZE)
    disk.write(b"1" * MIB, 0)
    disks.snapshot("a")
    base = lowers_of(disk.config)
    over = disks.open("b", base=base)
    over.write(b"3" * 4096, 0)
    disks.snapshot("b")
    disks.close("b")
    assert disks.open("b", base=base).read(4096, 0) == b"3" * 4096


def test_snapshot_makes_the_same_layer_as_a_commit(disks, tmp_path):
    disk = disks.open("a", SIZE)
    disk.write(b"1" * MIB, 0)
    disk.write(b"2" * 4096, 8192)
    disk.discard(MIB, 2 * MIB)
    plain = disk.served.commit(tmp_path / "before", LayerOptions())
    request = SnapshotRequest(("a",), commit=CommitRequest(str(tmp_path / "after")))
    made = disks.snapshotter.snapshot(request)
    assert made.committed is not None
    assert made.committed.digest == plain.digest


def test_sealed_file_is_what_commit_sealed_takes(disks, tmp_path):
    disk = disks.open("a", SIZE)
    disk.write(b"1" * MIB, 4096)
    (made,) = disks.snapshot("a")
    commit_image([made.sealed], tmp_path / "layer", LayerOptions())
    assert bytes_of(tmp_path / "layer", SIZE) == disk.read_all()


def test_fork_and_fork_of_a_fork_are_disks_of_their_own(disks):
    first = disks.open("a", SIZE)
    first.write(b"1" * MIB, 0)
    disks.snapshot("a")
    second = disks.open("b", base=lowers_of(first.config))
    second.write(b"2" * 4096, 0)
    disks.snapshot("b")
    third = disks.open("c", base=lowers_of(second.config))
    third.write(b"3" * 4096, 0)
    first.write(b"9" * 4096, 4096)
    assert [disk.read(4096, 0)[:1] for disk in (first, second, third)] == [b"1", b"2", b"3"]
    assert [disk.read(4096, 4096)[:1] for disk in (first, second, third)] == [b"9", b"1", b"1"]
    disks.close("a")
    disks.close("b")
    assert third.read(8192, 0) == b"3" * 4096 + b"1" * 4096


def test_snapshot_goes_on_while_a_commit_of_the_upper_runs(disks, tmp_path):
    disk = disks.open("a", 64 * MIB)
    disk.write(b"1" * (32 * MIB), 0)
    written = []
    committing = threading.Thread(
        target=lambda: written.append(disk.served.commit(tmp_path / "layer", LayerOptions()))
    )
    committing.start()
    disks.snapshot("a")
    disk.write(b"2" * MIB, 0)
    committing.join()
    assert bytes_of(written[0].path, 32 * MIB) == b"1" * (32 * MIB)


def test_several_disks_are_snapshotted_in_one_pause(disks):
    first, second = disks.open("a", SIZE), disks.open("b", SIZE)
    stop = threading.Event()
    written = [0]

    def write_both() -> None:
        """The second is never ahead of the first."""
        while not stop.is_set():
            written[0] += 1
            first.write(written[0].to_bytes(4, "big") * 128, 0)
            second.write(written[0].to_bytes(4, "big") * 128, 0)

    writer = threading.Thread(target=write_both)
    writer.start()
    found = []
    for _ in range(20):
        sealed = disks.snapshot("a", "b")
        found.append([bytes_of(one.sealed, 4) for one in sealed])
    stop.set()
    writer.join()
    numbers = [tuple(int.from_bytes(part, "big") for part in pair) for pair in found]
    assert all(0 <= one - other <= 1 for one, other in numbers), numbers


def test_disks_are_snapshotted_all_or_none(disks):
    first, second = disks.open("a", SIZE), disks.open("b", SIZE)
    for disk in (first, second):
        disk.write(b"1" * 4096, 0)
    file_fault("/b/data", "write", 1, 28)  # ENOSPC, at its index
    with pytest.raises(NoSpaceError):
        disks.snapshot("a", "b")
    file_fault("", "", 0, 0)
    for disk in (first, second):
        disk.write(b"2" * 4096, 4096)
        assert {path.name for path in disk.upper.iterdir()} == {
            "config.v1.json",
            "data",
            "index",
            "index.journal",
        }
        assert disk.seen_by_oracle() == disk.read_all()
    assert len(disks.snapshot("a", "b")) == 2


def test_snapshot_of_what_is_not_there_or_named_twice_is_refused(disks):
    disks.open("a", SIZE)
    with pytest.raises(MissingError, match="no such device"):
        disks.snapshot("b")
    with pytest.raises(UsageError, match="named twice"):
        disks.snapshot("a", "a")


def test_snapshot_of_a_sparse_upper_is_refused(disks):
    disk = disks.open("a", SIZE, sparse=True)
    with pytest.raises(UsageError, match="its upper is sparse"):
        disks.snapshot("a")
    disk.write(b"1" * 4096, 0)
    assert disk.read(4096, 0) == b"1" * 4096


def test_two_snapshots_of_a_disk_do_not_run_at_once(disks):
    disk = disks.open("a", SIZE)
    with disk.served.changing(), pytest.raises(BusyError, match="a snapshot of it runs"):
        disks.snapshot("a")


def test_snapshot_that_would_make_more_layers_than_can_be_stacked_is_refused(disks, tmp_path):
    disk = disks.open("a", 1 << 20)
    disks.snapshot("a")
    sealed = Lower(file=str(disk.upper / "data"))
    tall = disks.open("b", base=ImageConfig(lowers=(sealed,) * 254))
    tall.write(b"1" * 4096, 0)
    with pytest.raises(LimitError, match="254 lowers and an upper, and at most 255"):
        disks.snapshot("b")
    assert tall.read(4096, 0) == b"1" * 4096


# -- the reference's way: the caller makes the new upper and the configuration


def prepare_restack(disks, tmp_path: Path, size: int = SIZE) -> Path:
    disk = disks.table.find("a")
    create_layer(tmp_path / "new.data", tmp_path / "new.index", size)
    current = load_image_config(Path(disk.record.config_path))
    config = {
        "repoBlobUrl": "",
        "lowers": [{"file": lower.file} for lower in current.layers] + [{"file": current.writable.data}],
        "upper": {"data": str(tmp_path / "new.data"), "index": str(tmp_path / "new.index")},
        "resultFile": "",
    }
    path = tmp_path / "new.json"
    path.write_text(json.dumps(config))
    return path


def test_restack_takes_the_upper_and_the_configuration_of_the_caller(disks, tmp_path):
    disk = disks.open("a", SIZE)
    disk.write(b"1" * 4096, 0)
    path = prepare_restack(disks, tmp_path)
    disks.snapshotter.restack("a", path)
    assert not path.exists()
    disk.write(b"2" * 4096, 4096)
    assert load_image_config(disk.config).writable.data == str(tmp_path / "new.data")
    assert disk.seen_by_oracle() == disk.read_all()
    before = disk.read_all()
    disks.close("a")
    assert disks.reopen("a").read_all() == before


def test_restack_that_fails_leaves_the_callers_files(disks, tmp_path):
    disk = disks.open("a", SIZE)
    path = prepare_restack(disks, tmp_path, size=SIZE // 2)
    with pytest.raises(UsageError):
        disks.snapshotter.restack("a", path)
    assert path.exists()
    assert (tmp_path / "new.data").exists()
    disk.write(b"2" * 4096, 4096)
    with pytest.raises(MissingError):
        disks.snapshotter.restack("nobody", path)


# -- over the control socket


@pytest.fixture
def socket_path(disks, tmp_path):
    api = ReferenceApi(disks.snapshotter.restack)
    path = tmp_path / "control.socket"
    server = ControlServer(listen(path), SnapshotsOnly(disks), api)
    server.start()
    yield path
    server.stop()


class SnapshotsOnly:
    """The part of the Api that snapshots need."""

    def __init__(self, disks: LiveDisks) -> None:
        self.snapshot = disks.snapshotter.snapshot
        self.fork = disks.snapshotter.fork


def ask(socket_path: Path, method: str, target: str) -> tuple[int, str]:
    connection = UnixConnection(socket_path, 60)
    connection.request(method, target)
    response = connection.getresponse()
    assert response.getheader("Content-Type") is None
    return response.status, response.read().decode()


def test_snapshot_command_prints_the_sealed_file(program, disks, socket_path, tmp_path):
    disk = disks.open("a", SIZE)
    disk.write(b"1" * 4096, 0)
    result = program("snapshot", "a", "--socket", socket_path)
    assert (result.returncode, result.stdout) == (0, f"{disk.upper / 'data'}\n")
    assert "writes waited for" in result.stderr
    result = program("snapshot", "a", "--socket", socket_path, "-o", tmp_path / "layer", "--zfile", "lz4")
    assert result.returncode == 0
    assert result.stdout.startswith("sha256:")
    result = program("snapshot", "a", "--socket", socket_path, "--json")
    made = json.loads(result.stdout)
    assert made["devices"][0]["layers"] == 3
    assert made["pause_ms"] > 0


def test_snapshot_command_that_makes_no_sense_needs_no_daemon_to_be_told(program, tmp_path):
    for arguments, sentence in (
        (["a", "b", "-o", tmp_path / "x"], "the snapshot of one disk"),
        (["a", "a"], "named twice"),
        (["a", "--tar"], "only with --output"),
    ):
        result = program("snapshot", *arguments)
        assert result.returncode == 2
        assert sentence in result.stderr


def as_reference(success: bool, message: str) -> str:
    return f'{{\n        "success": {str(success).lower()},\n        "message": "{message}"\n}}'


def test_reference_api_answers_as_the_reference_does(disks, socket_path, tmp_path):
    disk = disks.open("a", SIZE)
    disk.write(b"1" * 4096, 0)
    path = prepare_restack(disks, tmp_path)
    missing = as_reference(False, "Missing dev_id or config in snapshot request")
    assert ask(socket_path, "GET", "/snapshot?dev_id=a") == (400, missing)
    unknown = as_reference(False, "Image file not found")
    assert ask(socket_path, "POST", f"/snapshot?dev_id=b&config={path}") == (404, unknown)
    failed = as_reference(False, "Failed to create snapshot`")
    assert ask(socket_path, "PUT", "/snapshot?dev_id=a&config=/no/such/file") == (500, failed)
    done = as_reference(True, "Snapshot created successfully")
    assert ask(socket_path, "GET", f"/snapshot?dev_id=a&config={quote(str(path))}") == (200, done)
    assert not path.exists()


def test_reference_api_is_off_unless_it_is_asked_for(disks, tmp_path):
    server = ControlServer(listen(tmp_path / "s"), SnapshotsOnly(disks))
    server.start()
    connection = UnixConnection(tmp_path / "s", 60)
    connection.request("GET", "/snapshot?dev_id=a&config=/x")
    assert b"knows no such request" in connection.getresponse().read()
    server.stop()
    assert not ServiceConfig().service_config.enable
    config = msgspec.json.decode(b'{"serviceConfig": {"enable": true, "address": "x"}}', type=ServiceConfig)
    assert config.service_config.enable
