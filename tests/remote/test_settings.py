"""What the service's configuration makes of a store's settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tcmu_overlaybd.config.service_config import load_service_config
from tcmu_overlaybd.errors import FormatError, UsageError
from tcmu_overlaybd.registry.credentials import Credential
from tcmu_overlaybd.remote.cache_folder import default_folder
from tcmu_overlaybd.remote.settings import GIB, StoreSettings, settings_of
from tests.registry.fixtures import ANNA
from tests.registry.http_faults import Answer
from tests.registry.images import push_image
from tests.registry.scripted_server import ScriptedServer
from tests.remote.image_store import make_stack, write_password


@pytest.fixture
def settings_from(tmp_path, monkeypatch):
    """Settings of a configuration with these keys; docker's own file has no password."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))

    def settings(**keys: object) -> StoreSettings:
        path = tmp_path / "overlaybd.json"
        path.write_text(json.dumps(keys))
        return settings_of(load_service_config(path))

    return settings


def test_an_empty_configuration_is_the_defaults(settings_from):
    settings = settings_from()
    assert settings.folder == default_folder()
    assert settings.limit_bytes == 4 * GIB
    assert settings.transport == StoreSettings().transport
    assert settings.insecure_hosts == frozenset()


def test_the_reference_s_cache_is_known_by_its_size_only(settings_from):
    """Its folder holds files that mean something else."""
    settings = settings_from(
        registryCacheDir="/opt/overlaybd/registry_cache",
        registryCacheSizeGB=7,
        cacheConfig={"cacheDir": "/opt/overlaybd/registry_cache", "refillSize": 262144},
    )
    assert (settings.folder, settings.limit_bytes) == (default_folder(), 7 * GIB)
    settings = settings_from(registryCacheSizeGB=7, cacheConfig={"cacheType": "file", "cacheSizeGB": 2})
    assert settings.limit_bytes == 2 * GIB


def test_our_own_keys_of_the_cache(settings_from):
    settings = settings_from(cache={"dir": "/var/cache/x", "chunkSize": 262144, "freeFloor": 0})
    assert settings.folder == Path("/var/cache/x")
    assert (settings.chunk_size, settings.free_floor_bytes) == (262144, 0)
    with pytest.raises(FormatError, match=r"cache\.chunkSize: "):
        settings_from(cache={"chunkSize": 4096})


def test_how_registries_are_reached(settings_from):
    settings = settings_from(
        certConfig={"certFile": "/c.pem", "keyFile": "/k.pem", "caFile": "/ca.pem"},
        userAgent="me/1",
        insecureRegistries=["Plain.example:5000"],
    )
    transport = settings.transport
    assert (transport.client_cert, transport.client_key) == (Path("/c.pem"), Path("/k.pem"))
    assert (transport.ca_file, transport.user_agent) == (Path("/ca.pem"), "me/1")
    assert settings.insecure_hosts == {"plain.example:5000"}
    with pytest.raises(UsageError, match="together, or neither"):
        settings_from(certConfig={"certFile": "/c.pem"})


def test_a_file_of_passwords_goes_before_docker_s(settings_from, tmp_path):
    write_password(tmp_path / "own", "h", Credential("own", "1"))
    write_password(tmp_path / "docker", "h", Credential("docker", "2"))
    path = str(tmp_path / "own/config.json")
    for keys in (
        {"credentialFilePath": path},
        {"credentialConfig": {"mode": "file", "path": path}},
        {"credentialConfig": {"mode": "file", "path": path}, "credentialFilePath": "/not/this/one"},
    ):
        assert settings_from(**keys).credentials.find("h", "a") == Credential("own", "1")
    assert settings_from().credentials.find("h", "a") == Credential("docker", "2")


def test_a_service_of_passwords_is_asked(settings_from, tmp_path):
    with ScriptedServer() as server:
        body = b'{"success": true, "data": {"auths": {"h": {"username": "a", "password": "b"}}}}'
        server.respond("/auth", lambda _seen: Answer(200, {}, body))
        keys = {"credentialConfig": {"mode": "http", "path": f"{server.url}/auth", "timeout": 5}}
        assert settings_from(**keys).credentials.find("h", "a") == Credential("a", "b")


def test_a_command_reads_the_file_that_the_environment_names(
    password_registry, client_of, repository, tmp_path, program, fails
):
    push_image(client_of(password_registry.host, ANNA), repository, make_stack(tmp_path, 1, 4096)[0])
    reference = f"{password_registry.host}/{repository}"
    home = {"DOCKER_CONFIG": str(tmp_path / "docker"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert "a password is needed" in fails(1, "image", "info", reference, env=home)
    own = write_password(tmp_path / "own", password_registry.host, ANNA)
    config = tmp_path / "overlaybd.json"
    config.write_text(json.dumps({"credentialFilePath": str(own)}))
    done = program("image", "info", reference, env={**home, "TCMU_OVERLAYBD_CONFIG": str(config)})
    assert done.returncode == 0, done.stderr
