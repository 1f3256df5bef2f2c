"""What old writers left behind: garbage in ZFile headers, other tar wrappers, more zeros after one."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

IMAGE = "0efe7b220641c76aea6f58b5e8e715bdd150b35655f3d062718f039f03425b58"


def aged(block: bytes) -> bytes:
    """A header or trailer as old versions wrote it: no digest, and leftovers wherever nobody looks.

    The flags are those of the shipped base layer, but for the bits that say what the block is.
    """
    old = bytearray(block)
    flags = 0x00007FFEA4640B40 | int.from_bytes(block[32:40], "little") & 0b101111
    old[32:40] = flags.to_bytes(8, "little")
    old[28:32] = b"\xde\xad\xbe\xef"  # digest
    old[64:72] = b"\xca\xfe\xba\xbe" * 2  # index_crc, reserved
    old[80:84] = b"\xff" * 4
    old[89:96] = b"\xaa" * 7
    old[96:] = bytes(range(256)) + bytes(160)
    return bytes(old)


def exported(path, tmp_path, program) -> str:
    done = program("image", "export", path, "-o", tmp_path / "raw")
    assert done.returncode == 0, done.stderr
    return hashlib.sha256((tmp_path / "raw").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["commit/raw-by-zfiletool.zfile", "commit/lz4-4k.zfile"])
def test_garbage_of_old_zfiles_is_tolerated(name, vectors, tmp_path, program):
    data = (vectors / name).read_bytes()
    path = tmp_path / "layer"
    path.write_bytes(aged(data[:512]) + data[512:-512] + aged(data[-512:]))
    assert exported(path, tmp_path, program) == IMAGE
    done = program("image", "verify", path)
    assert done.returncode == 0, done.stderr
    assert "nothing vouches for the ZFile's header and jump table" in done.stdout


@pytest.mark.parametrize("name", ["commit/lz4-4k.zfile", "commit/raw.lsmt"])
@pytest.mark.parametrize("more", [0, 2, 20])
def test_the_ustar_wrapper_of_base_layers_is_read(name, more, vectors, tmp_path, program):
    data = (vectors / name).read_bytes()
    info = tarfile.TarInfo("overlaybd.commit")
    info.size, info.mode = len(data), 0o444
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.USTAR_FORMAT, copybufsize=512) as archive:
        archive.addfile(info, io.BytesIO(data))
    path = tmp_path / "layer"
    end = 512 + -(-len(data) // 512) * 512 + 1024
    path.write_bytes(whole.getvalue()[:end] + bytes(512 * more))
    assert exported(path, tmp_path, program) == IMAGE
    assert program("image", "verify", path).returncode == 0


def test_two_more_zero_blocks_after_the_pax_wrapper_are_read(vectors, tmp_path, program):
    """As ctr obdconv leaves them."""
    path = tmp_path / "layer"
    path.write_bytes((vectors / "commit/lz4-4k.tar").read_bytes() + bytes(1024))
    assert exported(path, tmp_path, program) == IMAGE
    assert program("image", "verify", path).returncode == 0


def test_tar_wraps_plain_lsmt_too(vectors, tmp_path, program):
    done = program("image", "commit", vectors / "rw.config.v1.json", "-o", tmp_path / "layer", "--tar")
    assert done.returncode == 0, done.stderr
    assert exported(tmp_path / "layer", tmp_path, program) == IMAGE
    with tarfile.open(tmp_path / "layer") as archive:
        assert archive.extractfile("overlaybd.commit").read() == (vectors / "commit/raw.lsmt").read_bytes()
