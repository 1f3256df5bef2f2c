"""The service's configuration, ``/etc/overlaybd/overlaybd.json`` in the reference (spec/config.md section 1).

The log, how registries are reached, and the limits of the cache and of devices.  Keys not
named here are ignored.  Ours, which the reference ignores in turn, are ``device``,
``cache``, ``hub``, ``insecureRegistries`` and ``certConfig.caFile``.  The folder of the reference's
cache is never used: its files mean something else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from tcmu_overlaybd.config.download_config import DownloadConfig
from tcmu_overlaybd.config.json_file import read_json

LogFormat = Literal["text", "json"]
Level = Annotated[int, msgspec.Meta(ge=0, le=3)]
# What becomes of a command whose data does not come in time: it fails, is asked for again,
# or waits for as long as it takes.
OnTimeout = Literal["error", "retry", "freeze"]

# Who speaks with the kernel about devices: libtcmu, or we ourselves (lio/hubs.py).
HubChoice = Literal["auto", "libtcmu", "netlink"]


class LogConfig(
    msgspec.Struct,
    frozen=True,
    rename={
        "log_level": "logLevel",
        "log_path": "logPath",
        "log_size_mb": "logSizeMB",
        "log_rotate_num": "logRotateNum",
        "log_format": "logFormat",
    },
):
    """A file that has grown to log_size_mb MiB is renamed; log_rotate_num such are kept.

    log_format is ours.
    """

    log_level: Level = 1
    log_path: str = ""
    log_size_mb: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 10
    log_rotate_num: Annotated[int, msgspec.Meta(ge=1, le=30)] = 3
    log_format: LogFormat = "text"


class ExporterConfig(msgspec.Struct, frozen=True, rename="camel"):
    """Metrics on a TCP port.  address is ours: the reference listens on all of them."""

    enable: bool = False
    uri_prefix: str = "/metrics"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 9863  # 0: any that is free
    address: str = "127.0.0.1"


class DeviceConfig(msgspec.Struct, frozen=True, rename="camel"):
    """What one device may take.  Times in milliseconds; 0 is the default of the data plane."""

    io_timeout_ms: Annotated[int, msgspec.Meta(ge=0, le=86_400_000)] = 0
    on_timeout: OnTimeout = "error"
    flush_interval_ms: Annotated[int, msgspec.Meta(ge=0, le=86_400_000)] = 5000


class CacheConfig(msgspec.Struct, frozen=True, rename="camel"):
    """The cache of blobs, format v1.  dir "" is the state folder's; sizes in bytes."""

    dir: str = ""
    chunk_size: Annotated[int, msgspec.Meta(ge=64 << 10, le=1 << 20)] = 256 << 10
    free_floor: Annotated[int, msgspec.Meta(ge=0)] = 1 << 30


class ReferenceCacheConfig(
    msgspec.Struct, frozen=True, rename={"cache_type": "cacheType", "cache_size_gb": "cacheSizeGB"}
):
    """Of the reference's cache its size only."""

    cache_type: str = ""
    cache_size_gb: Annotated[int, msgspec.Meta(ge=0)] = 4


class CertConfig(msgspec.Struct, frozen=True, rename="camel"):
    """PEM files: who we are for a registry over TLS, and whom we trust instead of the system's store."""

    cert_file: str = ""
    key_file: str = ""
    ca_file: str = ""


class CredentialConfig(msgspec.Struct, frozen=True):
    """Where passwords are asked for before docker's files are: a file, a URL or a socket.

    timeout in seconds; the PEM files are for https.
    """

    mode: Literal["", "file", "http", "https", "uds"] = ""
    path: str = ""
    timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 1.0
    client_cert_path: str = ""
    client_key_path: str = ""
    server_ca_path: str = ""


class SnapshotApiConfig(msgspec.Struct, frozen=True):
    """The reference's HTTP API of snapshots.  Its ``address`` is not heard: we answer on the
    control socket, which asks who is there."""

    enable: bool = False


class ServiceConfig(msgspec.Struct, frozen=True, rename="camel"):
    log_level: Level = 1
    log_path: str = ""
    log_config: LogConfig = LogConfig()
    hub: HubChoice = "auto"
    device: DeviceConfig = DeviceConfig()
    cache: CacheConfig = CacheConfig()
    cache_config: ReferenceCacheConfig = ReferenceCacheConfig()
    registry_cache_size_gb: Annotated[int, msgspec.Meta(ge=0)] = msgspec.field(
        default=4, name="registryCacheSizeGB"
    )
    cert_config: CertConfig = CertConfig()
    credential_file_path: str = ""
    credential_config: CredentialConfig = CredentialConfig()
    download: DownloadConfig = DownloadConfig()
    service_config: SnapshotApiConfig = SnapshotApiConfig()
    exporter_config: ExporterConfig = ExporterConfig()
    insecure_registries: tuple[str, ...] = ()
    user_agent: str = ""

    @property
    def log(self) -> LogConfig:
        """Level and path that count: logConfig's when it has a path, else the old keys."""
        if self.log_config.log_path:
            return self.log_config
        return msgspec.structs.replace(self.log_config, log_level=self.log_level, log_path=self.log_path)

    @property
    def cache_size_gb(self) -> int:
        """The one that counts: cacheConfig's when it has a type, else the old key."""
        return (
            self.cache_config.cache_size_gb if self.cache_config.cache_type else self.registry_cache_size_gb
        )

    @property
    def credentials(self) -> CredentialConfig:
        """Those that count: credentialConfig when it has a mode, else the old key."""
        if self.credential_config.mode:
            return self.credential_config
        return CredentialConfig(mode="file", path=self.credential_file_path)


def load_service_config(path: Path) -> ServiceConfig:
    """Raises MissingError, or FormatError with the key that is wrong."""
    return read_json(path, ServiceConfig)
