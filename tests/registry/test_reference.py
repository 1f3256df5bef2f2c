"""Names of images: what is one, what its parts are, and what is refused with which sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmu_overlaybd.errors import FormatError, UsageError
from tcmu_overlaybd.registry.reference import Reference, RepoBlobUrl, is_loopback

DIGEST = "sha256:" + "0123456789abcdef" * 4

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
HOSTS = st.one_of(
    st.builds("{}.{}".format, LABEL, LABEL),
    st.just("localhost"),
    st.just("[::1]"),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map("[{}]".format),
)
PORTS = st.one_of(st.just(""), st.integers(1, 65535).map(":{}".format))
COMPONENT = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+){0,2}", fullmatch=True)
REPOSITORIES = st.lists(COMPONENT, min_size=1, max_size=4).map("/".join).filter(lambda name: len(name) <= 255)
TAGS = st.one_of(st.none(), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True))
DIGESTS = st.one_of(st.none(), st.binary(min_size=32, max_size=32).map(lambda b: "sha256:" + b.hex()))


@given(HOSTS, PORTS, REPOSITORIES, TAGS, DIGESTS)
def test_a_reference_is_the_sum_of_its_parts(host, port, repository, tag, digest):
    text = f"{host}{port}/{repository}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    reference = Reference.parse(text)
    assert (reference.host, reference.repository, reference.digest) == (host + port, repository, digest)
    assert reference.tag == (tag or (None if digest else "latest"))
    assert reference.target == (digest or tag or "latest")
    assert Reference.parse(str(reference)) == reference


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_a_usage_error(text):
    try:
        reference = Reference.parse(text)
    except UsageError:
        return
    assert Reference.parse(str(reference)) == reference
    assert not set(str(reference)) & set(" \t\r\n?#%\\")


def test_a_host_in_capitals_is_the_same_host():
    assert Reference.parse("Registry.Example:5000/a").host == "registry.example:5000"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("alpine", "no registry host"),
        ("library/alpine:3", "no registry host"),
        ("example.org", "no registry host"),
        ("example.org/", "no registry host"),
        ("example.org/Alpine", "'Alpine' is no repository"),
        ("example.org/a//b", "'a//b' is no repository"),
        ("example.org/a/../b", "'a/../b' is no repository"),
        ("example.org/" + "a" * 256, "is no repository"),
        ("example.org/a:", "'' is no tag"),
        ("example.org/a:.x", "'.x' is no tag"),
        ("example.org/a:" + "x" * 129, "is no tag"),
        ("example.org/a@sha256:12", "is no digest"),
        ("example.org/a@" + DIGEST.upper(), "is no digest"),
        ("example.org/a@", "'' is no digest"),
        ("example.org:0/a", "is no host"),
        ("example.org:65536/a", "is no host"),
        ("-x.org/a", "is no host"),
        ("[::g]/a", "is no host"),
        ("https://example.org/a", "is no host"),
        ("user@example.org/a", "no registry host"),
    ],
)
def test_what_is_wrong_is_named(text, complaint):
    with pytest.raises(UsageError) as refused:
        Reference.parse(text)
    assert complaint in str(refused.value)
    assert str(refused.value).startswith(text)


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:5000"]
)
def test_is_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["localhost.example.org", "127.0.0.1.example.org", "128.0.0.1", "[::2]", "xlocalhost", "0.0.0.0"]
)
def test_is_not_loopback(host):
    assert not is_loopback(host)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_repo_blob_url_is_read_with_and_without_a_slash(scheme, slash):
    url = RepoBlobUrl.parse(f"{scheme}://example.org:5000/v2/a/blobs/blobs{slash}")
    assert url == RepoBlobUrl(scheme, "example.org:5000", "a/blobs")
    assert str(url) == f"{scheme}://example.org:5000/v2/a/blobs/blobs"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org/v2/a/blobs",
        "ftp://example.org/v2/a/blobs",
        "https://example.org/v2/blobs",
        "https://example.org/v2/A/blobs",
        "https://example.org/v2/a/blobs?x=1",
        "https://user:secret@example.org/v2/a/blobs",
        "https://example.org/v2/a/../../x/blobs",
    ],
)
def test_repo_blob_url_of_another_form_is_a_format_error(text):
    with pytest.raises(FormatError, match="not of the form"):
        RepoBlobUrl.parse(text)
