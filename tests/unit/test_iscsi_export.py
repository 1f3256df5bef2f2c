"""What may be asked of an iSCSI export, before any kernel is."""

from __future__ import annotations

import msgspec
import pytest

from tcmu_overlaybd.config.decoding import decode_json
from tcmu_overlaybd.daemon.messages import AttachRequest
from tcmu_overlaybd.errors import UsageError
from tcmu_overlaybd.lio.iscsi import PASSWORD_LENGTH, Chap, IscsiTarget, Portal, check_initiator

GOOD = Chap("me", "correct-horse-battery")


def request(**options: object) -> AttachRequest:
    return AttachRequest(new=True, size=1 << 20, **{"fabric": "iscsi", **options})


@pytest.mark.parametrize(
    ("text", "portal"),
    [
        ("", "127.0.0.1:3260"),
        ("10.0.0.7", "10.0.0.7:3260"),
        ("10.0.0.7:3261", "10.0.0.7:3261"),
        ("::1", "[::1]:3260"),
        ("[fe80::1]:3261", "[fe80::1]:3261"),
        ("[::]", "[::]:3260"),
    ],
)
def test_portal_is_an_address_and_perhaps_a_port(text, portal):
    assert str(Portal.parse(text)) == portal
    assert Portal.parse(portal) == Portal.parse(text)


@pytest.mark.parametrize(
    "text", ["localhost", "10.0.0", "10.0.0.7:", "10.0.0.7:0", "10.0.0.7:65536", "1:2:3", "[10.0.0.7"]
)
def test_portal_that_is_no_address_is_refused(text):
    with pytest.raises(UsageError, match="portal"):
        Portal.parse(text)


@pytest.mark.parametrize("portal", ["0.0.0.0", "10.0.0.7", "[::]:3260"])
def test_export_without_chap_is_for_this_machine_only(portal):
    request(portal=portal).check()
    request(portal="127.0.0.2", no_chap=True).check()
    request(portal="::1", no_chap=True).check()
    with pytest.raises(UsageError, match="without CHAP anyone there has the disk"):
        request(portal=portal, no_chap=True).check()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"no_chap": True, "chap": GOOD}, "exclude each other"),
        ({"initiator": "me"}, "not an iSCSI name"),
        ({"chap": Chap("me", "short")}, "12 to 255"),
        ({"chap": Chap("me", "with blanks in it")}, "without blanks"),
        ({"chap": Chap("", GOOD.password)}, "the user's name"),
        ({"fabric": "loopback", "portal": "10.0.0.7"}, "for --fabric iscsi"),
        ({"fabric": "none", "no_chap": True}, "for --fabric iscsi"),
    ],
)
def test_export_that_is_impossible_or_weak_is_refused(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        request(**options).check()


def test_initiator_is_an_iscsi_name_or_nobody():
    for name in ("", "iqn.1993-08.org.debian:01:ab12", "eui.0123456789ABCDEF"):
        assert check_initiator(name) == name
    with pytest.raises(UsageError):
        check_initiator("iqn.1993-08.org.debian:01/../x")


def test_target_name_is_readable_and_unique_by_its_serial():
    portal = Portal.parse("")
    one = IscsiTarget.of_device("Web_1", "0123456789abcdef", portal)
    assert one.iqn == "iqn.2026-11.org.tcmu-overlaybd:web-1.01234567"
    assert one.iqn != IscsiTarget.of_device("web-1", "f123456789abcdef", portal).iqn


def test_password_shows_in_no_text_but_the_request():
    chap = Chap.parse(f"me:{GOOD.password}\n", "file")
    assert chap == GOOD
    assert GOOD.password not in f"{chap} {chap!r} {request(chap=chap)!r}"
    with pytest.raises(UsageError) as refused:
        Chap.parse(GOOD.password, "file")
    assert GOOD.password not in str(refused.value)
    assert decode_json(msgspec.json.encode(request(chap=chap)), AttachRequest).chap == chap


def test_password_made_up_is_one_that_every_initiator_takes():
    passwords = {Chap.generate("d").password for _ in range(20)}
    assert len(passwords) == 20
    for password in passwords:
        Chap("d", password).check()
        assert len(password) == PASSWORD_LENGTH
