"""Options that every command takes, as decorators.

``-v`` and ``-q`` may stand before or after the command's name; what reaches stderr
of the log is decided here and nowhere else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import click

PROGRAM = "tcmu-overlaybd"

log = logging.getLogger("tcmu_overlaybd")

QUIET = "Only errors on stderr, no progress."
MORE = "Say more on stderr; twice for debugging."

F = TypeVar("F", bound=Callable[..., Any])


def be_verbose(_ctx: click.Context, _parameter: click.Parameter, count: int) -> None:
    if count:
        set_level(logging.INFO if count == 1 else logging.DEBUG)


def be_quiet(_ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        set_level(logging.ERROR)


def set_level(level: int) -> None:
    """What of the log reaches stderr from now on."""
    log.setLevel(level)
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(f"{PROGRAM}: %(message)s"))
        log.addHandler(handler)


def is_quiet() -> bool:
    """Whether -q was given: then no progress is shown either."""
    return log.level >= logging.ERROR


def verbosity(command: F) -> F:
    """Adds -v and -q."""
    quiet = click.option("-q", "--quiet", is_flag=True, callback=be_quiet, expose_value=False, help=QUIET)
    verbose = click.option("-v", "--verbose", count=True, callback=be_verbose, expose_value=False, help=MORE)
    return verbose(quiet(command))


def on_timeout_option(command: F) -> F:
    """Adds --on-timeout, passed as ``on_timeout``; "" when it is not given."""
    return click.option(
        "--on-timeout",
        type=click.Choice(["error", "retry", "freeze"]),
        callback=lambda _ctx, _parameter, policy: policy or "",
        help="When data does not come in time: fail (the default), ask again, or wait as long as it takes.",
    )(command)


def json_output(command: F) -> F:
    """Adds --json, passed as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def print_json(value: object) -> None:
    """A result on stdout; keys are part of the contract, so their order is kept."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
