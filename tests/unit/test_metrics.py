"""The metrics as text: strict parsers take them, names are documented, labels are bounded."""

from __future__ import annotations

import re
import urllib.error
from pathlib import Path

import msgspec
import pytest

from tcmu_overlaybd.config.service_config import ExporterConfig, ServiceConfig, load_service_config
from tcmu_overlaybd.daemon.messages import CacheStatus, DeviceState, DeviceStatus
from tcmu_overlaybd.daemon.metrics_server import MetricsServer, parse_address
from tcmu_overlaybd.errors import FailedError, UsageError
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.metrics.exposition import Exposition
from tcmu_overlaybd.metrics.families import DEVICE_STATES, FAMILIES
from tcmu_overlaybd.metrics.readings import DeviceReading, DownloadReading, LogReading, Readings
from tcmu_overlaybd.native import mem
from tcmu_overlaybd.native.cache import CacheStats
from tcmu_overlaybd.native.core import Core, Device
from tcmu_overlaybd.native.fetcher import FetcherStats, HostTraffic
from tcmu_overlaybd.native.tcmu import RingStats
from tests import scrape

OPERATIONS = Path(__file__).parents[2] / "docs/operations.rst"
LOG = LogReading({"info": 3, "error": 0}, 2, 1)
HOSTS = {"": HostTraffic(1, 2, 3, 4), "registry.example:443": HostTraffic(5, 6, 7, 8)}


@pytest.fixture
def device(tmp_path):
    with (
        Core.open() as core,
        open_image(None, writable=True, upper_dir=tmp_path / "upper", size=1 << 20) as opened,
        Device.open(core, opened.image, name="d") as device,
    ):
        mem.write(device, bytes(4096), 0)
        mem.write(device, bytes(512), 512, fua=True)
        mem.read(device, 8192, 0)
        mem.discard(device, 512, 0)
        mem.flush(device)
        yield device, opened.image


def readings(device, image) -> Readings:
    """With something in every part."""
    reading = DeviceReading(
        'of "quotes"\\',
        "ready",
        1 << 20,
        device.stats(),
        device.latency(),
        image.upper_stats(),
        RingStats(9, 1, 0, 4, False),
        DownloadReading(100, 50),
    )
    return Readings(
        version="1",
        is_test_build=True,
        started=1.5,
        log=LOG,
        devices=[reading, DeviceReading("e", "opening")],
        cache=CacheStats(100, 50, 2, 1, 0, 0, 70, 7),
        fetcher=FetcherStats(HOSTS, {"timeout": 3}),
    )


@pytest.fixture
def exposition(device):
    return Exposition(lambda: readings(*device))


def test_both_formats_are_what_strict_parsers_take(exposition):
    content_type, body = exposition.render(scrape.OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    scrape.check_openmetrics(body.decode())
    content_type, body = exposition.render()
    assert content_type.startswith("text/plain")
    found = scrape.check_text(body.decode())
    assert found.value("registry_failed_requests_total", host="other") == 4
    assert found.value("devices", state="opening") == 1
    assert found.value("cache_hits_total") == 70


def test_the_sums_are_those_of_the_commands(exposition):
    found = scrape.check_text(exposition.render()[1].decode())
    device = 'of "quotes"\\'
    by_kind = {"read": 1, "write": 2, "discard": 1, "flush": 1}
    for kind, number in by_kind.items():
        assert found.sum("command_duration_seconds_count", device=device, command=kind) == number
    assert found.value("command_bytes_total", device=device, command="write") == 4608
    assert found.value("command_bytes_total", device=device, command="read") == 8192
    assert found.value("read_bytes_total", device=device, source="upper") == 4096
    assert found.sum("read_bytes_total", device=device) == 8192
    assert found.value("upper_flush_requests_total", device=device) == 2
    assert found.sum("command_errors_total") == 0


def test_every_family_has_series_when_every_part_is_there(device):
    """So that a row whose values never come would be seen."""
    assert [f.name for f in FAMILIES if not list(f.samples(readings(*device)))] == [
        "tcmu_overlaybd_command_errors_total"
    ]


def test_a_process_without_devices_is_scraped_too():
    found = scrape.check_text(Exposition(lambda: Readings("1", False, 1.5, LOG)).render()[1].decode())
    assert found.value("build_info", version="1", build="release") == 1
    assert found.sum("devices") == 0


# ---- what the documentation says


def documented(section: str) -> str:
    """From its heading to the next."""
    lines = OPERATIONS.read_text().splitlines()
    heads = [i for i, line in enumerate(lines) if re.fullmatch("-{4,}", line)]
    begin = next(i for i in heads if lines[i - 1] == section)
    end = next((i - 1 for i in heads if i > begin), len(lines))
    return "\n".join(lines[begin + 1 : end])


def test_operations_rst_names_every_metric_and_no_other():
    names = re.findall(r"^``(tcmu_overlaybd_)?([a-z_]+)``  ", documented("Metrics"), re.MULTILINE)
    assert sorted(f"tcmu_overlaybd_{name}" for _, name in names) == sorted(f.name for f in FAMILIES)


def words_of(text: str) -> set[str]:
    return set(re.findall(r"``([a-z_]+)``", text))


@pytest.mark.parametrize("kind", [DeviceStatus, CacheStatus])
def test_operations_rst_explains_every_field_of_status(kind):
    said = words_of(documented("JSON"))
    assert {field.encode_name for field in msgspec.structs.fields(kind)} <= said


def test_operations_rst_explains_no_field_that_status_has_not():
    table = documented("JSON").partition("\n====")[2].partition("\n\n")[0]
    keys = set(re.findall(r"^``([a-z_]+)``  ", table, re.MULTILINE))
    assert keys <= {field.encode_name for field in msgspec.structs.fields(DeviceStatus)}


def test_states_are_those_of_a_device():
    assert set(DEVICE_STATES) == set(DeviceState.__args__)


# ---- on a port


def test_a_port_serves_them_at_one_path_and_on_this_machine_only(exposition):
    with MetricsServer(ExporterConfig(port=0), exposition) as server:
        url = f"http://127.0.0.1:{server.port}"
        assert scrape.scrape(f"{url}/metrics").sum("devices") == 2
        assert scrape.get(f"{url}/metrics?x=1")
        assert server.server_address[0] == "127.0.0.1"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            scrape.get(f"{url}/metricsx")
        with pytest.raises(FailedError, match="cannot serve metrics there: Address already in use"):
            MetricsServer(ExporterConfig(port=server.port), exposition)


def test_addresses_are_understood():
    assert parse_address("9863") == ExporterConfig(True, port=9863)
    assert parse_address("0.0.0.0:1") == ExporterConfig(True, port=1, address="0.0.0.0")
    assert parse_address("[::1]:80").address == "::1"
    for text in ("", "x", "localhost", "1.2.3.4:", "1.2.3.4:99999"):
        with pytest.raises(UsageError, match="no ADDRESS:PORT"):
            parse_address(text)


def test_the_reference_s_exporter_keys_are_heard(tmp_path):
    file = tmp_path / "overlaybd.json"
    file.write_text(
        '{"exporterConfig": {"enable": true, "uriPrefix": "/m", "port": 1, "updateInterval": 60}}'
    )
    assert load_service_config(file).exporter_config == ExporterConfig(True, "/m", 1, "127.0.0.1")
    assert not ServiceConfig().exporter_config.enable
