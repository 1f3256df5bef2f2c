"""``tcmu-overlaybd doctor``: what is missing on this machine, and the command that mends it.

It only looks, but for --repair.  It never initialises libtcmu, which would reset the rings of
a daemon that lives.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from tcmu_overlaybd import __version__
from tcmu_overlaybd.cli.device import connect, daemon_socket
from tcmu_overlaybd.cli.options import json_output, print_json, verbosity
from tcmu_overlaybd.daemon.client import Client
from tcmu_overlaybd.daemon.folders import Folders
from tcmu_overlaybd.daemon.messages import Version
from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.lio.helper import PROGRAM
from tcmu_overlaybd.lio.modules import Fact, facts
from tcmu_overlaybd.lio.tcmu_listeners import other_listeners

EXIT_MISSING = 4
DAEMON_TIMEOUT_S = 5


@click.command()
@click.option(
    "--registry", metavar="HOST[:PORT]", help="Ask this registry, too, with the password kept for it."
)
@click.option("--repair", is_flag=True, help="Remove what a daemon that died left behind.")
@daemon_socket
@json_output
@verbosity
def doctor(*, registry: str | None, repair: bool, socket_path: Path | None, as_json: bool) -> int:
    """Say what is missing for disks on this machine. Exit code 4 when something is.

    Without --repair it only looks.
    """
    from tcmu_overlaybd.cli.start_facts import leftovers_fact, start_facts

    client, folders = connect(socket_path), Folders.choose()
    found = [
        Fact("version", True, __version__),
        extension_fact(),
        helper_fact(),
        *facts(),
        *daemon_facts(client),
        *start_facts(client, folders),
        leftovers_fact(client, folders, repair=repair),
        *remote_facts(registry),
    ]
    if as_json:
        print_json([asdict(fact) for fact in found])
    else:
        for fact in found:
            show(fact)
    return 0 if all(fact.ok for fact in found) else EXIT_MISSING


def show(fact: Fact) -> None:
    click.echo(f"{'ok     ' if fact.ok else 'MISSING'} {fact.name}: {fact.detail}")
    if fact.remedy:
        click.echo(f"        mend it with: {fact.remedy}")


def extension_fact() -> Fact:
    try:
        import tcmu_overlaybd.native.image  # noqa: F401
    except ImportError as error:
        return Fact("data plane", False, str(error), "make build, or: pip install .")
    return Fact("data plane", True, "the C extension loads")


def helper_fact() -> Fact:
    if PROGRAM.exists():
        return Fact("helper", True, str(PROGRAM))
    return Fact("helper", False, f"{PROGRAM} is not there", "make build, or: pip install .")


def daemon_facts(client: Client) -> list[Fact]:
    """Ours, and others that serve devices of TCMU."""
    try:
        version = client.version(DAEMON_TIMEOUT_S)
    except OverlayBDError as error:
        return [Fact("daemon", False, str(error), "tcmu-overlaybd serve"), others_fact(None)]
    detail = f"version {version.version}, pid {version.pid}, hub {version.hub}, socket {client.path}"
    if version.version != __version__:
        return [Fact("daemon", False, f"{detail}: not this version", "restart it"), others_fact(version)]
    return [Fact("daemon", True, detail), others_fact(version)]


def others_fact(version: Version | None) -> Fact:
    """A daemon beside ours.  tcmu-runner refuses devices that it does not serve, and the kernel takes
    the first answer."""
    name = "other daemons"
    others = other_listeners([version.pid] if version else [])
    if not others:
        return Fact(name, True, "nobody else serves devices of TCMU")
    listed = ", ".join(map(str, others))
    if version is None:
        return Fact(name, True, f"{listed}: our daemon will take the netlink hub")
    if version.hub == "netlink":
        return Fact(name, True, f"{listed}; our hub is netlink, so each answers for its own devices")
    return Fact(
        name, False, f"{listed}: refuses our devices, as ours does its", "tcmu-overlaybd serve --hub netlink"
    )


def remote_facts(registry: str | None) -> list[Fact]:
    """As the configuration says that $TCMU_OVERLAYBD_CONFIG names."""
    from tcmu_overlaybd.cli.registry_facts import cache_fact, passwords_fact, registry_fact
    from tcmu_overlaybd.cli.store import CONFIG_VARIABLE, chosen_settings
    from tcmu_overlaybd.registry.docker_config import docker_config_path

    try:
        settings = chosen_settings()
    except OverlayBDError as error:
        return [Fact("configuration", False, str(error), f"mend the file that ${CONFIG_VARIABLE} names")]
    asked = [registry_fact(registry, settings)] if registry else []
    return [cache_fact(settings), passwords_fact(docker_config_path()), *asked]
