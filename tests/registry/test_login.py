"""``login``: the registry decides whether a password is kept, and nobody else sees it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tcmu_overlaybd.registry.credentials import Credential
from tcmu_overlaybd.registry.docker_config import DockerConfig
from tests.registry import http_faults as faults
from tests.registry.fixtures import ANNA, USERS

PASSWORD = USERS["anna"]
KINDS = ["password_registry", "token_registry"]


@pytest.fixture
def docker(tmp_path):
    """Environment for the program, and where its passwords go."""
    return {"DOCKER_CONFIG": str(tmp_path / "docker")}


def config_of(docker: dict[str, str]) -> DockerConfig:
    return DockerConfig(Path(docker["DOCKER_CONFIG"]) / "config.json")


@pytest.fixture(params=KINDS)
def guarded(request):
    return request.getfixturevalue(request.param)


def test_a_right_password_is_kept(program, docker, guarded):
    done = program("login", guarded.host, "-u", "anna", "--password-stdin", input=PASSWORD + "\n", env=docker)
    assert (done.returncode, done.stdout) == (0, "")
    config = config_of(docker)
    assert f"{guarded.host}: logged in as anna; kept by {config.path}" in done.stderr
    assert config.find(guarded.host, "any/thing") == ANNA
    assert config.path.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in done.stderr


def test_a_wrong_password_is_not_kept(fails, docker, guarded):
    said = fails(1, "login", guarded.host, "-u", "anna", "--password-stdin", input="wr0ng", env=docker)
    assert said.startswith(guarded.host)
    assert "wr0ng" not in said
    assert not config_of(docker).path.exists()


def test_a_wrong_password_leaves_the_old_one(fails, docker, guarded):
    config_of(docker).store(guarded.host, ANNA)
    before = config_of(docker).path.read_bytes()
    fails(1, "login", guarded.host, "-u", "anna", "--password-stdin", input="wr0ng", env=docker)
    assert config_of(docker).path.read_bytes() == before


def test_a_registry_without_passwords_keeps_none(fails, docker, open_registry):
    said = fails(1, "login", open_registry.host, "-u", "anna", "--password-stdin", input="x", env=docker)
    assert said == f"{open_registry.host}: the registry asks for no password, so none is kept"
    assert not config_of(docker).path.exists()


def test_a_registry_that_is_not_there_is_4(fails, docker):
    said = fails(4, "login", "127.0.0.1:1", "-u", "anna", "--password-stdin", input="x", env=docker)
    assert "127.0.0.1:1" in said
    assert "refused" in said


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["127.0.0.1:1", "--password-stdin"], "x"),
        (["127.0.0.1:1", "-u", "anna", "--password-stdin"], "\n"),
        (["127.0.0.1:1", "-u", "an:na", "--password-stdin"], "x"),
        (["https://127.0.0.1:1", "-u", "anna", "--password-stdin"], "x"),
        (["127.0.0.1:1/repository", "-u", "anna", "--password-stdin"], "x"),
        (["127.0.0.1:1", "-u", "anna"], "x"),
    ],
    ids=["no user", "no password", "colon", "URL", "path", "no terminal"],
)
def test_wrong_usage_is_2(fails, docker, arguments, given):
    fails(2, "login", *arguments, input=given, env=docker)


def test_a_helper_keeps_it_where_one_is_configured(program, docker, password_registry, tmp_path):
    helper = tmp_path / "docker-credential-keys"
    helper.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\ncat > {tmp_path}/kept\n')
    helper.chmod(0o755)
    config = config_of(docker)
    config.path.parent.mkdir()
    config.path.write_text('{"credsStore": "keys"}')
    env = {**docker, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = program("login", password_registry.host, "-u", "anna", "--password-stdin", input=PASSWORD, env=env)
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "kept").read_text())
    assert kept == {"ServerURL": password_registry.host, "Username": "anna", "Secret": PASSWORD}
    assert (tmp_path / "arguments").read_text() == "store\n"
    assert PASSWORD not in config.path.read_text()


def test_a_terminal_is_asked_without_echo(docker, password_registry):
    said, code = on_a_terminal(
        ["login", password_registry.host], [("Username", "anna"), ("Password", PASSWORD)], docker
    )
    assert code == 0, said
    assert PASSWORD not in said
    assert config_of(docker).find(password_registry.host, "a") == ANNA


def on_a_terminal(
    arguments: list[str], answers: list[tuple[str, str]], env: dict[str, str]
) -> tuple[str, int]:
    """Runs the program on a terminal; gives what it showed, typed characters included, and its code."""
    main, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tcmu_overlaybd", *arguments],
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        start_new_session=True,
        env={**os.environ, **env},
    )
    os.close(secondary)
    said = b""
    for question, answer in answers:
        while question.encode() not in said:
            said += os.read(main, 4096)
        time.sleep(0.2)  # the question is shown before the echo is off
        os.write(main, answer.encode() + b"\n")
    try:
        while more := os.read(main, 4096):
            said += more
    except OSError:
        pass  # the terminal's other end is closed
    os.close(main)
    return said.decode(), process.wait(30)


def test_the_password_is_in_no_command_line_and_no_log(docker, server, tmp_path):
    """The registry takes its time, so that the process can be looked at."""
    server.always("/v2/", faults.Stall())
    command = [
        sys.executable,
        "-m",
        "tcmu_overlaybd",
        "-vv",
        "login",
        server.host,
        "-u",
        "anna",
        "--password-stdin",
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env={**os.environ, **docker}
        )
        assert process.stdin
        process.stdin.write(b"s3cret")
        process.stdin.close()
        while not server.seen:
            time.sleep(0.01)
            assert process.poll() is None
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        shown += Path(f"/proc/{process.pid}/environ").read_bytes()
        server.always("/v2/", faults.unauthorized("Basic"))
        server.close_stalled()
        assert process.wait(30) == 1
    shown += (tmp_path / "log").read_bytes()
    for secret in ("s3cret", Credential("anna", "s3cret").basic().removeprefix("Basic ")):
        assert secret.encode() not in shown
