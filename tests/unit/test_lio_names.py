"""Names that the kernel sees: config strings, serial numbers, ports."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmu_overlaybd.errors import FormatError, UsageError
from tcmu_overlaybd.lio.backstore import check_name, serial_number
from tcmu_overlaybd.lio.config_string import FORBIDDEN, ConfigString
from tcmu_overlaybd.lio.fabric import FabricKind, LoopbackPort, choose_fabric

text = st.text(st.characters(codec="utf-8", exclude_characters=sorted(FORBIDDEN)), max_size=25)


def test_config_string_of_the_reference_gives_path_and_device_id():
    parsed = ConfigString.parse("overlaybd//var/lib/x/config.v1.json;dev7")
    assert parsed == ConfigString(Path("/var/lib/x/config.v1.json"), "dev7")


def test_config_string_without_device_id():
    assert ConfigString.parse("overlaybd//a/b") == ConfigString(Path("/a/b"), "")


def test_config_string_path_ends_at_the_first_semicolon():
    assert ConfigString.parse("overlaybd//a;b;c") == ConfigString(Path("/a"), "b;c")


@pytest.mark.parametrize(
    "wrong", ["", "overlaybd", "overlaybd/", "overlaybd/;x", "other//a", "overlaybd2//a"]
)
def test_config_string_that_is_none_is_a_format_error(wrong):
    with pytest.raises(FormatError, match="config string"):
        ConfigString.parse(wrong)


@given(path=text.map(lambda t: Path("/", t.replace("/", "_"))), device_id=text)
def test_config_string_is_parsed_back(path, device_id):
    config = ConfigString(path, device_id)
    assert ConfigString.parse(config.format()) == config


def test_config_string_longer_than_the_kernel_keeps_is_refused():
    ConfigString(Path("/" + "x" * 240), "abc").format()
    with pytest.raises(UsageError, match="longer than the kernel's 255 bytes"):
        ConfigString(Path("/" + "x" * 240), "abcde").format()


@pytest.mark.parametrize("character", sorted(FORBIDDEN))
def test_config_string_refuses_what_the_kernel_would_split(character):
    with pytest.raises(UsageError, match="cannot stand"):
        ConfigString(Path(f"/a{character}b"), "x").format()


@pytest.mark.parametrize("name", ["a", "disk0", "A.b_c-d", "x" * 48])
def test_name_of_a_device_is_accepted(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "-x", "a/b", "a b", "a;b", "a\n", "x" * 49, "ü"])
def test_name_that_would_break_a_path_is_refused(name):
    with pytest.raises(UsageError, match="device name"):
        check_name(name)


def test_serial_number_is_stable_and_differs_by_name_and_machine():
    assert serial_number("machine", "a") == serial_number("machine", "a")
    assert len({serial_number(machine, name) for machine in "MN" for name in "ab"}) == 4
    assert len(serial_number("machine", "a")) == 32


def test_port_and_nexus_have_different_names_of_16_digits():
    port = LoopbackPort.of_serial("0123")
    assert port.port != port.nexus
    for name in (port.port, port.nexus):
        kind, _, digits = name.partition(".")
        assert kind == "naa"
        assert len(bytes.fromhex(digits)) == 8
        assert digits.startswith("5001405")


def test_fabric_is_chosen_by_name():
    assert choose_fabric("loopback") is FabricKind.LOOPBACK
    assert choose_fabric("iscsi") is FabricKind.ISCSI
    with pytest.raises(UsageError, match="one of"):
        choose_fabric("fibre")
