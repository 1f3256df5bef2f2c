"""``docker-credential-NAME``: programs that keep passwords, by docker's protocol.

One word as argument (``get``, ``store``), the rest on stdin and stdout, so that no secret
is in a command line or in the environment.  Each call has a deadline, since a helper may
wait for a person at another screen.
"""

from __future__ import annotations

import re
import subprocess

import msgspec

from tcmu_overlaybd.config.decoding import decode_json
from tcmu_overlaybd.errors import FailedError, TimeoutExpiredError, UnavailableError
from tcmu_overlaybd.registry.credentials import Credential

TIMEOUT_S = 30.0
MAX_OUTPUT = 1 << 20  # bytes
TOKEN_USER = "<token>"  # noqa: S105  stands for the user name of an identity token

# Said on stdout, with exit code 1, by every helper made with docker's library.
_NOT_FOUND = re.compile(rb"credentials not found|not found in native keychain", re.IGNORECASE)


class _Secret(msgspec.Struct, rename={"username": "Username", "secret": "Secret", "server": "ServerURL"}):
    username: str
    secret: str
    server: str = ""


def helper_get(name: str, host: str, timeout_s: float = TIMEOUT_S) -> Credential | None:
    """What the helper has for host; None when it has nothing.

    Raises UnavailableError when there is no such helper, TimeoutExpiredError,
    FailedError when it fails or its answer makes no sense.
    """
    done = _run(name, "get", host.encode(), timeout_s)
    if done.returncode != 0:
        if _NOT_FOUND.search(done.stdout):
            return None
        raise FailedError(f"{_program(name)}: get of {host} failed with exit code {done.returncode}")
    try:
        secret = decode_json(done.stdout[:MAX_OUTPUT], _Secret)
    except msgspec.DecodeError:
        # Not chained: the text that could not be read may hold the secret.
        raise FailedError(f"{_program(name)}: what it answers for {host} is not in docker's form") from None
    if secret.username == TOKEN_USER:
        return Credential("", identity_token=secret.secret)
    return Credential(secret.username, secret.secret)


def helper_store(name: str, host: str, credential: Credential, timeout_s: float = TIMEOUT_S) -> None:
    """Gives the helper a password to keep; raises as helper_get."""
    secret = _Secret(credential.username, credential.password, host)
    done = _run(name, "store", msgspec.json.encode(secret), timeout_s)
    if done.returncode != 0:
        raise FailedError(f"{_program(name)}: storing for {host} failed with exit code {done.returncode}")


def _run(name: str, verb: str, text: bytes, timeout_s: float) -> subprocess.CompletedProcess[bytes]:
    program = _program(name)
    try:
        return subprocess.run(
            [program, verb],
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # may quote secrets
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise UnavailableError(f"{program}: not installed, but docker's config.json names it") from error
    except subprocess.TimeoutExpired:
        raise TimeoutExpiredError(f"{program} {verb}: no answer within {timeout_s:g} s") from None
    except OSError as error:
        raise FailedError(f"{program}: cannot be run: {error.strerror}") from error


def _program(name: str) -> str:
    """A name comes from a file: it must not lead out of PATH."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise FailedError(f"docker's config.json names a credential helper {name!r}, which is no name")
    return f"docker-credential-{name}"
