"""Writes the man pages from the command line itself, so that the two cannot differ.

    python packaging/make-man.py FOLDER

One page for the program and one for every command that has no commands of its
own, in troff's man macros.
"""

from __future__ import annotations

import datetime
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from tcmu_overlaybd import __version__
from tcmu_overlaybd.cli import program

PROGRAM = "tcmu-overlaybd"

EXIT_CODES = (
    ("0", "done"),
    ("1", "failed; one sentence on stderr says why"),
    ("2", "wrong usage"),
    ("3", "not found: a file, a tag, a device"),
    ("4", "something needed is missing or does not answer; the sentence names it"),
    ("5", "data is corrupt: cut short, or a checksum or digest does not match"),
    ("130", "ended by Ctrl-C"),
    ("141", "nobody reads the output any more"),
)
# Of single commands, beside those.
MORE_EXIT_CODES = {
    "nbd": (("any", "with --run: that of the command; 128 and its number if a signal ended it"),),
    "doctor": (("4", "something is missing for disks; what there is of the rest works"),),
}


def escape(text: str) -> str:
    """Text that troff prints as it stands."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").splitlines()
    return "\n".join("\\&" + line if line.startswith((".", "'")) else line for line in lines)


def walk(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """The command and all below it, each with the context that names it."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from walk(below, click.Context(below, info_name=name, parent=context))


def options_of(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record:
            yield f".TP\n.B {escape(record[0])}\n{escape(record[1])}\n"


def page(command: click.Command, context: click.Context, date: str) -> str:
    name = context.command_path.replace(" ", "-")
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [
        f'.TH {name.upper()} 1 {date} "{PROGRAM} {__version__}"\n',
        f".SH NAME\n{escape(name)} \\- {escape(command.get_short_help_str(200))}\n",
        f".SH SYNOPSIS\n.B {escape(context.command_path)}\n{escape(usage)}\n",
        f".SH DESCRIPTION\n{escape(inspect.cleandoc(command.help or '').replace(chr(8), ''))}\n",
        ".SH OPTIONS\n" + "".join(options_of(command, context)),
    ]
    if isinstance(command, click.Group):
        rows = [
            f".TP\n.B {escape(below)}\n{escape(found.get_short_help_str(200))}\n"
            for below in command.list_commands(context)
            if (found := command.get_command(context, below)) is not None
        ]
        parts.append(".SH COMMANDS\n" + "".join(rows))
    parts.append(".SH EXIT STATUS\n" + exit_codes(context.info_name or ""))
    return "".join(parts)


def exit_codes(command: str) -> str:
    rows = (*EXIT_CODES, *MORE_EXIT_CODES.get(command, ()))
    return "".join(f".TP\n.B {code}\n{escape(text)}\n" for code, text in rows)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # The same sources give the same pages: the date is the commit's where the caller says so.
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    now = (
        datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
        if seconds
        else datetime.datetime.now(datetime.UTC)
    )
    for command, context in walk(program, click.Context(program, info_name=PROGRAM)):
        name = context.command_path.replace(" ", "-")
        (folder / f"{name}.1").write_text(page(command, context, now.date().isoformat()), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
