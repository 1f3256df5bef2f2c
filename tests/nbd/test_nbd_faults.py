"""A full disk and a failing one under the upper, as an NBD client meets them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nbd.client import Client, PeerError
from tests.nbd.disk_model import DiskModel, after
from tests.nbd.disks import DISK_SIZE, VECTORS
from tests.nbd.peer import data_of
from tests.nbd.serving import NbdProcess
from tests.small_disk import small_tmpfs

EPERM, EIO, ENOSPC = 1, 5, 28
PIECE = 64 << 10


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def errno_of_write(client: Client, offset: int) -> int:
    """0 when it went well."""
    try:
        client.write(offset, PIECE, 99)
    except PeerError as error:
        return error.errno
    return 0


def fill(client: Client, model: DiskModel) -> int:
    """Writes until the disk under the upper is full; the number of writes that went well."""
    for i in range(DISK_SIZE // PIECE):
        if (errno := errno_of_write(client, i * PIECE)) != 0:
            assert errno == ENOSPC
            return i
        model.content = after(model.content, ["write", i * PIECE, PIECE, 99])
    raise AssertionError("the disk was never full")


@pytest.fixture
def full_soon(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB: the journal takes one of them."""
    with small_tmpfs(tmp_path / "small", "4m") as folder:
        yield folder


def test_a_full_disk_fails_the_write_that_met_it_and_loses_nothing(full_soon: Path) -> None:
    empty = str(VECTORS / "empty.config.v1.json")
    arguments = [empty, "--writable", "--upper", str(full_soon / "upper"), "--size", str(DISK_SIZE)]
    ballast = full_soon / "ballast"
    ballast.write_bytes(bytes(512 << 10))
    model = DiskModel()
    with NbdProcess(*arguments) as server, Client(server.uri) as client:
        done = fill(client, model)
        assert client.read(0, DISK_SIZE) == sha256(model.content)
        model.run(client, [["trim", 0, 4096], ["flush"]])
        ballast.unlink()
        model.run(client, [["write", done * PIECE, PIECE, 88], ["flush"]])
    with NbdProcess(*arguments) as server, Client(server.uri) as client:
        assert client.read(0, DISK_SIZE) == sha256(model.content)


@pytest.mark.parametrize("rule", ["/data:reserve:1:28:sticky", "/index:reserve:1:28:sticky"])
def test_no_room_refuses_writes_and_nothing_else(upper_of: list[str], rule: str) -> None:
    """The same without root: from now on no reservation is granted."""
    model = DiskModel()
    with NbdProcess(*upper_of) as server, Client(server.uri) as client:
        model.run(client, [["write", 0, PIECE, 1]])
    with (
        NbdProcess(*upper_of, environment={"OBD_TEST_FILE_FAULT": rule}) as server,
        Client(server.uri) as client,
    ):
        for i in range(3):
            assert errno_of_write(client, i * PIECE) == ENOSPC
        client.flush()
        assert client.read(0, DISK_SIZE) == sha256(model.content)
    with NbdProcess(*upper_of) as server, Client(server.uri) as client:
        assert client.read(0, DISK_SIZE) == sha256(model.content)
        model.run(client, [["write", PIECE, PIECE, 2]])


@pytest.mark.parametrize("file", ["data", "index"])
def test_after_a_failed_sync_the_disk_is_read_only_at_its_last_flushed_state(
    upper_of: list[str], file: str
) -> None:
    model = DiskModel()
    environment = {
        "OBD_TEST_FILE_FAULT": f"/{file}:sync:2:5",
        "TCMU_OVERLAYBD_TEST_FLUSH_INTERVAL_MS": "0",
    }
    server = NbdProcess(*upper_of, environment=environment)
    with Client(server.uri) as client:
        model.run(client, [["write", 0, 4096, 1], ["flush"], ["write", 4096, 4096, 2]])
        with pytest.raises(PeerError) as failed:
            client.flush()
        assert failed.value.errno == EIO
        with pytest.raises(PeerError) as refused:
            client.write(0, 4096, 3)
        assert refused.value.errno == EPERM
        with pytest.raises(PeerError):
            client.flush()
        assert client.read(0, DISK_SIZE) == sha256(model.flushed)
    code, _, stderr = server.stop()
    assert code == 1, stderr
    assert "upper" in stderr

    assert model.flushed[:4096] == data_of(1, 4096)
    for arguments in (upper_of, [f"{upper_of[3]}/config.v1.json"]):
        with NbdProcess(*arguments) as server, Client(server.uri) as client:
            assert client.facts()["is_read_only"]
            assert client.read(0, DISK_SIZE) == sha256(model.flushed)


def test_a_damaged_block_is_an_error_where_it_lies_and_nowhere_else(private_vectors: Path) -> None:
    """One flipped bit in a compressed block whose checksum knows better."""
    layer = private_vectors / "commit" / "lz4-4k.zfile"
    content = bytearray(layer.read_bytes())
    content[5000] ^= 1
    layer.write_bytes(content)
    pieces = (8 << 20) // PIECE
    errors = []
    with (
        NbdProcess(private_vectors / "commit-lz4-4k-zfile.config.v1.json") as server,
        Client(server.uri) as client,
    ):
        for i in range(pieces):
            try:
                client.read(i * PIECE, PIECE)
            except PeerError as error:
                errors.append(error.errno)
        assert client.read_hex(8388096, 512) != bytes(512).hex()
    assert errors == [EIO]
