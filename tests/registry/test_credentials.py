"""Where passwords come from: docker's config.json, helpers, the longest match."""

from __future__ import annotations

import base64
import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmu_overlaybd.errors import FailedError, FormatError, TimeoutExpiredError, UnavailableError
from tcmu_overlaybd.registry.credential_helper import helper_get
from tcmu_overlaybd.registry.credentials import (
    Credential,
    CredentialChain,
    FixedCredential,
    NoCredentials,
    longest_match,
)
from tcmu_overlaybd.registry.docker_config import DockerConfig, decode_auth, docker_config_path

ANNA = Credential("anna", "s3cret")


@pytest.fixture
def config(tmp_path):
    return DockerConfig(tmp_path / "docker" / "config.json")


def write(config: DockerConfig, value: object, mode: int = 0o600) -> DockerConfig:
    config.path.parent.mkdir(exist_ok=True)
    config.path.write_text(value if isinstance(value, str) else json.dumps(value))
    config.path.chmod(mode)
    return config


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """Installs docker-credential-NAME, a shell script; its stdin is kept in NAME.in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def install(name: str, script: str) -> Path:
        program = folder / f"docker-credential-{name}"
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {folder}/{name}.arguments\ncat > {folder}/{name}.in\n{script}\n'
        )
        program.chmod(0o755)
        return folder / f"{name}.in"

    return install


# -- the longest match


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["h"], "h"),
        (["h", "h/a", "h/a/b"], "h/a/b"),
        (["h/a/b", "h/a", "h"], "h/a/b"),
        (["h/a/b/c", "h/a/bb", "h/ab", "x/a/b"], None),
        (["https://h"], "https://h"),
        (["https://H/v1/"], "https://H/v1/"),
        (["https://h/v2"], "https://h/v2"),
        (["h:5000"], None),
        (["h/a/"], "h/a/"),
        ([], None),
    ],
)
def test_of_keys_the_longest_prefix_counts(keys, expected):
    assert longest_match(keys, "h", "a/b") == expected


NAMES = st.sampled_from("abc")


@given(
    st.lists(st.lists(NAMES, max_size=3).map(lambda parts: "/".join(["h", *parts])), max_size=8),
    st.lists(NAMES, min_size=1, max_size=4),
)
def test_the_match_is_a_prefix_by_whole_names_and_none_is_longer(keys, repository):
    whole = ["h", *repository]
    fitting = [key for key in keys if whole[: len(key.split("/"))] == key.split("/")]
    found = longest_match(keys, "h", "/".join(repository))
    assert found == (max(fitting, key=len) if fitting else None)


# -- auths


@pytest.mark.parametrize(
    "entry",
    [
        auth("anna", "s3cret"),
        {"username": "anna", "password": "s3cret"},
        {**auth("anna", "s3cret"), "username": "x"},
    ],
)
def test_auths_hold_passwords_in_two_forms(config, entry):
    write(config, {"auths": {"h": entry, "other": {"auth": "broken"}}})
    assert config.find("h", "a") == ANNA
    assert config.find("x", "a") is None


def test_an_identity_token_is_no_password(config):
    write(config, {"auths": {"h": {"identitytoken": "T"}, "t": auth("<token>", "U")}})
    assert config.find("h", "a") == Credential("", identity_token="T")
    assert config.find("t", "a") == Credential("", identity_token="U")


@given(
    st.text(st.characters(exclude_characters=":", codec="utf-8"), min_size=1),
    st.text(st.characters(exclude_characters="\0", codec="utf-8")),
)
def test_decode_auth_divides_at_the_first_colon(user, password):
    assert decode_auth(auth(user, password)["auth"], "x") == (user, password)


@given(st.text(max_size=40))
def test_any_auth_is_a_pair_or_an_error_that_does_not_quote_it(text):
    said = "x: not base64 of USER:PASSWORD"
    try:
        pair = decode_auth(text, "x")
    except FormatError as error:
        said = str(error)
    else:
        assert ":" not in pair[0]
    assert said == "x: not base64 of USER:PASSWORD"


@pytest.mark.parametrize(
    "value", ["{", "[]", '{"auths": []}', '{"auths": {"h": {"auth": 5}}}', '{"credsStore": 1}']
)
def test_a_broken_file_is_an_error_that_names_it(config, value):
    with pytest.raises(FormatError, match=r"config\.json: "):
        write(config, value).find("h", "a")


@pytest.mark.parametrize(
    "value", [{}, {"auths": None, "credHelpers": None}, {"auths": {"h": {}}}, {"other": [1]}]
)
def test_a_file_without_an_answer_means_nobody(config, value):
    assert write(config, value).find("h", "a") is None


def test_no_file_means_nobody(config):
    assert config.find("h", "a") is None


def test_the_file_is_read_anew_each_time(config):
    write(config, {"auths": {"h": auth("anna", "old")}})
    assert config.find("h", "a") == Credential("anna", "old")
    write(config, {"auths": {"h": auth("anna", "new")}})
    assert config.find("h", "a") == Credential("anna", "new")


def test_a_file_that_others_may_read_is_warned_of_once(config, caplog):
    write(config, {}, mode=0o644)
    with caplog.at_level(logging.WARNING):
        config.find("h", "a")
        config.find("h", "a")
    assert [record.getMessage() for record in caplog.records] == [
        f"{config.path}: holds passwords and can be read by others: chmod 600 it"
    ]


def test_the_folder_of_docker_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert docker_config_path() == tmp_path / "config.json"
    monkeypatch.delenv("DOCKER_CONFIG")
    monkeypatch.setenv("HOME", "/home/anna")
    assert docker_config_path() == Path("/home/anna/.docker/config.json")


def test_a_chain_takes_the_first_answer():
    chain = CredentialChain([NoCredentials(), FixedCredential(ANNA), FixedCredential(Credential("x"))])
    assert chain.find("h", "a") == ANNA
    assert CredentialChain([]).find("h", "a") is None


# -- helpers

ANSWER = """echo '{"ServerURL": "h", "Username": "anna", "Secret": "s3cret"}'"""


def test_a_helper_is_asked_on_stdin(config, helper):
    asked = helper("keys", ANSWER)
    write(config, {"credsStore": "keys"})
    assert config.find("h", "a") == ANNA
    assert asked.read_text() == "h"
    assert asked.with_suffix(".arguments").read_text() == "get\n"


def test_a_helper_of_one_host_goes_before_that_of_all(config, helper):
    helper("keys", "exit 1")
    helper("special", ANSWER)
    write(config, {"credsStore": "keys", "credHelpers": {"h": "special"}})
    assert config.find("h", "a") == ANNA


def test_a_helper_that_knows_nothing_leaves_it_to_auths(config, helper):
    helper("keys", "echo credentials not found in native keychain; exit 1")
    write(config, {"credsStore": "keys", "auths": {"h": auth("anna", "s3cret")}})
    assert config.find("h", "a") == ANNA
    assert config.find("x", "a") is None


def test_a_helper_may_have_an_identity_token(helper):
    helper("keys", """echo '{"Username": "<token>", "Secret": "T"}'""")
    assert helper_get("keys", "h") == Credential("", identity_token="T")


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("echo s3cret; exit 1", "get of h failed with exit code 1"),
        ("echo s3cret", "not in docker's form"),
        ("""echo '{"Username": "anna", "Secret": ["s3cret"]}'""", "not in docker's form"),
    ],
)
def test_a_failing_helper_is_named_and_its_words_are_not_repeated(helper, script, complaint):
    helper("keys", script)
    with pytest.raises(FailedError, match=complaint) as failed:
        helper_get("keys", "h")
    assert "s3cret" not in str(failed.value)
    assert failed.value.__cause__ is None


def test_a_helper_that_hangs_ends_at_its_deadline(helper):
    helper("keys", "exec sleep 60")
    with pytest.raises(TimeoutExpiredError, match="docker-credential-keys get: no answer"):
        helper_get("keys", "h", timeout_s=0.2)


def test_a_helper_that_is_not_there_is_unavailable(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="docker-credential-keys: not installed"):
        helper_get("keys", "h")


@pytest.mark.parametrize("name", ["../x", "a b", "", "/bin/sh", "x;y"])
def test_the_name_of_a_helper_leads_nowhere_else(name):
    with pytest.raises(FailedError, match="which is no name"):
        helper_get(name, "h")


# -- storing


def test_what_is_stored_is_found_and_the_rest_of_the_file_stays(config):
    write(config, {"auths": {"x": auth("otto", "o")}, "HttpHeaders": {"A": "b"}}, mode=0o644)
    assert config.store("h:5000", ANNA) == str(config.path)
    assert config.find("h:5000", "a") == ANNA
    assert config.find("x", "a") == Credential("otto", "o")
    assert json.loads(config.path.read_text())["HttpHeaders"] == {"A": "b"}
    assert config.path.stat().st_mode & 0o777 == 0o600


def test_the_first_password_makes_folder_and_file_for_the_owner_only(config):
    config.store("h", ANNA)
    assert config.path.stat().st_mode & 0o777 == 0o600
    assert config.path.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in config.path.parent.iterdir()] == ["config.json"]


def test_a_link_to_the_file_stays_a_link(config, tmp_path):
    config.path.parent.mkdir()
    config.path.symlink_to(tmp_path / "elsewhere.json")
    config.store("h", ANNA)
    assert config.path.is_symlink()
    assert DockerConfig(tmp_path / "elsewhere.json").find("h", "a") == ANNA


def test_with_a_helper_the_password_is_not_in_the_file(config, helper):
    given = helper("keys", ANSWER)
    write(config, {"credsStore": "keys"})
    assert config.store("h", ANNA) == "docker-credential-keys"
    assert json.loads(given.read_text()) == {"ServerURL": "h", "Username": "anna", "Secret": "s3cret"}
    assert json.loads(config.path.read_text()) == {"credsStore": "keys", "auths": {"h": {}}}


def test_a_broken_file_is_not_written_over(config):
    write(config, "{broken")
    with pytest.raises(FormatError):
        config.store("h", ANNA)
    assert config.path.read_text() == "{broken"
