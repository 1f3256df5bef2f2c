"""Dependencies point one way (docs/architecture.rst): proved by reading every include and import."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "tcmu_overlaybd"

# What a part may use besides itself.  obd.h, which only declares, is everybody's.
C_MAY_USE = {
    "base": set(),
    "codec": {"base"},
    "index": {"base"},
    "source": {"base", "codec", "index"},
    "cache": {"base", "codec", "index", "source"},
    "image": {"base", "codec", "index", "source"},
    "command": {"base", "codec", "index", "source", "image"},
    "front": {"base", "codec", "index", "source", "image", "command"},
    "api": {"base", "codec", "index", "source", "cache", "image", "command", "front"},
    "helper": {"base"},  # a program of its own
}

LOWEST = {"errors"}
MIDDLE = LOWEST | {"native", "formats", "config", "scsi"}
PYTHON_MAY_USE = {
    "errors": set(),
    "native": LOWEST,
    "formats": LOWEST,
    "config": LOWEST,
    "scsi": LOWEST,
    "metrics": LOWEST | {"native"},
    "registry": LOWEST | {"config"},
    "remote": (MIDDLE - {"scsi"}) | {"registry"},
    "image": (MIDDLE - {"scsi"}) | {"registry", "remote"},
    "lio": MIDDLE,
    "nbd": MIDDLE | {"image", "lio", "logs", "metrics", "remote"},
    "logs": LOWEST | {"config", "native"},
    "daemon": MIDDLE | {"image", "lio", "logs", "metrics", "nbd", "registry", "remote"},
    "cli": MIDDLE | {"image", "lio", "logs", "metrics", "nbd", "daemon", "registry", "remote"},
    "__main__": {"cli"},
}

# The whole of what each may see of what lies outside its own part.
BOUNDARIES = [
    # (what is looked for in the text, files it is looked for in, folders that may have it)
    (r"/sys/kernel/config", "*.py", {"lio"}),
    (r"\blib\.obd_|\bffi\.new\b", "*.py", {"native"}),
]


def c_files() -> list[Path]:
    return sorted([*CSRC.glob("*/*.c"), *CSRC.glob("*/*.h")])


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def python_part(path: Path) -> str:
    """The folder below the package, or the name of a module that lies in the package itself."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def included_parts(path: Path) -> set[str]:
    names = re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
    for name in names:
        assert (CSRC / name).is_file(), f"{relative(path)} includes {name} by another path than its own"
    return {name.split("/")[0] for name in names if "/" in name}


def imported_modules(path: Path) -> set[str]:
    """Dotted names below tcmu_overlaybd, wherever in the file they are imported."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)} has a relative import, which this test cannot follow"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("tcmu_overlaybd.") for name in found if name.startswith("tcmu_overlaybd.")}


def imported_parts(path: Path) -> set[str]:
    parts = {module.split(".")[0] for module in imported_modules(path)}
    return {part for part in parts if (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file()}


@pytest.mark.parametrize("path", c_files(), ids=relative)
def test_c_includes_only_what_lies_below(path: Path) -> None:
    part = path.parent.name
    assert included_parts(path) - {part} <= C_MAY_USE[part]


@pytest.mark.parametrize("path", python_files(), ids=relative)
def test_python_imports_only_what_lies_below(path: Path) -> None:
    part = python_part(path)
    if part == "__init__":
        assert not imported_parts(path), "importing the package must not load anything"
        return
    assert imported_parts(path) - {part} <= PYTHON_MAY_USE[part]


def test_every_part_has_a_place_in_the_order() -> None:
    assert {path.parent.name for path in c_files()} <= C_MAY_USE.keys()
    assert {python_part(path) for path in python_files()} - {"__init__"} <= PYTHON_MAY_USE.keys()


@pytest.mark.parametrize("rules", [C_MAY_USE, PYTHON_MAY_USE], ids=["C", "Python"])
def test_the_order_has_no_circle(rules: dict[str, set[str]]) -> None:
    for part, below in rules.items():
        assert part not in below
        for lower in below:
            assert part not in rules[lower], f"{part} and {lower} use each other"


def test_only_native_imports_the_extension() -> None:
    users = {relative(p) for p in python_files() for m in imported_modules(p) if "_obd" in m}
    assert users == {"tcmu_overlaybd/native/_binding.py"}


@pytest.mark.parametrize(("pattern", "files", "allowed"), BOUNDARIES, ids=[row[0] for row in BOUNDARIES])
def test_only_one_part_touches(pattern: str, files: str, allowed: set[str]) -> None:
    users = {
        relative(path)
        for path in PACKAGE.rglob(files)
        if re.search(pattern, path.read_text(encoding="utf-8")) and python_part(path) not in allowed
    }
    assert not users


def test_only_the_fronts_know_a_transport() -> None:
    knowing = {
        path.parent.name
        for path in c_files()
        if re.search(r"linux/target_core_user\.h|linux/nbd\.h|libtcmu", path.read_text(encoding="utf-8"))
    }
    assert knowing <= {"front"}


def test_no_file_of_the_tests_hides_another_or_one_of_python_s():
    """pytest puts each folder of tests in front of the module search."""
    names = Counter(path.stem for path in (ROOT / "tests").rglob("*.py"))
    del names["__init__"], names["conftest"]
    assert [name for name, times in names.items() if times > 1] == []
    assert names.keys() & sys.stdlib_module_names == set()
