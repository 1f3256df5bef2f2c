"""File systems on a writable disk: made, verified, trimmed, taken away and attached again."""

from __future__ import annotations

from pathlib import Path

import pytest
from vm_daemon import run
from vm_fio import fio
from vm_images import MIB, tree_digests
from vm_soak import usual_or_soak

SIZE = 320 * MIB  # xfs wants 300
ROUNDS = usual_or_soak(1, 10)  # of writing, and of attaching again

# (make, mount, check); DISK and POINT are replaced
FILE_SYSTEMS = {
    "ext4": (["mkfs.ext4", "-q", "DISK"], ["mount", "DISK", "POINT"], ["fsck.ext4", "-fn", "DISK"]),
    "xfs": (["mkfs.xfs", "-q", "DISK"], ["mount", "DISK", "POINT"], ["xfs_repair", "-n", "DISK"]),
    "ntfs": (["mkntfs", "-Q", "-q", "-F", "DISK"], ["ntfs-3g", "DISK", "POINT"], ["ntfsfix", "-n", "DISK"]),
}


@pytest.mark.timeout(300 * ROUNDS)
@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_file_system_survives_verify_trim_detach_and_attach(daemon, kind, content, mount_point, tmp_path):
    make, mount, check = FILE_SYSTEMS[kind]
    disk = daemon.attach(new=True, size=SIZE, name="fs").disk

    def call(command, *more):
        run(*({"DISK": disk, "POINT": mount_point}.get(part, part) for part in command), *more, timeout=240)

    call(make)
    call(mount)
    run("cp", "-r", content, mount_point / "files")
    before = tree_digests(mount_point / "files")
    for _ in range(ROUNDS):
        verify = write_and_verify(mount_point / "data", direct=kind != "ntfs")
    if kind != "ntfs":  # ntfs-3g knows no fstrim
        (mount_point / "junk").write_bytes(bytes(8 * MIB))
        run("sync")
        (mount_point / "junk").unlink()
        run("fstrim", mount_point)
        assert daemon.client.status("fs").commands.discard > 0
    run("umount", mount_point, timeout=240)
    daemon.detach("fs")

    upper = daemon.folder / "state/uppers/fs"
    for _ in range(ROUNDS):
        disk = daemon.attach(upper / "config.v1.json", writable=True, name="fs").disk
        call(check)
        call(mount)
        assert tree_digests(mount_point / "files") == before
        assert fio(*verify, "--verify_only")["error"] == 0
        run("umount", mount_point)
        assert daemon.client.status("fs").errors == 0
        daemon.detach("fs")


def write_and_verify(path: Path, *, direct: bool) -> list[str]:
    """Writes a file in random order and verifies it; the options, to verify again."""
    job = [f"--filename={path}", "--size=24M", "--rw=randwrite", "--verify=crc32c", "--iodepth=16"]
    job += ["--verify_state_save=0", *([] if direct else ["--direct=0"])]
    assert fio(*job)["error"] == 0
    return job


def test_trim_frees_what_reads_as_zeros(daemon):
    device = daemon.attach(new=True, size=32 * MIB, name="d")
    with Path(device.disk).open("r+b", buffering=0) as disk:
        disk.write(b"x" * 8 * MIB)
    run("sync")
    run("blkdiscard", "-o", MIB, "-l", 2 * MIB, device.disk)
    run("blockdev", "--flushbufs", device.disk)
    content = Path(device.disk).read_bytes()
    assert content[: 8 * MIB] == b"x" * MIB + bytes(2 * MIB) + b"x" * 5 * MIB


def test_read_only_stack_has_the_files_it_was_made_of(daemon, ext4_layer, content, mount_point):
    device = daemon.attach(ext4_layer)
    run("mount", "-o", "ro", device.disk, mount_point)
    assert tree_digests(mount_point).items() >= tree_digests(content).items()
