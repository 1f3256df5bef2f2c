"""``tcmu-overlaybd serve``: the daemon, in the foreground."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click

from tcmu_overlaybd.cli.device import daemon_socket
from tcmu_overlaybd.cli.options import log, set_level, verbosity
from tcmu_overlaybd.cli.store import CONFIG_VARIABLE
from tcmu_overlaybd.config.service_config import ServiceConfig, load_service_config
from tcmu_overlaybd.daemon.folders import Folders

# Levels as the reference counts them in its configuration.
LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar=CONFIG_VARIABLE,
    help=f"overlaybd.json of the service (also ${CONFIG_VARIABLE}).",
)
@daemon_socket
@verbosity
def serve(*, config_path: Path | None, socket_path: Path | None) -> None:
    """Run the daemon in the foreground. It ends, in order, at SIGTERM or Ctrl-C."""
    from tcmu_overlaybd.daemon import service
    from tcmu_overlaybd.native import testing

    config = load_service_config(config_path) if config_path is not None else ServiceConfig()
    start_log(config)
    testing.arm_from_environment()
    end_at_once(0 if service.serve(Folders.choose(), config, socket_path) else 1)


def start_log(config: ServiceConfig) -> None:
    """To stderr, or to the file that the configuration names; -v and -q have been heard already."""
    if log.level == logging.NOTSET:
        set_level(LEVELS[config.log.log_level])
    handler: logging.Handler = logging.StreamHandler()
    if config.log.log_path:
        handler = logging.FileHandler(config.log.log_path)
    handler.setFormatter(logging.Formatter(FORMAT))
    log.handlers[:] = [handler]
    log.propagate = False


def end_at_once(code: int) -> None:
    """A thread of ours may still wait for a disk or for the kernel; the end of the interpreter would, too."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)
