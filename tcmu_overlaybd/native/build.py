"""Describes the C extension to cffi: one header is both compiled and parsed.

``release`` and ``test`` are what setup.py names in ``cffi_modules``; they differ
in OBD_TEST_BUILD only.  The declarations come from csrc/obd.h, between its two
markers, and from csrc/front/hub.h, so Python's view cannot drift from C's.
"""

import os
from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).resolve().parents[2] / "csrc"

# Everything that is compiled into the extension; the helper is a program of its own.
PARTS = ("base", "index", "codec", "source", "cache", "image", "command", "front", "api")

# What libtcmu calls, by way of struct obd_hub_params (native/hub.py).
CALLBACKS = """
extern "Python" int hub_added(void *context, struct obd_hub_device *device);
extern "Python" void hub_removed(void *context, void *handle);
extern "Python" int hub_reconfig(void *context, void *handle, int change, uint64_t value, const char *text);
"""


def declarations(header: Path) -> str:
    """The text between the "cffi: begin" and "cffi: end" markers of header."""
    text = header.read_text(encoding="utf-8")
    _, _, rest = text.partition("/* cffi: begin */")
    wanted, end, _ = rest.partition("/* cffi: end */")
    if not end:
        raise ValueError(f"{header}: the cffi markers are missing")
    return wanted


def c_sources() -> list[str]:
    root = CSRC.parent
    return sorted(str(p.relative_to(root)) for part in PARTS for p in (CSRC / part).glob("*.c"))


def builder(name: str, *, test_build: bool) -> FFI:
    ffi = FFI()
    ffi.cdef(declarations(CSRC / "obd.h"))
    ffi.cdef(declarations(CSRC / "front" / "hub.h"))
    ffi.cdef(CALLBACKS)
    arguments = ["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-fvisibility=hidden", "-pthread"]
    if os.environ.get("OBD_WERROR") == "1":
        arguments.append("-Werror")
    ffi.set_source(
        f"tcmu_overlaybd.native.{name}",
        '#include "obd.h"\n#include "front/hub.h"\n',
        sources=c_sources(),
        include_dirs=["csrc"],
        libraries=["lz4", "zstd", "curl", "dl"],
        extra_compile_args=arguments,
        extra_link_args=["-pthread"],
        define_macros=[("OBD_TEST_BUILD", "1")] if test_build else [],
        undef_macros=["NDEBUG"] if test_build else [],  # asserts are on where tests run
        py_limited_api=True,
    )
    return ffi


release = builder("_obd", test_build=False)
test = builder("_obd_test", test_build=True)
