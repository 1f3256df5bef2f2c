"""The hub against a libtcmu of our own that calls back as the real one does, and without any."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

# The public ABI that csrc/front/hub.c relies on; says what the callbacks returned.
FAKE_LIBTCMU = r"""
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct device { const char *config; };
struct change { int kind; union { uint64_t size; char *config; bool write_cache; } value; };
struct handler {
    const char *name, *subtype, *description; void *context;
    bool (*check)(const char *, char **); int (*reconfig)(struct device *, struct change *);
    bool (*log)(void); int (*added)(struct device *); void (*removed)(struct device *);
    void *private_data, *connection;
};
static struct handler *handler;
static struct device devices[] = {
    {"overlaybd//one"}, {"over//two"}, {"overlaybd//refused"}, {"overlaybd//bad"}};
static int fds[2];

void *tcmulib_initialize(struct handler *handlers, size_t nr)
{
    handler = handlers;
    if (getenv("FAKE_NO_MODULE") || pipe(fds) != 0 || write(fds[1], "x", 1) != 1)
        return NULL;
    printf("%s %s %zu\n", handler->subtype, handler->description, nr);
    for (int i = 0; i < 4; i++)
        printf("added %s: %d\n", devices[i].config, handler->added(&devices[i]));
    return &fds;
}

int tcmulib_get_master_fd(void *context) { return ((int *)context)[0]; }

int tcmulib_master_fd_ready(void *context)
{
    struct change size = {1, {.size = 4096}};
    struct change config = {0, {.config = "new"}};
    struct change cache = {2, {.write_cache = true}};
    (void)context;
    printf("size: %d\n", handler->reconfig(&devices[0], &size));
    printf("config: %d\n", handler->reconfig(&devices[0], &config));
    printf("cache: %d\n", handler->reconfig(&devices[0], &cache));
    handler->removed(&devices[0]);
    fflush(stdout);
    return -31; /* as the real one about another daemon's device */
}

int tcmu_dev_get_fd(struct device *device) { return 100 + (int)(device - devices); }
const char *tcmu_dev_get_uio_name(struct device *device) { (void)device; return "uio7"; }
const char *tcmu_dev_get_cfgstring(struct device *device) { return device->config; }
"""

SCRIPT = """
import errno, select, sys
from tcmu_overlaybd.errors import OverlayBDError, RefusedError
from tcmu_overlaybd.native.hub import ConfigChange, LibtcmuHub, SizeChange

class Listener:
    def added(self, device):
        print("listener", device.config, device.fd, device.uio_name, flush=True)
        self.first = getattr(self, "first", device.handle)
        if device.config.endswith("refused"):
            raise RefusedError("no", errno.ENODEV)
        if device.config.endswith("bad"):
            raise ZeroDivisionError("ours")

    def removed(self, handle):
        print("removed", handle == self.first, flush=True)
        raise ValueError("too late to refuse")

    def reconfig(self, handle, change):
        print(change, handle == self.first, flush=True)
        if not isinstance(change, SizeChange):
            raise RefusedError("no", errno.EOPNOTSUPP)

try:
    hub = LibtcmuHub("overlaybd", "what we are", Listener())
except OverlayBDError as error:
    sys.exit(f"{type(error).__name__}: {error}")
assert select.select([hub], [], [], 10)[0]
hub.ready()
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with our libtcmu.so.2."""
    folder = tmp_path_factory.mktemp("libtcmu")
    (folder / "fake.c").write_text(FAKE_LIBTCMU)
    target = folder / "libtcmu.so.2"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", target, folder / "fake.c"], check=True)
    return folder


def run_hub(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "LD_LIBRARY_PATH": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_devices_of_the_subtype_are_told_and_refusals_travel_back(library: Path) -> None:
    done = run_hub(library)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "overlaybd what we are 1" in lines
    assert "listener overlaybd//one 100 uio7" in lines
    assert "added overlaybd//one: 0" in lines
    assert f"added overlaybd//refused: {-errno.ENODEV}" in lines


def test_a_config_string_that_only_begins_like_the_subtype_is_not_ours(library: Path) -> None:
    """libtcmu compares no further than the slash, so "over/" would be a prefix of "overlaybd"."""
    lines = run_hub(library).stdout.splitlines()
    assert f"added over//two: {-errno.ENOENT}" in lines
    assert not any(line.startswith("listener over/") for line in lines)


def test_an_exception_in_a_listener_refuses_and_is_logged_with_its_traceback(library: Path) -> None:
    done = run_hub(library)
    assert f"added overlaybd//bad: {-errno.EINVAL}" in done.stdout.splitlines()
    assert "ZeroDivisionError: ours" in done.stderr
    assert "Traceback" in done.stderr


def test_changes_come_with_their_values_and_can_be_refused(library: Path) -> None:
    lines = run_hub(library).stdout.splitlines()
    assert "SizeChange(size=4096) True" in lines
    assert "size: 0" in lines
    assert "ConfigChange(config='new') True" in lines
    assert f"config: {-errno.EOPNOTSUPP}" in lines
    assert "WriteCacheChange(enabled=True) True" in lines


def test_a_failing_removal_and_a_foreign_device_do_not_end_the_hub(library: Path) -> None:
    done = run_hub(library)
    assert done.returncode == 0
    assert "removed True" in done.stdout.splitlines()
    assert "ValueError: too late to refuse" in done.stderr


def test_without_libtcmu_one_sentence_names_the_package(tmp_path: Path) -> None:
    (tmp_path / "libtcmu.so.2").write_bytes(b"")
    done = run_hub(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "UnavailableError: hub: libtcmu.so.2 cannot be loaded (Debian package libtcmu2)"
    )


def test_a_libtcmu_without_what_we_call_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.c").write_text("int nothing;")
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", tmp_path / "libtcmu.so.2", tmp_path / "empty.c"], check=True
    )
    assert "libtcmu.so.2 has no tcmulib_initialize" in run_hub(tmp_path).stderr


def test_without_the_kernel_module_the_sentence_says_so(library: Path) -> None:
    done = run_hub(library, FAKE_NO_MODULE="1")
    assert done.returncode == 1
    assert "is the module target_core_user loaded" in done.stderr
