"""Where a redirect may lead, and that a password stays behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmu_overlaybd.errors import UnavailableError
from tcmu_overlaybd.registry.redirects import redirect_url, redirected
from tcmu_overlaybd.registry.wire import HttpRequest, origin_of

BASE = "https://r.example/v2/a/blobs/x?y=1"
SENT = HttpRequest("GET", BASE, {"authorization": "Basic s3cret", "Range": "bytes=0-1"})


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/store/x", "https://r.example/store/x"),
        ("z", "https://r.example/v2/a/blobs/z"),
        ("?page=2", "https://r.example/v2/a/blobs/x?page=2"),
        ("//s.example/x", "https://s.example/x"),
        ("https://s.example/x?sig=a%2Fb#fragment", "https://s.example/x?sig=a%2Fb"),
    ],
)
def test_places_are_relative_to_what_was_asked(location, target):
    assert redirect_url(BASE, location, "w") == target


@pytest.mark.parametrize(
    "location",
    [
        "",
        "ftp://s.example/",
        "file:///etc/passwd",
        "https://[x/",
        "https://s.example/a b",
        "https://s.example:0/",
        "https://s.example:99999/",
        "https://s.example/\nX: y",
        "data:,x",
        "https://sé.example/",
    ],
)
def test_what_is_no_place_is_refused(location):
    with pytest.raises(UnavailableError, match="w: it redirects to what is no place"):
        redirect_url(BASE, location, "w")


def test_from_https_to_http_is_refused():
    with pytest.raises(UnavailableError, match=r"from https to plain http at r.example"):
        redirect_url(BASE, "http://r.example/x", "w")
    assert redirect_url("http://127.0.0.1/", "https://s.example/", "w") == "https://s.example/"


@pytest.mark.parametrize("who", ["user@", "user:s3cret@", ":s3cret@"])
def test_a_password_in_a_url_is_refused_and_not_shown(who):
    with pytest.raises(UnavailableError) as refused:
        redirect_url(BASE, f"https://{who}s.example/", "w")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("location", "is_kept"),
    [
        ("/other", True),
        ("https://R.example:443/other", True),
        ("https://r.example:8443/v2/a", False),
        ("https://s.example/", False),
        ("https://r.example.s.example/", False),
    ],
)
def test_authorization_stays_with_scheme_host_and_port(location, is_kept):
    moved = redirected(SENT, location, "w")
    assert ("authorization" in moved.headers) == is_kept
    assert moved.headers["Range"] == "bytes=0-1"


@given(st.text(max_size=60))
def test_no_location_takes_a_password_elsewhere(location):
    try:
        moved = redirected(SENT, location, "w")
    except UnavailableError:
        return
    assert moved.url.isascii()
    assert ("authorization" in moved.headers) == (origin_of(moved.url) == origin_of(BASE))
