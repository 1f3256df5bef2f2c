"""The tar wrapper: the pax form as the reference writes it, Go's ustar form, hostile bytes.

Python's own tarfile is the second opinion.
"""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tcmu_overlaybd.errors import CorruptError, FormatError, OverlayBDError
from tcmu_overlaybd.formats import tar


def pax(payload: bytes) -> bytes:
    whole = tar.build_start(len(payload)) + payload
    return whole.ljust(tar.end_offset(tar.Payload(1536, len(payload), "pax")), b"\0") + bytes(tar.END_SIZE)


def ustar(payload: bytes, **fields: object) -> bytes:
    """As Go's archive/tar wraps a base layer."""
    info = tarfile.TarInfo("overlaybd.commit")
    info.size, info.mode = len(payload), 0o444
    for name, value in fields.items():
        setattr(info, name, value)
    header = info.tobuf(format=tarfile.USTAR_FORMAT)
    return header + payload + bytes(-len(payload) % 512) + bytes(1024)


@given(st.binary(max_size=3000))
@example(b"")
def test_pax_form_is_found_again_and_read_by_tarfile(payload):
    whole = pax(payload)
    if payload:
        found = tar.detect(whole[: tar.START_SIZE], len(whole), "x")
        assert found == tar.Payload(1536, len(payload), "pax")
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        member = archive.next()
        assert (member.name, member.size, member.uname) == ("overlaybd.commit", len(payload), "root")
        assert archive.extractfile(member).read() == payload
        assert archive.next() is None


@given(st.binary(min_size=1, max_size=3000), st.integers(0, 3))
def test_ustar_form_is_found_whatever_zero_blocks_follow(payload, nr_more):
    whole = ustar(payload) + bytes(512 * nr_more)
    found = tar.detect(whole[: tar.START_SIZE], len(whole), "x")
    assert found == tar.Payload(512, len(payload), "ustar")


@pytest.mark.parametrize("size", [1, 9, 10, 99, 100, 336464, 9999999, 99999999, 10**12, 2**62])
def test_pax_record_counts_its_own_length(size):
    record = tar.build_start(size)[512:1024].rstrip(b"\0")
    assert record.endswith(b" size=%d\n" % size)
    assert int(record.split(b" ")[0]) == len(record)


def test_pax_record_of_the_specification():
    assert tar.build_start(336464)[512:1024].rstrip(b"\0") == b"15 size=336464\n"


@pytest.mark.parametrize("data", [b"", b"x" * 511, bytes(512), b"LSMT" + bytes(600)])
def test_what_is_no_tar_is_none(data):
    assert tar.detect(data, len(data), "x") is None


def test_gnu_tar_is_no_tar_of_ours():
    info = tarfile.TarInfo("overlaybd.commit")
    data = info.tobuf(format=tarfile.GNU_FORMAT)
    assert tar.detect(data, len(data), "x") is None


def test_signed_checksums_of_old_tars_are_taken():
    whole = bytearray(ustar(b"x" * 600, uname="ü"))
    block = bytes(whole[:148]) + b" " * 8 + bytes(whole[156:512])
    signed = sum(byte - 256 if byte > 127 else byte for byte in block)
    whole[148:156] = b"%06o\0 " % signed
    assert tar.detect(bytes(whole[:1536]), len(whole), "x") == tar.Payload(512, 600, "ustar")


def test_a_payload_beyond_the_end_is_corrupt():
    whole = pax(b"x" * 5000)
    with pytest.raises(CorruptError, match=r"5000 bytes of payload at 1536 .* the file has 6000"):
        tar.detect(whole[:1536], 6000, "x")


def test_a_lost_end_mark_is_corrupt():
    whole = pax(b"x" * 5000)
    assert tar.detect(whole[:1536], len(whole), "x") is not None
    with pytest.raises(CorruptError, match="cut short"):
        tar.detect(whole[:1536], len(whole) - 1, "x")


def test_a_wrong_checksum_is_named_with_both_values():
    whole = bytearray(pax(b"x"))
    whole[1024] ^= 1
    with pytest.raises(CorruptError, match="tar file header: its checksum is"):
        tar.detect(bytes(whole[:1536]), len(whole), "x")


def test_an_unfinished_wrapper_says_so():
    start = b"overlaybd.pax".ljust(1024, b"\0") + b"overlaybd.new".ljust(512, b"\0")
    with pytest.raises(CorruptError, match="interrupted"):
        tar.detect(start, len(start), "x")


def test_a_tar_of_other_things_is_refused():
    whole = ustar(b"", type=tarfile.DIRTYPE)
    with pytest.raises(FormatError, match="entry type"):
        tar.detect(whole[:1536], len(whole), "x")


@given(st.binary(min_size=512, max_size=1600), st.integers(0, 2**40))
def test_hostile_headers_give_errors_of_ours_only(data, file_size):
    blank = bytearray(data)
    blank[257:265] = b"ustar\x0000"
    blank[148:156] = b" " * 8
    blank[148:156] = b"%6o \0" % sum(blank[:512])
    try:
        found = tar.detect(bytes(blank), file_size, "x")
    except OverlayBDError:
        return
    assert found is not None
    assert found.offset + found.size <= file_size


@given(st.binary(max_size=512))
@example(b"9 size=0\n")
@example(b"99999999999999999999 size=1\n")
@example(b"14 size=-5\n")
@example(b"29 size=99999999999999999999\n")
def test_hostile_pax_records_give_errors_of_ours_only(records):
    whole = bytearray(tar.build_start(7))
    whole[512:1024] = records.ljust(512, b"\0")
    whole[124:136] = b"%11o " % len(records)
    whole[148:156] = b" " * 8
    whole[148:156] = b"%6o \0" % sum(whole[:512])
    try:
        found = tar.detect(bytes(whole), 1 << 30, "x")
    except OverlayBDError:
        return
    assert found is not None
    assert 0 <= found.size <= (1 << 30) - 1536
