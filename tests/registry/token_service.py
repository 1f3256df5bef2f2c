"""A token service as docker-registry's ``auth: token`` wants it: signed JWTs of users with passwords.

Built on ScriptedServer, so that a test can make it fail, and count how often it was asked.
"""

from __future__ import annotations

import base64
import datetime
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.registry.http_faults import Answer
from tests.registry.scripted_server import ScriptedServer, Seen

SERVICE = "registry of a test"  # with spaces: they must be encoded
ISSUER = "token service of a test"


class TokenService:
    """users: names to passwords.  ``anonymous_pull``: who has no password may pull.

    ``lifetime_s`` is what tokens live, ``refresh_tokens`` what POST accepts.
    """

    def __init__(self, folder: Path, users: dict[str, str], *, anonymous_pull: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.users = users
        self.anonymous_pull = anonymous_pull
        self.lifetime_s = 300
        self.expires_in: int | None = None  # said instead of the truth
        self.refresh_tokens: dict[str, str] = {}
        self.issued: list[str] = []
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._certificate = _self_signed(self._key)
        self._bundle = folder / "token-ca.pem"
        self._bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        self.server = ScriptedServer()
        self.server.respond("/token", self._answer)
        self.realm = f"{self.server.url}/token"

    @property
    def nr_asked(self) -> int:
        return self.server.count("GET", "/token") + self.server.count("POST", "/token")

    def settings(self) -> dict[str, str]:
        """What docker-registry's configuration says of us."""
        return {
            "realm": self.realm,
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(self._bundle),
        }

    def close(self) -> None:
        self.server.close()

    def __enter__(self) -> TokenService:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, seen: Seen) -> Answer:
        form = parse_qs(seen.body.decode() if seen.method == "POST" else urlsplit(seen.target).query)
        user = self._user(seen, form)
        if user is None:
            return Answer(401, {"WWW-Authenticate": 'Basic realm="tokens"'}, b"wrong password")
        scopes = [scope for value in form.get("scope", []) for scope in value.split()]
        reply: dict[str, Any] = {
            "token": self.sign(user, scopes, form["service"][0]),
            "expires_in": self.lifetime_s if self.expires_in is None else self.expires_in,
        }
        if seen.method == "POST":
            reply["access_token"] = reply.pop("token")
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(reply).encode())

    def _user(self, seen: Seen, form: dict[str, list[str]]) -> str | None:
        """Who asks; "" for nobody; None when that is not to be believed."""
        if seen.method == "POST":
            return self.refresh_tokens.get(form["refresh_token"][0])
        header = seen.headers.get("authorization")
        if header is None:
            return ""
        name, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
        return name if self.users.get(name) == password else None

    def sign(self, user: str, scopes: list[str], service: str) -> str:
        """A token for what of scopes user may do; docker-registry finds the key by ``x5c``."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": user,
            "aud": service,
            "exp": now + self.lifetime_s,
            "nbf": now - 5,
            "iat": now,
            "jti": f"{now}-{id(scopes)}",
            "access": [access for scope in scopes if (access := self._access(user, scope))],
        }
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        headers = {"x5c": [base64.b64encode(der).decode()]}
        self.issued.append(jwt.encode(claims, self._key, algorithm="RS256", headers=headers))
        return self.issued[-1]

    def _access(self, user: str, scope: str) -> dict[str, Any] | None:
        kind, name, actions = scope.split(":")
        allowed = [a for a in actions.split(",") if user or (self.anonymous_pull and a == "pull")]
        return {"type": kind, "name": name, "actions": allowed} if allowed else None


def _self_signed(key: rsa.RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "token service of a test")])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
