"""docker's ``config.json``: passwords of registries, or the programs that keep them.

    credHelpers   {"HOST": "NAME"}: docker-credential-NAME knows the password of HOST
    credsStore    "NAME": the same for every other host
    auths         {"HOST" or "HOST/NAMESPACE": {"auth": base64 of user:password}
                   or {"username", "password"} or {"identitytoken"}}

A helper is asked first; one that knows nothing leaves it to ``auths``.  The reference's
``credentialFilePath`` (spec/registry.md section 7) has ``auths`` in the same form; for it
a file that is not there means nobody's password, as in the reference, but a broken one is
an error, where the reference goes on as nobody and fails later, with less to say.

An entry is decoded when it is the one that is needed: a broken one of another host is
no concern of ours.  Nothing that is secret gets into a message.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tcmu_overlaybd.config.decoding import convert_value
from tcmu_overlaybd.config.json_file import read_json, write_json
from tcmu_overlaybd.errors import FailedError, FormatError, MissingError
from tcmu_overlaybd.registry.credential_helper import TOKEN_USER, helper_get, helper_store
from tcmu_overlaybd.registry.credentials import Credential, longest_match

log = logging.getLogger(__name__)


class AuthEntry(msgspec.Struct, omit_defaults=True):
    """One of ``auths``."""

    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class CredentialFile(msgspec.Struct, rename={"creds_store": "credsStore", "cred_helpers": "credHelpers"}):
    """What of the file concerns us; Go writes absent maps as null."""

    auths: dict[str, AuthEntry] | None = None
    creds_store: str = ""
    cred_helpers: dict[str, str] | None = None


def docker_config_path() -> Path:
    """``$DOCKER_CONFIG/config.json``, else ``~/.docker/config.json``."""
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


@dataclass(frozen=True)
class DockerConfig:
    """A source of credentials; the file is read at each look."""

    path: Path

    def find(self, host: str, repository: str) -> Credential | None:
        """Raises FormatError when the file is broken, and what the helpers raise."""
        try:
            file = read_json(self.path, CredentialFile)
        except MissingError:
            return None
        warn_if_readable(self.path)
        helper = self._helper_of(file, host)
        credential = helper_get(helper, host) if helper else None
        return credential or find_in_auths(file.auths or {}, host, repository, str(self.path))

    def store(self, host: str, credential: Credential) -> str:
        """Keeps credential for host, by the helper when one is configured; returns where, for people.

        The file keeps what else is in it, and is readable for its owner only.
        """
        path = self.path.resolve()  # a link to the file stays one
        whole = _read_whole(path)
        helper = self._helper_of(convert_value(whole, CredentialFile), host)
        entry: dict[str, str] = {}
        if helper:
            helper_store(helper, host, credential)
        else:
            entry = {"auth": credential.basic().removeprefix("Basic ")}
        auths = whole.get("auths") or {}
        _write_whole(path, {**whole, "auths": {**auths, host: entry}})
        return f"docker-credential-{helper}" if helper else str(self.path)

    @staticmethod
    def _helper_of(file: CredentialFile, host: str) -> str:
        helpers = file.cred_helpers or {}
        return helpers.get(longest_match(helpers, host, "") or "", file.creds_store)


def find_in_auths(auths: dict[str, AuthEntry], host: str, repository: str, where: str) -> Credential | None:
    """Of auths, which were found in where, the one for the repository.  Raises FormatError."""
    key = longest_match(auths, host, repository)
    if key is None:
        return None
    entry = auths[key]
    username, password = entry.username, entry.password
    if entry.auth:
        username, password = decode_auth(entry.auth, f"{where}: auths[{key!r}].auth")
    if entry.identitytoken or username == TOKEN_USER:
        return Credential("", identity_token=entry.identitytoken or password)
    # An empty entry only says that a helper has it.
    return Credential(username, password) if username or password else None


def decode_auth(text: str, where: str) -> tuple[str, str]:
    """User and password in base64; the first colon divides.  Raises FormatError without the text."""
    try:
        pair = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        pair = ""
    user, colon, password = pair.partition(":")
    if not colon:
        raise FormatError(f"{where}: not base64 of USER:PASSWORD")
    return user, password.rstrip("\0")  # old docker versions padded with them


def warn_if_readable(path: Path) -> None:
    """Says once for each file that others may read it."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & (stat.S_IRGRP | stat.S_IROTH) and path not in _warned:
        _warned.add(path)
        log.warning("%s: holds passwords and can be read by others: chmod 600 it", path)


_warned: set[Path] = set()


def _read_whole(path: Path) -> dict[str, Any]:
    try:
        whole = read_json(path, dict[str, Any])
        convert_value(whole, CredentialFile)
    except MissingError:
        return {}
    except msgspec.ValidationError as error:
        raise FormatError(f"{path}: {error}") from None
    return whole


def _write_whole(path: Path, whole: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(path, whole)
    except OSError as error:
        raise FailedError(f"{path}: cannot be written: {error.strerror}") from error
