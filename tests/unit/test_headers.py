"""Every C header can be included alone, and the one Python reads holds only what cffi reads."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
HEADERS = sorted(str(p.relative_to(CSRC)) for p in CSRC.rglob("*.h"))


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
@pytest.mark.parametrize("build", [[], ["-DOBD_TEST_BUILD"]], ids=["release", "test"])
@pytest.mark.parametrize("header", HEADERS)
def test_header_compiles_alone_and_twice(header: str, build: list[str]) -> None:
    source = f'#include "{header}"\n#include "{header}"\n'
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{CSRC}", *build]
    result = subprocess.run(
        [str(COMPILER), *flags, "-x", "c", "-"], input=source, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("header", HEADERS)
def test_header_opens_with_what_it_is_and_its_licence(header: str) -> None:
    text = (CSRC / header).read_text(encoding="utf-8")
    comment, end, _ = text.partition("*/")
    assert end
    assert re.match(r"/\* [a-z_0-9]+: ", comment)
    assert "SPDX-License-Identifier: Apache-2.0" in comment
