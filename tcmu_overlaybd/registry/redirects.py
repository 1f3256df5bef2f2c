"""Where a redirect leads, and what may go there with us.

* relative and absolute places, http and https only, no name or password in them
* never from https to http
* ``Authorization`` stays behind unless scheme, host and port are the same: a registry
  sends its blobs to stores that are somebody else's, with a URL that is permission enough
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urldefrag, urljoin, urlsplit

from tcmu_overlaybd.errors import UnavailableError
from tcmu_overlaybd.registry.wire import HttpRequest, origin_of

STATUSES = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 8


def redirect_url(url: str, location: str, what: str) -> str:
    """The URL that location means for who asked for url.  Raises UnavailableError when that may not be."""
    try:
        target = urldefrag(urljoin(url, location)).url
        parts = urlsplit(target)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not location or not is_usable or not target.isascii() or not target.isprintable() or " " in target:
        raise UnavailableError(f"{what}: it redirects to what is no place on the web")
    if parts.username is not None or parts.password is not None:
        raise UnavailableError(f"{what}: it redirects to a URL with a password in it")
    if urlsplit(url).scheme == "https" and parts.scheme == "http":
        raise UnavailableError(f"{what}: it redirects from https to plain http at {parts.hostname}")
    return target


def redirected(request: HttpRequest, location: str, what: str) -> HttpRequest:
    """The request that a redirect of request asks for."""
    target = redirect_url(request.url, location, what)
    moved = replace(request, url=target)
    return moved if origin_of(target) == request.origin else moved.with_header("Authorization", None)
