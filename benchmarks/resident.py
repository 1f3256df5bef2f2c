"""Resident memory of a process that serves one idle device of a 10-layer image.

Here it is ``tcmu-overlaybd nbd``: the same core, image and command line as the daemon's,
without a kernel that has TCMU.  The daemon itself is measured in the VM (guest.py).
"""

import re
import subprocess
import sys
from pathlib import Path

from benchmarks import images
from benchmarks.opening import scattered_layer
from benchmarks.pairs import Result, limit

NR_LAYERS = 10
LIMIT_MB = 60.0


def idle_device(folder: Path) -> Result:
    layers = [images.layer(folder, None)] + [scattered_layer(folder, i) for i in range(NR_LAYERS - 1)]
    config = images.config_file(folder, "ten", layers)
    socket = folder / "idle.sock"
    command = [sys.executable, "-m", "tcmu_overlaybd", "nbd", str(config), "--socket", str(socket)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if not process.stdout or not process.stdout.readline():
                raise RuntimeError("the server did not start")
            resident = resident_mb(process.pid)
        finally:
            process.terminate()
    return limit("resident memory, one idle 10-layer device", [resident], unit="MB", at_most=LIMIT_MB)


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    if found is None:
        raise RuntimeError(f"process {pid} has no VmRSS")
    return int(found[1]) / 1e3
