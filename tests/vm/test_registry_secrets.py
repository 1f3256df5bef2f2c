"""The daemon tells nobody a password or a token: in its log, state, answers, or on a command line."""

from __future__ import annotations

import random

import pytest
from vm_daemon import run
from vm_registry import push_file_system, write_password

from tcmu_overlaybd.errors import OverlayBDError
from tests.chaos.faulty_proxy import FaultyProxy
from tests.registry.docker_registry import DockerRegistry
from tests.registry.fixtures import USERS
from tests.registry.known_secrets import Secrets
from tests.registry.token_service import TokenService


@pytest.mark.timeout(240)
def test_the_daemon_tells_nobody(make_daemon, tmp_path, mount_point):
    secrets = Secrets("anna", USERS["anna"])
    with (
        TokenService(tmp_path / "tokens", dict(USERS)) as tokens,
        DockerRegistry(tmp_path / "registry", token=tokens) as registry,
        FaultyProxy(registry.host, random.Random(5)) as proxy,
        secrets.watched_command_lines(),
    ):
        image = push_file_system(registry, tmp_path, proxy.host)
        tokens.lifetime_s = 2
        home = tmp_path / "docker"
        home.mkdir()
        daemon = make_daemon(
            verbosity="-vv",
            config={"device": {"ioTimeoutMs": 20_000}, "cache": {"freeFloor": 0}},
            **write_password(home, proxy.host),
        )
        proxy.rate = 0.1
        disk = daemon.cli("attach", image.reference, "--name", "d", "--timeout", "60").stdout.strip()
        run("mount", "-o", "ro", disk, mount_point)
        run("sha256sum", mount_point / "big")
        run("umount", mount_point)
        said = answers(daemon)
        tokens.users["anna"] = "another password"
        proxy.rate = 0
        said += daemon.cli("attach", image.reference, "--name", "refused").stderr
        daemon.kill()
        registry.stop()
        daemon.start()
        with pytest.raises(OverlayBDError):
            daemon.attach(image.reference, name="in-vain", timeout=5)
        said += answers(daemon)
        daemon.detach("d", force=True)
    assert proxy.nr_faults > 0
    secrets.add(*tokens.issued)
    assert "password" in said
    assert secrets.in_text(said) == []
    assert secrets.in_text(daemon.log()) == []
    assert len(daemon.log().splitlines()) > 20
    assert secrets.files_with_one(tmp_path / "state", tmp_path / "run") == []
    assert secrets.found == set()
    assert secrets.nr_looks > 10


def answers(daemon) -> str:
    """What is said of all devices."""
    commands = (
        ["list", "--json"],
        ["list"],
        ["status", "--json"],
        ["status", "d", "--json"],
        ["status", "d"],
    )
    return "".join(done.stdout + done.stderr for done in (daemon.cli(*words) for words in commands))
