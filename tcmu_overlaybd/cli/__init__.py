"""The command line: ``tcmu-overlaybd`` and its groups of commands.

``COMMANDS`` is the one list of what there is: a command's module is imported when
the command is run, so that ``--help`` and completion need neither the C extension
nor msgspec.  ``main`` is the one place where an exception becomes an exit code and
one sentence on stderr (docs/operations.rst says which).
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple, cast

import click

from tcmu_overlaybd import __version__
from tcmu_overlaybd.cli.interrupt import interruptible
from tcmu_overlaybd.cli.options import PROGRAM, log, verbosity
from tcmu_overlaybd.errors import OverlayBDError

EXIT_FAILED = 1
EXIT_NOT_FOUND = 3
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141  # what a shell reports for a process killed by SIGPIPE


class Entry(NamedTuple):
    """Where a command is defined, and its line in ``--help``."""

    module: str
    attribute: str
    summary: str


COMMANDS: dict[str, Entry] = {
    "layer": Entry("tcmu_overlaybd.cli.layer", "layer", "Create a writable layer, look into a layer file."),
    "image": Entry("tcmu_overlaybd.cli.image", "image", "Import, export, commit, merge, verify, push, pull."),
    "cache": Entry("tcmu_overlaybd.cli.cache", "cache", "List, shrink and check the cache of blobs."),
    "serve": Entry("tcmu_overlaybd.cli.serve", "serve", "Run the daemon that disks need, in the foreground."),
    "upgrade": Entry("tcmu_overlaybd.cli.upgrade", "upgrade", "Let a new daemon take over under load."),
    "attach": Entry("tcmu_overlaybd.cli.device", "attach", "Make a disk, /dev/sdX, of an image."),
    "detach": Entry("tcmu_overlaybd.cli.device", "detach", "Remove a disk."),
    "resize": Entry("tcmu_overlaybd.cli.device", "resize", "Make a disk larger while it is used."),
    "list": Entry("tcmu_overlaybd.cli.device", "list_devices", "List the disks that are attached."),
    "status": Entry("tcmu_overlaybd.cli.device", "status", "Say everything about a disk."),
    "snapshot": Entry("tcmu_overlaybd.cli.snapshot", "snapshot", "Seal what a disk has written; go on."),
    "fork": Entry("tcmu_overlaybd.cli.snapshot", "fork", "Make a second disk of what one has now."),
    "nbd": Entry("tcmu_overlaybd.cli.nbd", "nbd", "Serve an image as NBD from this process."),
    "login": Entry("tcmu_overlaybd.cli.login", "login", "Try a password at a registry, and keep it."),
    "abandon": Entry(
        "tcmu_overlaybd.cli.abandon", "abandon", "Let no shutdown of the machine wait for our disks."
    ),
    "doctor": Entry("tcmu_overlaybd.cli.doctor", "doctor", "Say what is missing on this machine."),
}


class LazyGroup(click.Group):
    """A group whose commands come from ``COMMANDS`` and are imported when used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        return cast(click.Command, getattr(importlib.import_module(entry.module), entry.attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=PROGRAM)
@verbosity
def program() -> None:
    """Container images and VM disks in overlaybd's formats: files, NBD servers, SCSI disks."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code. Never lets an exception out."""
    try:
        with interruptible():
            result = program.main(arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except Exception as error:  # the border: whatever it is ends as a sentence
        return report(error)
    return result if isinstance(result, int) else 0


def report(error: Exception) -> int:
    """Says on stderr what went wrong, in one sentence; returns the exit code."""
    log.debug("%s", "".join(traceback.format_exception(error)))
    if isinstance(error, OverlayBDError):
        say(str(error))
        return error.exit_code
    if isinstance(error, BrokenPipeError) and error.filename is None:
        # Nobody reads our output any more; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    if isinstance(error, OSError):
        say(os_error_sentence(error))
        return EXIT_NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else EXIT_FAILED
    say(f"a fault in {PROGRAM} itself: {type(error).__name__}: {error} (-vv shows where)")
    return EXIT_FAILED


def os_error_sentence(error: OSError) -> str:
    """``/tmp/out: No space left on device``."""
    reason = error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {reason}" if isinstance(error.filename, (str, bytes)) else reason


def say(sentence: str) -> None:
    """One line on stderr, whatever bytes a path or a message holds."""
    click.echo(f"{PROGRAM}: " + " ".join(sentence.split("\n")), err=True)
