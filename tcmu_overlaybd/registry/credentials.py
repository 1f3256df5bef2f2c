"""Who we are for a registry, and where that is looked up.

A source of credentials is asked with a host and a repository.  The files that say it
(``docker_config.py``) are read anew each time, so that ``login`` and rotated passwords
are heard without a restart.

Of entries for ``HOST``, ``HOST/a`` and ``HOST/a/b`` the longest that is a prefix of the
repository counts; the reference takes the first in the order of the file (spec/registry.md
section 7), so there an entry for the whole host hides a more precise one below it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Credential:
    """A password, or an identity token (what OAuth calls a refresh token) in its place."""

    username: str
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def basic(self) -> str:
        """The value of ``Authorization``."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode("ascii")


class CredentialSource(Protocol):
    def find(self, host: str, repository: str) -> Credential | None:
        """None: go there as nobody.  Raises an OverlayBDError when it cannot be known."""


class NoCredentials:
    def find(self, host: str, repository: str) -> Credential | None:  # noqa: ARG002
        return None


@dataclass(frozen=True)
class FixedCredential:
    """The same everywhere: for one host only."""

    credential: Credential

    def find(self, host: str, repository: str) -> Credential | None:  # noqa: ARG002
        return self.credential


@dataclass(frozen=True)
class CredentialChain:
    """The first source that has an answer."""

    sources: Sequence[CredentialSource]

    def find(self, host: str, repository: str) -> Credential | None:
        found = (source.find(host, repository) for source in self.sources)
        return next((credential for credential in found if credential is not None), None)


def longest_match(keys: Iterable[str], host: str, repository: str) -> str | None:
    """The key that names most of HOST/REPOSITORY, compared as ``plain_key`` gives them."""
    whole = f"{host.lower()}/{repository}/"
    fitting = [key for key in keys if whole.startswith(plain_key(key) + "/")]
    return max(fitting, key=lambda key: len(plain_key(key)), default=None)


def plain_key(key: str) -> str:
    """``https://Host/v1/`` as docker wrote it once is ``host``."""
    rest = key.partition("://")[2] or key
    host, _, path = rest.rstrip("/").partition("/")
    return host.lower() if path in ("", "v1", "v2") else f"{host.lower()}/{path}"
