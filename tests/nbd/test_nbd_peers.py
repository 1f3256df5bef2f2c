"""The NBD front against clients that others wrote: libnbd, qemu, fio."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tcmu_overlaybd.image.open import open_image
from tests.nbd.client import Client, PeerError
from tests.nbd.disks import DISK_SIZE, MANIFEST, VECTORS
from tests.nbd.peer import data_of
from tests.nbd.serving import NbdProcess

EPERM, EINVAL, ENOSPC = 1, 22, 28  # the protocol's numbers, which are Linux's
READABLE = [v for v in MANIFEST["vectors"] if v["name"] != "turbo-ext4"]


def run(*arguments: str | Path) -> str:
    result = subprocess.run(
        list(map(str, arguments)), capture_output=True, text=True, errors="replace", timeout=100, check=False
    )
    assert result.returncode == 0, f"{arguments}: {result.stderr}"
    return result.stdout


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- libnbd's tools


def test_nbdinfo_sees_a_read_only_export(tool: Any, vectors: Path) -> None:
    with NbdProcess(vectors / "stack3-raw.config.v1.json") as server:
        (export,) = json.loads(run(tool("nbdinfo"), "--json", server.uri))["exports"]
    assert export["export-size"] == 2 << 20
    assert export["contexts"] == ["base:allocation"]
    assert (export["block_size_minimum"], export["block_size_preferred"]) == (512, 4096)
    assert export["block_size_maximum"] == 32 << 20
    assert export["is_read_only"]
    assert export["can_multi_conn"]
    assert not export["can_trim"]


def test_nbdinfo_sees_what_a_writable_export_can_do(tool: Any, upper_of: list[str]) -> None:
    with NbdProcess(*upper_of) as server:
        (export,) = json.loads(run(tool("nbdinfo"), "--json", server.uri))["exports"]
    can = [name for name, value in export.items() if name.startswith("can_") and value]
    assert sorted(can) == [
        "can_df",
        "can_fast_zero",
        "can_flush",
        "can_fua",
        "can_multi_conn",
        "can_trim",
        "can_zero",
    ]
    assert export["export-size"] == DISK_SIZE


def test_nbdinfo_lists_the_export_with_its_image(tool: Any, vectors: Path) -> None:
    with NbdProcess(vectors / "empty.config.v1.json") as server:
        (export,) = json.loads(run(tool("nbdinfo"), "--json", "--list", server.uri))["exports"]
    assert export["export-name"] == ""
    assert export["description"].endswith("empty.config.v1.json")


def test_nbdinfo_map_is_the_image_s_own_map(tool: Any, vectors: Path) -> None:
    config = vectors / "stack3-upper.config.v1.json"
    with open_image(config) as opened:
        kinds = [(e.offset, e.length, [3, 2, 0][e.kind]) for e in opened.image.extents(0, opened.image.size)]
    merged: list[tuple[int, int, int]] = []
    for offset, length, kind in kinds:
        if merged and merged[-1][2] == kind:
            first, before, _ = merged.pop()
            merged.append((first, before + length, kind))
        else:
            merged.append((offset, length, kind))
    with NbdProcess(config) as server:
        found = json.loads(run(tool("nbdinfo"), "--json", "--map", server.uri))
    assert [(e["offset"], e["length"], e["type"]) for e in found] == merged


@pytest.mark.parametrize("vector", READABLE, ids=lambda v: v["name"])
def test_nbdcopy_reads_every_vector(tool: Any, vectors: Path, tmp_path: Path, vector: dict[str, Any]) -> None:
    copy = tmp_path / "copy"
    with NbdProcess(vectors / vector["config"]) as server:
        run(tool("nbdcopy"), server.uri, copy)
    assert sha256_of(copy) == vector["expected"]["sha256"]


def test_nbdcopy_writes_over_many_connections_and_it_is_there_after_a_restart(
    tool: Any, upper_of: list[str], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(data_of(1, 3 << 20) + bytes(1 << 20) + data_of(2, DISK_SIZE - (4 << 20)))
    with NbdProcess(*upper_of) as server:
        run(tool("nbdcopy"), "--connections=4", "--flush", disk, server.uri)
    with NbdProcess(*upper_of) as server:
        run(tool("nbdcopy"), "--connections=4", server.uri, tmp_path / "back")
    assert sha256_of(tmp_path / "back") == sha256_of(disk)


# -- libnbd's binding


def test_binding_writes_zeroes_trims_and_reads_them_back(upper_of: list[str]) -> None:
    model = bytearray(DISK_SIZE)
    with NbdProcess(*upper_of) as server, Client(server.uri) as client:
        assert client.facts()["get_structured_replies_negotiated"]
        client.write(4096, 65536, 1)
        model[4096 : 4096 + 65536] = data_of(1, 65536)
        client.write(512, 512, 2, "fua")
        model[512:1024] = data_of(2, 512)
        client.zero(8192, 4096, "no_hole")
        model[8192:12288] = bytes(4096)
        client.zero(16384, 512, "fast_zero", "fua")
        model[16384:16896] = bytes(512)
        client.trim(32768, 1024)
        model[32768:33792] = bytes(1024)
        client.flush()
        assert client.read(0, DISK_SIZE) == hashlib.sha256(model).hexdigest()
        assert client.read(511, 2, "df") == hashlib.sha256(model[511:513]).hexdigest()
        assert client.extents(0, 20480) == [
            512,
            3,
            512,
            0,
            3072,
            3,
            4096,
            0,
            4096,
            2,
            4096,
            0,
            512,
            2,
            3584,
            0,
        ]


def test_binding_gets_holes_as_chunks(upper_of: list[str]) -> None:
    with NbdProcess(*upper_of) as server, Client(server.uri) as client:
        client.write(0, 4096, 1)
        assert client.chunks(0, 4096) == [[0, 4096, 1]]
        assert client.chunks(4096, 65536) == [[4096, 65536, 2]]


@pytest.mark.parametrize(
    ("operation", "errno"),
    [
        (["read", DISK_SIZE, 512], EINVAL),
        (["write", DISK_SIZE - 512, 1024, 1], ENOSPC),
        (["write", 100, 512, 1], EINVAL),
        (["trim", 0, 100], EINVAL),
        (["cache", 0, 512], EINVAL),
    ],
)
def test_binding_is_refused_and_may_go_on(upper_of: list[str], operation: list[Any], errno: int) -> None:
    with NbdProcess(*upper_of) as server, Client(server.uri) as client:
        with pytest.raises(PeerError) as refused:
            client.ask(*operation)
        assert refused.value.errno == errno
        client.write(0, 512, 1)


def test_binding_cannot_write_a_read_only_export(vectors: Path) -> None:
    with NbdProcess(vectors / "rw.config.v1.json") as server, Client(server.uri) as client:
        with pytest.raises(PeerError) as refused:
            client.write(0, 512, 1)
        assert refused.value.errno == EPERM


def test_flush_on_one_connection_covers_writes_of_another(upper_of: list[str]) -> None:
    """CAN_MULTI_CONN: the journal is off, so only what a flush wrote survives the kill."""
    environment = {"TCMU_OVERLAYBD_TEST_NO_JOURNAL": "1", "TCMU_OVERLAYBD_TEST_FLUSH_INTERVAL_MS": "0"}
    server = NbdProcess(*upper_of, environment=environment)
    with Client(server.uri) as client:
        for number in range(4):
            client.write(number * 4096, 4096, number + 1, connection=number)
        client.flush(connection=9)
        client.write(5 * 4096, 4096, 5, connection=1)
        server.kill()
    with NbdProcess(*upper_of) as server, Client(server.uri) as client:
        for number in range(4):
            expected = hashlib.sha256(data_of(number + 1, 4096)).hexdigest()
            assert client.read(number * 4096, 4096) == expected
        assert client.extents(4 * 4096, 3 * 4096)[1] != 0


# -- qemu


def test_qemu_img_compares_equal_with_what_nbdcopy_wrote(tool: Any, vectors: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    with NbdProcess(vectors / "ext4-3layer.config.v1.json") as server:
        run(tool("nbdcopy"), server.uri, raw)
        assert "Images are identical" in run(
            tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", server.uri, raw
        )


def test_qemu_img_converts_in_both_directions(tool: Any, upper_of: list[str], tmp_path: Path) -> None:
    disk, back = tmp_path / "disk", tmp_path / "back.qcow2"
    disk.write_bytes(bytes(65536) + data_of(3, 1 << 20) + bytes(DISK_SIZE - 65536 - (1 << 20)))
    with NbdProcess(*upper_of) as server:
        run(tool("qemu-img"), "convert", "-n", "-f", "raw", "-O", "raw", disk, server.uri)
        run(tool("qemu-img"), "convert", "-f", "raw", "-O", "qcow2", server.uri, back)
    assert "identical" in run(tool("qemu-img"), "compare", "-f", "raw", "-F", "qcow2", disk, back)


def test_qemu_img_map_knows_the_holes(tool: Any, vectors: Path) -> None:
    with NbdProcess(vectors / "rw.config.v1.json") as server:
        found = json.loads(run(tool("qemu-img"), "map", "-f", "raw", "--output=json", server.uri))
    assert [(e["start"], e["length"], e["zero"]) for e in found][:2] == [
        (0, 8192, False),
        (8192, 57344, True),
    ]
    assert sum(e["length"] for e in found) == 8 << 20


def test_qemu_io_writes_flushes_discards(tool: Any, upper_of: list[str]) -> None:
    commands = ["write -P 7 64k 64k", "write -f -P 9 4k 4k", "flush", "discard 64k 4k", "write -z 68k 4k"]
    commands += ["read -P 0 64k 8k", "read -P 7 72k 56k", "read -P 9 4k 4k"]
    with NbdProcess(*upper_of) as server:
        arguments = [part for command in commands for part in ("-c", command)]
        printed = run(tool("qemu-io"), "-f", "raw", *arguments, server.uri)
    assert "Pattern verification failed" not in printed


# -- fio


def test_fio_verifies_random_writes(tool: Any, upper_of: list[str]) -> None:
    fio = tool("fio")
    if "nbd" not in run(fio, "--enghelp"):
        pytest.skip("this fio has no nbd engine")
    with NbdProcess(*upper_of) as server:
        arguments = ["--name=verify", "--ioengine=nbd", f"--uri={server.uri}", "--rw=randwrite", "--size=6M"]
        arguments += ["--bsrange=512-64k", "--iodepth=32", "--fsync=50", "--verify=crc32c", "--do_verify=1"]
        arguments += ["--verify_state_save=0"]
        run(fio, *arguments)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user can enter and write to (pytest's own are private)."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
# Where this Python lies in a closed home, like root's: the right to read it, and no other.
READER = (*NOBODY, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")


def can_start(user: tuple[str, ...]) -> bool:
    command = [*user, sys.executable, "-c", "import tcmu_overlaybd"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_an_ordinary_user_can_serve_and_copy(tool: Any, public_folder: Path) -> None:
    """As nobody: opening, the socket's folder, the client."""
    if os.getuid() != 0:
        pytest.skip("we are an ordinary user already: every other test shows it")
    user = next((user for user in (NOBODY, READER) if can_start(user)), None)
    if user is None:
        pytest.skip("an ordinary user cannot read the folder that the package lies in")
    shutil.copytree(VECTORS / "stack", public_folder / "stack")
    config = Path(shutil.copy(VECTORS / "stack3-mixed.config.v1.json", public_folder))
    command = f'{tool("nbdcopy")} "$uri" {public_folder}/copy'
    code, _, stderr = NbdProcess(config, "--run", command, prefix=user, ready=False).end()
    assert code == 0, stderr
    expected = next(v for v in MANIFEST["vectors"] if v["name"] == "stack3-mixed")["expected"]["sha256"]
    assert sha256_of(public_folder / "copy") == expected
