"""What tests of several folders share: the reference vectors, the program, its exit code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tcmu_overlaybd.native.image import Image

# No deadlines: the machine does other things too.  OBD_SOAK=1 (make soak) tries more.
settings.register_profile("test", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("soak", settings.get_profile("test"), max_examples=2000)
settings.load_profile("soak" if os.environ.get("OBD_SOAK") == "1" else "test")

# Every test runs on the test build of the extension, unless the environment says otherwise;
# set before anything imports tcmu_overlaybd.native, which decides by this once.
os.environ.setdefault("TCMU_OVERLAYBD_TEST_BUILD", "1")

# Fixtures of more than one folder that deserve a file of their own.
pytest_plugins = ["tests.registry.fixtures"]

LATE_SIZE = 1 << 20

VECTORS = Path(__file__).parent / "golden" / "vectors"

Program = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the reference vectors, with the sparse ones as files with holes.

    Not to be changed by a test: that takes ``private_vectors``.
    """
    folder = tmp_path_factory.mktemp("vectors") / "vectors"
    return copy_vectors(folder)


@pytest.fixture
def private_vectors(tmp_path: Path) -> Path:
    """A copy of the vectors of the test's own."""
    return copy_vectors(tmp_path / "vectors")


def copy_vectors(folder: Path) -> Path:
    shutil.copytree(VECTORS, folder)
    subprocess.run(["tar", "-xSf", folder / "vectors-sparse.tar", "-C", folder], check=True)
    return folder


@pytest.fixture
def program() -> Program:
    """Runs ``tcmu-overlaybd`` with the arguments, as a process; gives what it printed and its code."""

    def run(
        *arguments: object, env: dict[str, str] | None = None, **more: object
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tcmu_overlaybd", *map(str, arguments)]
        environment = {**os.environ, **(env or {})}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, env=environment, **more
        )

    return run


@pytest.fixture
def fails(program: Program) -> Callable[..., str]:
    """Runs the program, which must fail with code and one sentence; gives the sentence."""

    def run(code: int, *arguments: object, **more: object) -> str:
        done = program(*arguments, **more)
        assert done.returncode == code, f"exit {done.returncode}: {done.stderr}"
        assert "Traceback" not in done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("tcmu-overlaybd: ")]
        assert len(lines) == 1, f"not one sentence but: {done.stderr}"
        return lines[0].removeprefix("tcmu-overlaybd: ")

    return run


@pytest.fixture
def late_image(tmp_path: Path) -> Iterator[Image]:
    """LATE_SIZE bytes of 0x5a. Its layer opens, and its data never comes."""
    from tcmu_overlaybd.image.importing import import_raw
    from tcmu_overlaybd.image.layer_file import read_layer_file
    from tcmu_overlaybd.image.layer_place import FilePlace
    from tcmu_overlaybd.image.layer_writer import LayerOptions
    from tcmu_overlaybd.native.image import Image, Layer
    from tcmu_overlaybd.native.source import DELAY_NEVER, Source

    raw, path = tmp_path / "raw", tmp_path / "layer"
    raw.write_bytes(b"\x5a" * LATE_SIZE)
    import_raw(raw, path, LayerOptions())
    trailer = read_layer_file(FilePlace(path)).trailer
    with (
        Source.open_file(str(path)) as file,
        Source.slow(file, chunk_size=4096, delay_ms=DELAY_NEVER, keep_ms=0) as slow,
    ):
        slow.set_late(False)
        with (
            Layer.open(
                slow,
                index_offset=trailer.index_offset,
                nr_entries=trailer.index_size,
                virtual_size=LATE_SIZE,
                timeout_ms=60_000,
            ) as layer,
            Image.open([layer], None, virtual_size=LATE_SIZE, name="late") as image,
        ):
            slow.set_late(True)
            yield image
