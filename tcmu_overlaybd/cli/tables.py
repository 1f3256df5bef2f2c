"""Facts as lines of text, ``name: value``, nested ones indented; rows in columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click


def print_fields(facts: Mapping[str, object], indent: int = 0) -> None:
    """One line a fact, in the order they come; those that are None or an empty mapping are left out."""
    for name, value in facts.items():
        label = " " * indent + name.replace("_", " ") + ":"
        if isinstance(value, Mapping):
            if value:
                click.echo(label)
            print_fields(value, indent + 2)
        elif isinstance(value, list | tuple):
            for number, item in enumerate(value, 1):
                click.echo(f"{label[:-1].removesuffix('s')} {number} of {len(value)}:")
                print_fields(item, indent + 2)
        elif value is not None:
            click.echo(f"{label} {_text(value)}")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def print_columns(rows: Sequence[tuple[str, ...]]) -> None:
    """The first row is the headings; all have as many cells."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
