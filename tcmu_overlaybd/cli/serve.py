"""``tcmu-overlaybd serve``: the daemon, in the foreground."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click
from msgspec.structs import replace

from tcmu_overlaybd import __version__
from tcmu_overlaybd.cli.device import daemon_socket
from tcmu_overlaybd.cli.options import log, set_level, verbosity
from tcmu_overlaybd.cli.store import CONFIG_VARIABLE
from tcmu_overlaybd.config.service_config import HubChoice, LogFormat, ServiceConfig, load_service_config
from tcmu_overlaybd.daemon.folders import Folders
from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.logs.output import install

# Levels as the reference counts them in its configuration.
LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar=CONFIG_VARIABLE,
    help=f"overlaybd.json of the service (also ${CONFIG_VARIABLE}).",
)
@click.option(
    "--hub",
    type=click.Choice(["auto", "libtcmu", "netlink"]),
    help="Who speaks with the kernel; instead of the configuration's hub, else auto.",
)
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), help="How the log is written. [default: text]"
)
@click.option(
    "--metrics", metavar="ADDRESS:PORT", help="Serve metrics there, too: http://ADDRESS:PORT/metrics."
)
@daemon_socket
@verbosity
def serve(
    *,
    config_path: Path | None,
    hub: HubChoice | None,
    log_format: LogFormat | None,
    metrics: str | None,
    socket_path: Path | None,
) -> None:
    """Run the daemon in the foreground. It ends, in order, at SIGTERM or Ctrl-C."""
    from tcmu_overlaybd.daemon import service
    from tcmu_overlaybd.daemon.metrics_server import parse_address
    from tcmu_overlaybd.daemon.start_failure import note_failure
    from tcmu_overlaybd.native import testing

    config = load_service_config(config_path) if config_path is not None else ServiceConfig()
    if log_format is not None:
        log_config = replace(config.log_config, log_format=log_format)
        config = replace(config, log_config=log_config)
    if metrics is not None:
        config = replace(config, exporter_config=parse_address(metrics))
    if hub is not None:
        config = replace(config, hub=hub)
    start_log(config)
    testing.arm_from_environment()
    folders = Folders.choose()
    try:
        is_closed = service.serve(folders, config, socket_path)
    except OverlayBDError as error:
        note_failure(folders.run, __version__, error)
        raise
    end_at_once(0 if is_closed else 1)


def start_log(config: ServiceConfig) -> None:
    """As the configuration says; -v and -q have been heard already."""
    if log.level == logging.NOTSET:
        set_level(LEVELS[config.log.log_level])
    install(log, config.log)


def end_at_once(code: int) -> None:
    """A thread of ours may still wait for a disk or for the kernel; the end of the interpreter would, too."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)
