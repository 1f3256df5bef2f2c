"""``login``: a password is kept only after the registry has accepted it."""

from __future__ import annotations

from tcmu_overlaybd.errors import FailedError, UsageError
from tcmu_overlaybd.registry.client import RegistryClient
from tcmu_overlaybd.registry.credentials import Credential, FixedCredential
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.docker_config import DockerConfig
from tcmu_overlaybd.registry.reference import is_host
from tcmu_overlaybd.registry.transport import Transport

TIMEOUT_S = 30.0


def log_in(
    host: str,
    credential: Credential,
    config: DockerConfig,
    transport: Transport,
    insecure_hosts: frozenset[str] = frozenset(),
) -> str:
    """Tries credential at host and keeps it in config; returns where it is kept.

    Raises AuthenticationError when it is wrong, FailedError when the registry asks for
    none, and what RegistryClient and DockerConfig raise.  Then nothing is kept.
    """
    if not is_host(host):
        raise UsageError(f"{host!r}: not a registry: give HOST[:PORT], without https:// and without a path")
    host = host.lower()
    source = FixedCredential(credential)
    with RegistryClient(host, transport, source, insecure_hosts=insecure_hosts) as client:
        if not client.check(Deadline.after(TIMEOUT_S)):
            raise FailedError(f"{host}: the registry asks for no password, so none is kept")
    return config.store(host, credential)
