"""Runs inside the guest that is rebooted: targetcli_guest.py create|restore FOLDER.

``create`` makes a disk with targetcli, a file system and a file on it, grows it, saves LIO's
configuration, and takes everything down as a shutdown does.  ``restore`` brings LIO back from what was saved,
prints what targetcli said, and the file.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "vm"))

from vm_daemon import CONFIGFS, VmDaemon, run, wait_until
from vm_images import MIB
from vm_targetcli import is_served, start_bus, targetcli

from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.lio.discovery import find_disk

BACKSTORES = "/backstores/user:overlaybd"
PORT = "/loopback/naa.50014051234567ab"
SIZE, LARGER = 64 * MIB, 96 * MIB
POINT = Path("/mnt2")
SAVED = Path("/etc/rtslib-fb-target")  # as Debian has it
TEXT = "written before the reboot"


def start(folder: Path) -> VmDaemon:
    """What targetcli saves lies in folder, as /etc outlives a reboot elsewhere."""
    (folder / "etc").mkdir(exist_ok=True)
    for path in (POINT, SAVED):
        path.mkdir(exist_ok=True)
    run("mount", "--bind", folder / "etc", SAVED)
    start_bus()
    daemon = VmDaemon(folder, RUNTIME_DIRECTORY="/run/test")
    daemon.client.path = Path("/run/test/control.socket")
    daemon.start()
    wait_until(is_served)
    return daemon


def done(*words: object) -> str:
    result = targetcli(*words)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def disk_of(name: str, size: int) -> str:
    """/dev/sdX, when the kernel knows that it has size bytes."""
    text = next(CONFIGFS.glob(f"core/user_*/{name}/wwn/vpd_unit_serial")).read_text()
    serial = text.rpartition(": ")[2].strip()
    wait_until(lambda: find_disk(serial) != "")
    disk = f"/dev/{find_disk(serial)}"
    wait_until(lambda: run("blockdev", "--getsize64", disk).strip() == str(size))
    return disk


def create(folder: Path) -> None:
    open_image(None, writable=True, upper_dir=folder / "disk", size=SIZE).close()
    done(BACKSTORES, "create", "web", "64M", folder / "disk/config.v1.json")
    done("/loopback", "create", Path(PORT).name)
    done(f"{PORT}/luns", "create", f"{BACKSTORES}/web")
    disk = disk_of("web", SIZE)
    run("mkfs.ext4", "-q", disk)
    done(f"{BACKSTORES}/web", "set", "attribute", f"dev_size={LARGER}", "emulate_write_cache=1")
    disk_of("web", LARGER)
    run("mount", disk, POINT)
    (POINT / "file").write_text(TEXT)
    run("umount", POINT)
    done("saveconfig")
    done("clearconfig", "confirm=True")


def restore() -> None:
    said = done("restoreconfig")
    print("restored:", said.replace("\n", " "), flush=True)
    run("mount", disk_of("web", LARGER), POINT)
    print("file:", (POINT / "file").read_text(), flush=True)
    run("umount", POINT)
    done("clearconfig", "confirm=True")


def main() -> None:
    folder = Path(sys.argv[2])
    daemon = start(folder)
    try:
        create(folder) if sys.argv[1] == "create" else restore()
    finally:
        print("daemon:", daemon.log(), flush=True)
        daemon.stop()
        run("umount", SAVED)
        run("umount", folder)


if __name__ == "__main__":
    main()
