"""``NO_PROXY`` by libcurl's rules, so that a manifest and its blobs take the same way.

A list of names, addresses and networks, with commas between them:

``*``               alone: every host
``example.com``     this host and all below it; a dot in front or behind changes nothing
``10.1.2.3``        this address, when the URL has it as an address
``10.0.0.0/8``      all of this network, likewise

The case of a name does not matter, and no port is looked at: ``example.com:5000`` is the
name of no host.  Python's own rules, and those of requests, differ in each of these.
"""

from __future__ import annotations

import ipaddress


def is_exempt(host: str, exceptions: str) -> bool:
    """Whether host, as a URL names it but without brackets, is reached without the proxy."""
    if exceptions == "*":
        return True
    name = host.lower().removesuffix(".")
    patterns = [pattern.strip() for pattern in exceptions.lower().split(",")]
    address = _address(name)
    if address is not None:
        return any(_has_address(pattern, address) for pattern in patterns)
    return any(_has_name(pattern, name) for pattern in patterns)


def _has_name(pattern: str, name: str) -> bool:
    domain = pattern.removesuffix(".").removeprefix(".")
    return bool(domain) and (name == domain or name.endswith(f".{domain}"))


def _has_address(pattern: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return False


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
