"""How this process reaches registries, and what it keeps of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tcmu_overlaybd.config.service_config import CacheConfig, CredentialConfig, ServiceConfig
from tcmu_overlaybd.registry.credential_service import socket_service, web_service
from tcmu_overlaybd.registry.credentials import CredentialChain, CredentialSource
from tcmu_overlaybd.registry.docker_config import DockerConfig, docker_config_path
from tcmu_overlaybd.registry.transport import USER_AGENT, Transport
from tcmu_overlaybd.remote.cache_folder import default_folder

GIB = 1 << 30

DEFAULT_LIMIT = 4 * GIB  # as the reference's cacheSizeGB
DEFAULT_FREE_FLOOR = GIB
DEFAULT_CHUNK_SIZE = CacheConfig().chunk_size


@dataclass(frozen=True)
class StoreSettings:
    """Sizes in bytes.  folder: of the cache, format v1.

    has_stand_in: when the folder cannot be had, because another process has it or because
    it cannot be made, blobs are kept in a temporary one, which goes with this process.
    That is for tools; a daemon is refused.
    """

    folder: Path = field(default_factory=default_folder)
    has_stand_in: bool = True
    limit_bytes: int = DEFAULT_LIMIT
    free_floor_bytes: int = DEFAULT_FREE_FLOOR
    chunk_size: int = DEFAULT_CHUNK_SIZE
    transport: Transport = field(default_factory=Transport)
    credentials: CredentialSource = field(default_factory=lambda: DockerConfig(docker_config_path()))
    insecure_hosts: frozenset[str] = frozenset()


def settings_of(config: ServiceConfig) -> StoreSettings:
    """As the service's configuration says.  Passwords are looked for where it says first, then
    where ``login`` keeps them.  Raises UsageError."""
    return StoreSettings(
        folder=Path(config.cache.dir) if config.cache.dir else default_folder(),
        limit_bytes=config.cache_size_gb * GIB,
        free_floor_bytes=config.cache.free_floor,
        chunk_size=config.cache.chunk_size,
        transport=_transport_of(config),
        credentials=CredentialChain([*_own_source(config.credentials), DockerConfig(docker_config_path())]),
        insecure_hosts=frozenset(host.lower() for host in config.insecure_registries),
    )


def _own_source(config: CredentialConfig) -> Sequence[CredentialSource]:
    if not config.path:
        return ()
    if config.mode == "file":
        return (DockerConfig(Path(config.path)),)
    if config.mode == "uds":
        return (socket_service(Path(config.path), config.timeout),)
    transport = Transport(
        ca_file=_path(config.server_ca_path),
        client_cert=_path(config.client_cert_path),
        client_key=_path(config.client_key_path),
    )
    return (web_service(config.path, transport, config.timeout),)


def _transport_of(config: ServiceConfig) -> Transport:
    certs = config.cert_config
    return Transport(
        ca_file=_path(certs.ca_file),
        client_cert=_path(certs.cert_file),
        client_key=_path(certs.key_file),
        user_agent=config.user_agent or USER_AGENT,
    )


def _path(text: str) -> Path | None:
    return Path(text) if text else None
