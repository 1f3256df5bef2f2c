"""What doctor says of the cache, of passwords and of a registry, where they are right and where not."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tcmu_overlaybd.cli import registry_facts
from tcmu_overlaybd.cli.registry_facts import cache_fact, passwords_fact, registry_fact
from tcmu_overlaybd.errors import UsageError
from tcmu_overlaybd.registry.credentials import NoCredentials
from tcmu_overlaybd.registry.docker_config import DockerConfig
from tcmu_overlaybd.registry.transport import Transport
from tcmu_overlaybd.remote.settings import StoreSettings
from tests.registry.fixtures import ANNA
from tests.registry.free_port import free_port


@pytest.fixture
def settings(tmp_path):
    return StoreSettings(
        folder=tmp_path / "a" / "cache",
        free_floor_bytes=0,
        transport=Transport(proxy="", connect_timeout_s=1.0),
        credentials=NoCredentials(),
    )


def test_a_cache_folder_that_can_be_made_is_right_and_stays_unmade(settings):
    fact = cache_fact(settings)
    assert (fact.ok, fact.detail, fact.remedy) == (True, str(settings.folder), "")
    assert not settings.folder.parent.exists()


def test_a_cache_folder_below_a_file_cannot_be_made(settings):
    settings.folder.parent.write_text("")
    fact = cache_fact(settings)
    assert not fact.ok
    assert f"{settings.folder.parent} is no folder" in fact.detail
    assert fact.remedy


def test_a_cache_folder_that_cannot_be_made_names_who_owns_what_is_in_the_way(settings):
    fact = cache_fact(replace(settings, folder=Path("/proc/self/cache")))
    assert not fact.ok
    assert "/proc/self, of " in fact.detail


def test_a_disk_with_less_free_than_the_floor_keeps_nothing_more(settings):
    fact = cache_fact(replace(settings, free_floor_bytes=1 << 62))
    assert fact.ok
    assert "nothing more is kept" in fact.detail
    assert "cache.freeFloor" in fact.detail


def test_a_file_system_without_holes_keeps_nothing(settings, monkeypatch):
    monkeypatch.setattr(registry_facts, "PUNCH_HOLE", 0x7FFF0000)  # a mode that none can do
    assert "cannot punch holes" in cache_fact(settings).detail


def test_absent_passwords_are_right_broken_ones_are_not_and_open_ones_are_warned_of(tmp_path):
    path = tmp_path / "config.json"
    assert passwords_fact(path).ok
    path.write_text('{"auths": 3}')
    path.chmod(0o600)
    assert not passwords_fact(path).ok
    path.write_text('{"auths": {"registry:5000": {"auth": "c2VjcmV0OnNlY3JldA=="}}}')
    fact = passwords_fact(path)
    assert fact.ok
    assert "c2Vj" not in fact.detail
    path.chmod(0o644)
    assert "by others too: chmod 600 it" in passwords_fact(path).detail


def test_an_open_registry_answers_without_authentication(settings, open_registry):
    fact = registry_fact(open_registry.host, settings)
    assert fact.ok
    assert fact.detail == f"http://{open_registry.host} answers, without authentication"


def test_a_registry_with_a_password_is_missing_it_until_it_is_there(settings, password_registry, tmp_path):
    host = password_registry.host
    fact = registry_fact(host, settings)
    assert not fact.ok
    assert "authentication: basic" in fact.detail
    assert fact.remedy == f"tcmu-overlaybd login {host}"
    path = tmp_path / "config.json"
    auth = base64.b64encode(f"{ANNA.username}:{ANNA.password}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    path.chmod(0o600)
    fact = registry_fact(host, replace(settings, credentials=DockerConfig(path)))
    assert fact.ok
    assert fact.detail.endswith("answers, authentication: basic")


def test_a_registry_with_tokens_says_so(settings, token_registry):
    assert "authentication: bearer" in registry_fact(token_registry.host, settings).detail


def test_a_registry_that_is_down_is_missing(settings):
    fact = registry_fact(f"127.0.0.1:{free_port()}", settings)
    assert not fact.ok
    assert "the connection is refused" in fact.detail
    assert fact.remedy


def test_what_is_no_host_is_wrong_usage(settings):
    with pytest.raises(UsageError):
        registry_fact("https://registry/x", settings)


def test_the_command_asks_a_registry_that_is_named(program, open_registry, tmp_path):
    env = {
        "STATE_DIRECTORY": str(tmp_path),
        "DOCKER_CONFIG": str(tmp_path),
        "RUNTIME_DIRECTORY": str(tmp_path),
    }
    result = program("doctor", "--json", "--registry", open_registry.host, env=env)
    facts = {fact["name"]: fact for fact in json.loads(result.stdout)}
    assert facts[f"registry {open_registry.host}"]["ok"]
    assert facts["passwords"]["ok"]
    assert "cache folder" in facts
    assert program("doctor", "--registry", "https://x/", env=env).returncode == 2
