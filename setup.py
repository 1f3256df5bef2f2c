"""Builds the C parts: the cffi extension (abi3) and the LIO helper program.

Everything else about the package is in pyproject.toml.  The test build of the
extension (``_obd_test``, with the hooks of csrc/base/hook.h and the fault layers)
and of the helper is made beside the normal one when OBD_TEST_BUILD=1 is in the environment; it is
never part of a wheel made without that.
"""

import os
import shlex
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
HELPER = "tcmu_overlaybd/lio/obd-lio-helper"
TEST_HELPER = f"{HELPER}-test"
TEST_BUILD = os.environ.get("OBD_TEST_BUILD") == "1"
HELPER_SOURCES = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc" / "helper").glob("*.c"))

# Where libobd's C meets Python: one description, compiled once or twice.
CFFI_MODULES = ["tcmu_overlaybd/native/build.py:release"]
if TEST_BUILD:
    CFFI_MODULES.append("tcmu_overlaybd/native/build.py:test")


class BuildExtAndHelper(build_ext):
    """Compiles the helper after the extensions, next to where they go."""

    def run(self) -> None:
        super().run()
        self.build_program(HELPER)
        if TEST_BUILD:
            self.build_program(TEST_HELPER, "-DOBD_TEST_BUILD=1", "-pthread", "csrc/base/hook.c")

    def build_program(self, name: str, *more: str) -> None:
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        target = ROOT / name if self.inplace else Path(self.build_lib) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        flags = ["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Icsrc"]
        self.spawn([*compiler, *flags, "-o", str(target), *more, *HELPER_SOURCES])

    def get_outputs(self) -> list[str]:
        programs = [HELPER, TEST_HELPER] if TEST_BUILD else [HELPER]
        return [*super().get_outputs(), *(str(Path(self.build_lib) / name) for name in programs)]


class Abi3Wheel(bdist_wheel):
    """One wheel serves every CPython from 3.11 on."""

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        return ("cp311", "abi3", platform) if python.startswith("cp") else (python, abi, platform)


setup(cffi_modules=CFFI_MODULES, cmdclass={"build_ext": BuildExtAndHelper, "bdist_wheel": Abi3Wheel})
