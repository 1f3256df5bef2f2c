"""Who pushes and pulls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.registry.docker_registry import DockerRegistry
from tests.remote.transfer import Account

Program = Callable[..., CompletedProcess[str]]


@pytest.fixture
def account(tmp_path: Path, password_registry: DockerRegistry) -> Account:
    """Of one who may enter password_registry."""
    return Account(tmp_path / "home", password_registry.host)


@pytest.fixture
def transfer(
    program: Callable[..., CompletedProcess[str]], account: Account
) -> Callable[..., CompletedProcess[str]]:
    """Runs ``image push`` or ``pull`` with --json as account."""

    def run(command: object, *arguments: object) -> CompletedProcess[str]:
        return program("image", command, *arguments, "--json", env=account.env)

    return run
