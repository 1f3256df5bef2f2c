"""What of a device may be changed through LIO's attributes, and which images may grow."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tcmu_overlaybd.config.service_config import DeviceConfig
from tcmu_overlaybd.daemon.device import Device
from tcmu_overlaybd.daemon.resize import judge
from tcmu_overlaybd.daemon.served_image import ServedImage
from tcmu_overlaybd.daemon.state import Record
from tcmu_overlaybd.errors import BusyError, ReadOnlyError, RefusedError, UsageError
from tcmu_overlaybd.image.info import image_info
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.native.core import Core
from tcmu_overlaybd.native.hub import ConfigChange, HubDevice, SizeChange, WriteCacheChange

SIZE = 1 << 20
CONFIG = "overlaybd//var/lib/x.json;d"


@pytest.fixture
def core():
    with Core.open() as core:
        yield core


def serve(core: Core, **options: object) -> ServedImage:
    return ServedImage(open_image(name="d", **options), core, "d", DeviceConfig())


def serve_new(core: Core, folder: Path, **options: object) -> ServedImage:
    return serve(core, source=None, writable=True, upper_dir=folder / "upper", size=SIZE, **options)


@pytest.fixture(params=[False, True], ids=["append", "sparse"])
def served(core, tmp_path, request):
    served = serve_new(core, tmp_path, sparse=request.param)
    yield served
    served.close(10)


@pytest.fixture
def device(served):
    record = Record("d", "d", "/var/lib/x.json", SIZE, "ab", "user_2026", "attached", writable=True)
    return Device(record, "ready", served=served, hub_device=HubDevice(1, 3, "uio0", CONFIG))


def test_what_changes_nothing_is_agreed_to(device):
    """A configuration that is restored writes every attribute as it is."""
    for change in (
        SizeChange(SIZE),
        ConfigChange(CONFIG),
        ConfigChange(f"{CONFIG}\n"),
        WriteCacheChange(True),
        WriteCacheChange(False),
    ):
        assert judge(device, change) == 0


def test_another_configuration_is_refused_by_both_names(device):
    with pytest.raises(RefusedError, match="overlaybd//other") as refused:
        judge(device, ConfigChange("overlaybd//other"))
    assert CONFIG in str(refused.value)


def test_growth_is_agreed_to_and_shrinking_or_part_of_a_sector_is_not(device):
    assert judge(device, SizeChange(2 * SIZE)) == 2 * SIZE
    for size, sentence in ((SIZE - 512, "does not shrink"), (SIZE + 1, "whole sectors"), (1 << 62, "whole")):
        with pytest.raises(RefusedError, match=sentence):
            judge(device, SizeChange(size))


def test_size_stays_while_the_image_is_not_open(device):
    device.served = None
    with pytest.raises(RefusedError, match="not open") as refused:
        judge(device, SizeChange(2 * SIZE))
    assert refused.value.error == errno.EBUSY
    assert judge(device, SizeChange(SIZE)) == 0


def test_served_image_grows_and_its_files_say_so(served):
    served.grow(4 * SIZE)
    served.grow(4 * SIZE)
    assert served.size == served.opened.upper.virtual_size == 4 * SIZE
    with pytest.raises(UsageError, match="does not shrink"):
        served.grow(SIZE)
    assert image_info(served.opened.config)["virtual_size"] == 4 * SIZE


def test_image_that_is_being_closed_does_not_grow(core, tmp_path):
    served = serve_new(core, tmp_path)
    served.close(10)
    with pytest.raises(BusyError, match="being detached"):
        served.grow(2 * SIZE)


def test_read_only_image_does_not_grow(core, tmp_path):
    serve_new(core, tmp_path).close(10)
    reader = serve(core, source=tmp_path / "upper/config.v1.json")
    with pytest.raises(ReadOnlyError, match="read-only"):
        reader.grow(2 * SIZE)
    reader.close(10)
