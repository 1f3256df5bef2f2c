"""How the network is reached: one value that feeds requests here and libcurl in the data plane.

Both must obey it alike, so what either library would take from elsewhere is decided here:

trust    ``ca_file`` alone when it is given, else the system's store (``SSL_CERT_FILE`` is
         honoured, as OpenSSL does; certifi and ``REQUESTS_CA_BUNDLE`` are not)
proxy    given, or ``""`` for none, or None: the environment by libcurl's rules
         (``http_proxy`` in lower case only, ``https_proxy``, ``all_proxy``, ``no_proxy``)
secrets  nothing from ``~/.netrc``, no cookies
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from urllib.parse import urlsplit

import requests
import truststore

from tcmu_overlaybd import __version__
from tcmu_overlaybd.errors import MissingError, UnavailableError, UsageError
from tcmu_overlaybd.registry.bounded_http import BoundedAdapter
from tcmu_overlaybd.registry.no_proxy import is_exempt

USER_AGENT = f"tcmu-overlaybd/{__version__}"


@dataclass(frozen=True)
class CurlValues:
    """What the data plane's fetcher is opened with (``struct fetcher_params``); None is its default."""

    connections_per_host: int
    connect_timeout_ms: int
    stall_timeout_ms: int
    user_agent: str
    ca_file: str | None
    client_cert: str | None
    client_key: str | None
    proxy: str | None = field(repr=False)


@dataclass(frozen=True)
class Transport:
    """Time-outs in seconds: of connecting, and of no byte at all arriving."""

    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    connect_timeout_s: float = 10.0
    stall_timeout_s: float = 10.0
    connections_per_host: int = 8
    user_agent: str = USER_AGENT

    def __post_init__(self) -> None:
        if (self.client_cert is None) != (self.client_key is None):
            raise UsageError("a client certificate and its key are given together, or neither")

    def ssl_context(self) -> ssl.SSLContext:
        """Raises MissingError, or UnavailableError when a file is no PEM of that kind."""
        for path in (self.ca_file, self.client_cert, self.client_key):
            if path is not None and not path.is_file():
                raise MissingError(f"{path}: no such file")
        context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.ca_file is not None:
                context = ssl.create_default_context(cafile=self.ca_file)
            if self.client_cert is not None:
                context.load_cert_chain(self.client_cert, self.client_key)
        except ssl.SSLError as error:
            files = ", ".join(str(path) for path in (self.ca_file, self.client_cert, self.client_key) if path)
            raise UnavailableError(f"{files}: not to be used for TLS: {error.reason}") from error
        return context

    def session(self) -> requests.Session:
        """A session for any number of threads: nothing of it is changed by a request."""
        session = requests.Session()
        session.trust_env = False
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # Digests are of the bytes as they are stored.
        session.headers = requests.structures.CaseInsensitiveDict(
            {"User-Agent": self.user_agent, "Accept-Encoding": "identity"}
        )
        adapter = BoundedAdapter(self.ssl_context(), self.connections_per_host)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        return session

    def proxies_for(self, url: str) -> dict[str, str]:
        """The ``proxies`` of requests for url; empty for none."""
        scheme = urlsplit(url).scheme
        proxy = _environment_proxy(url) if self.proxy is None else self.proxy
        return {scheme: proxy} if proxy else {}

    def curl_values(self) -> CurlValues:
        """The same for libcurl, which does not look at SSL_CERT_FILE by itself."""
        ca_file = str(self.ca_file) if self.ca_file else os.environ.get("SSL_CERT_FILE") or None
        return CurlValues(
            connections_per_host=self.connections_per_host,
            connect_timeout_ms=round(self.connect_timeout_s * 1000),
            stall_timeout_ms=round(self.stall_timeout_s * 1000),
            user_agent=self.user_agent,
            ca_file=ca_file,
            client_cert=str(self.client_cert) if self.client_cert else None,
            client_key=str(self.client_key) if self.client_key else None,
            proxy=self.proxy,
        )


def _environment_proxy(url: str) -> str:
    """What libcurl would take from the environment for url; "" for none."""
    parts = urlsplit(url)
    scheme = parts.scheme
    if is_exempt(parts.hostname or "", _variable("no_proxy")):
        return ""
    # In CGI programs HTTP_PROXY is a header of the request, so its sender's choice.
    own = os.environ.get("http_proxy", "") if scheme == "http" else _variable(f"{scheme}_proxy")
    return own or _variable("all_proxy")


def _variable(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.upper()) or ""
