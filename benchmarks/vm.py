"""The figures that need a kernel with TCMU: guest.py, in the VM or, where root has one, right here."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import images
from benchmarks.opening import scattered_layer
from benchmarks.pairs import Result
from benchmarks.resident import NR_LAYERS

ROOT = Path(__file__).parents[1]
VM_DISK_BYTES = 64 << 20  # it lies in the guest's memory, twice
VM_SECONDS = 900


def has_own_kernel() -> bool:
    return os.geteuid() == 0 and Path("/sys/module/target_core_user").exists()


def can_run() -> bool:
    return has_own_kernel() or shutil.which("linux.uml") is not None


def measure(out: Path, nr_pairs: int) -> Iterator[Result]:
    """The guest's figures, as it prints them."""
    with subprocess.Popen(_command(out, nr_pairs), stdout=subprocess.PIPE, text=True, cwd=ROOT) as guest:
        for line in guest.stdout or ():
            if line.startswith("{"):
                yield Result(**{**json.loads(line)})
            else:
                print(line, end="", file=sys.stderr)
    if guest.returncode != 0:
        raise RuntimeError(f"the guest ended with {guest.returncode}")


def _command(out: Path, nr_pairs: int) -> list[str]:
    folder = (out / "images").resolve()
    raw = _small_disk(folder)
    ten = [images.layer(folder, None)] + [scattered_layer(folder, i) for i in range(NR_LAYERS - 1)]
    guest = [sys.executable, "-m", "benchmarks.guest", "--pairs", str(nr_pairs)]
    guest += ["--bare", str((out / "bare_handler").resolve()), "--raw", str(raw)]
    guest += ["--layer", str(images.layer_of(raw, folder / "layer-vm", None)), "--ten", *map(str, ten)]
    if has_own_kernel():
        return guest
    return ["vagrant/umlrun", "-m", "2G", "-t", str(VM_SECONDS), "-w", str(out.resolve()), "--", *guest]


def _small_disk(folder: Path) -> Path:
    path = folder / "vm.raw"
    if not path.exists():
        with images.raw_disk(folder).open("rb") as disk:
            path.write_bytes(disk.read(VM_DISK_BYTES))
    return path
