"""The end of a service over NBD when something waits for data that never comes."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tcmu_overlaybd.config.image_config import ImageConfig
from tcmu_overlaybd.errors import BusyError
from tcmu_overlaybd.image.open import OpenImage, open_image
from tcmu_overlaybd.native.image import Image
from tcmu_overlaybd.nbd import service
from tcmu_overlaybd.nbd.server import Server
from tests.nbd import raw_client

ESHUTDOWN = 108


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture
def late(late_image: Image, path: Path) -> Iterator[Server]:
    opened = OpenImage(late_image, "late", ImageConfig(), [])
    with service.serve_image(opened, path, io_timeout_ms=600_000) as server:
        yield server


def test_parked_reads_end_as_cancelled_and_the_service_inside_its_deadline(
    late_image: Image, path: Path
) -> None:
    opened = OpenImage(late_image, "late", ImageConfig(), [])
    with service.serve_image(opened, path, io_timeout_ms=600_000):
        client = raw_client.shake_hands(path)
        for cookie in range(8):
            raw_client.ask(client, raw_client.READ, cookie, cookie * 4096, 4096)
        time.sleep(0.2)
        started = time.monotonic()
    assert time.monotonic() - started < service.GRACE_SECONDS + service.STOP_SECONDS
    errors = [struct.unpack(">4xIQ", raw_client.receive(client, 16)) for _ in range(8)]
    assert sorted(errors) == [(ESHUTDOWN, cookie) for cookie in range(8)]
    client.close()
    assert not path.exists()


def test_parked_reads_of_one_client_do_not_keep_another_from_connecting(late: Server, path: Path) -> None:
    waiting = raw_client.shake_hands(path)
    raw_client.ask(waiting, raw_client.READ, 1, 0, 4096)
    other = raw_client.shake_hands(path)
    other.close()
    waiting.close()


def test_a_second_service_on_the_same_path_is_busy_and_changes_nothing(
    late: Server, tmp_path: Path, path: Path
) -> None:
    opened = open_image(None, writable=True, upper_dir=tmp_path / "upper", size=1 << 20)
    with (
        pytest.raises(BusyError, match="another server listens"),
        service.serve_image(opened, path, io_timeout_ms=1),
    ):
        pytest.fail("it must not begin")
    assert not (tmp_path / "upper").exists()
    raw_client.shake_hands(path).close()
