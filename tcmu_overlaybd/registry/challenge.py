"""``WWW-Authenticate`` (RFC 7235): which ways of proving who one is a server offers.

One header may hold several challenges, several headers may be joined by commas, and a
quoted value may have commas in it, so this is a parser and not a split::

    challenges = challenge *( "," challenge )
    challenge  = scheme [ token68 / ( name "=" ( token / quoted ) ) *( "," ... ) ]

A name followed by "=" belongs to the challenge before it; any other begins a new one.
Empty list items are skipped, as RFC 7230 wants.  What breaks these rules ends the list
where it stands: the challenges before it are kept, since one of them may do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

MAX_LENGTH = 16 << 10  # characters; a longer header is cut there

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SKIP = re.compile(r"[ \t,]*")
_PARAMETER = re.compile(rf'({_WORD})[ \t]*=[ \t]*(?:({_WORD})|"((?:[^"\\]|\\.)*)")[ \t]*(?=,|$)')
_SCHEME = re.compile(rf"({_WORD})(?:[ \t]+|[ \t]*(?=,|$))")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")


@dataclass(frozen=True)
class Challenge:
    """``scheme`` and the names of ``parameters`` in lower case; of a repeated name the first counts."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """The challenges of a header, in its order; () for an empty or senseless one."""
    return tuple(_challenges(header[:MAX_LENGTH]))


def _challenges(text: str) -> Iterator[Challenge]:
    position = _skip(text, 0)
    while match := _SCHEME.match(text, position):
        parameters: dict[str, str] = {}
        end = _parameters(text, match.end(), parameters)
        yield Challenge(match[1].lower(), parameters)
        position = _skip(text, end)
        if "," not in text[end:position]:
            return


def _parameters(text: str, position: int, found: dict[str, str]) -> int:
    """Puts what follows a scheme into found; returns where that ends."""
    if match := _TOKEN68.match(text, position):
        return match.end()  # of schemes that we do not speak
    end = position
    while match := _PARAMETER.match(text, position):
        quoted = match[3]
        value = match[2] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        found.setdefault(match[1].lower(), value)
        end = match.end()
        position = _skip(text, end)
    return end


def _skip(text: str, position: int) -> int:
    """Past blanks and commas."""
    match = _SKIP.match(text, position)
    return match.end() if match else position
