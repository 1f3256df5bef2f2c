"""WWW-Authenticate: every legal header is understood, and no header does harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmu_overlaybd.registry.challenge import Challenge, parse_challenges

TOKEN = st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
PARAMETERS = st.dictionaries(TOKEN.map(str.lower), TEXT, min_size=1, max_size=4)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def written(scheme: str, parameters: dict[str, str], space: str) -> str:
    return f"{scheme} " + f",{space}".join(
        f"{key}{space}={space}{quoted(value)}" for key, value in parameters.items()
    )


@given(
    st.lists(st.tuples(TOKEN, PARAMETERS), max_size=4),
    st.sampled_from(["", " ", "\t"]),
    st.sampled_from([",", ", ", " ,, "]),
)
def test_what_is_written_by_the_rules_is_read_back(challenges, space, comma):
    header = comma.join(written(scheme, parameters, space) for scheme, parameters in challenges)
    expected = tuple(Challenge(scheme.lower(), parameters) for scheme, parameters in challenges)
    assert parse_challenges(header) == expected


@given(st.text(max_size=200))
def test_any_header_is_read_without_an_exception(header):
    for challenge in parse_challenges(header):
        assert challenge.scheme == challenge.scheme.lower() != ""


BEARER = {"realm": "https://auth.example/token", "service": "a registry", "scope": "repository:a/b:pull,push"}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", ()),
        ("Basic", (Challenge("basic"),)),
        ('Basic realm="a, b"', (Challenge("basic", {"realm": "a, b"}),)),
        ("Basic realm=simple", (Challenge("basic", {"realm": "simple"}),)),
        ('BASIC REALM="x"', (Challenge("basic", {"realm": "x"}),)),
        (
            'Bearer realm="https://auth.example/token",service="a registry",scope="repository:a/b:pull,push"',
            (Challenge("bearer", BEARER),),
        ),
        (
            'Negotiate dG9rZW4=, Basic realm="x", Bearer realm="https://t/"',
            (
                Challenge("negotiate"),
                Challenge("basic", {"realm": "x"}),
                Challenge("bearer", {"realm": "https://t/"}),
            ),
        ),
        ("Negotiate, NTLM", (Challenge("negotiate"), Challenge("ntlm"))),
        (r'Basic realm="say \"hi\"\\"', (Challenge("basic", {"realm": 'say "hi"\\'}),)),
        ('Bearer realm="a", realm="b"', (Challenge("bearer", {"realm": "a"}),)),
        # What breaks the rules ends the list.
        (
            'Basic realm="x", Bearer realm="never closed',
            (Challenge("basic", {"realm": "x"}), Challenge("bearer")),
        ),
        ('="x"', ()),
    ],
)
def test_reads(header, expected):
    assert parse_challenges(header) == expected


def test_a_huge_header_is_cut_and_quickly_read():
    assert len(parse_challenges("a " * 1_000_000)) <= 1
    assert parse_challenges('B a="' + "\\" * 1_000_000) == (Challenge("b"),)
