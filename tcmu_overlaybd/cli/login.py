"""``tcmu-overlaybd login``: try a password at a registry, and keep it where docker does."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tcmu_overlaybd.cli.options import verbosity
from tcmu_overlaybd.errors import UsageError

MAX_PASSWORD = 1 << 16  # characters


@click.command()
@click.argument("host")
@click.option("-u", "--username", help="Who you are there; asked for when absent.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin, not from the terminal.")
@click.option("--ca-file", type=click.Path(path_type=Path), help="Trust this CA (PEM) and no other.")
@click.option("--insecure", is_flag=True, help="Send the password in plain HTTP if the registry wants it so.")
@verbosity
def login(
    *, host: str, username: str | None, password_stdin: bool, ca_file: Path | None, insecure: bool
) -> None:
    """Try a password at the registry HOST[:PORT] and keep it in docker's config.json.

    The file is $DOCKER_CONFIG/config.json, else ~/.docker/config.json; where it names a
    credential helper, that one keeps the password.
    """
    from tcmu_overlaybd.registry.credentials import Credential
    from tcmu_overlaybd.registry.docker_config import DockerConfig, docker_config_path
    from tcmu_overlaybd.registry.login import log_in
    from tcmu_overlaybd.registry.transport import Transport

    credential = Credential(*ask(username, password_stdin))
    insecure_hosts = frozenset({host.lower()}) if insecure else frozenset()
    where = log_in(host, credential, DockerConfig(docker_config_path()), Transport(ca_file), insecure_hosts)
    click.echo(f"{host}: logged in as {credential.username}; kept by {where}", err=True)


def ask(username: str | None, password_stdin: bool) -> tuple[str, str]:
    """User and password; never from the command line, where every user of the machine reads it."""
    if password_stdin:
        if not username:
            raise UsageError("--password-stdin takes the password only: give the user with -u")
        password = sys.stdin.read(MAX_PASSWORD).rstrip("\r\n")
    elif not sys.stdin.isatty():
        raise UsageError("no terminal to ask for the password on: give it with --password-stdin")
    else:
        username = username or click.prompt("Username", err=True)
        password = click.prompt("Password", hide_input=True, err=True)
    if not password:
        raise UsageError("the password is empty")
    if ":" in username:
        raise UsageError("a user name with a colon cannot be sent to a registry")
    return username, password
