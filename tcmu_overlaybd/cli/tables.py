"""Facts as lines of text: ``name: value``, nested ones indented."""

from __future__ import annotations

from collections.abc import Mapping

import click


def print_fields(facts: Mapping[str, object], indent: int = 0) -> None:
    """One line a fact, in the order they come; those that are None are left out."""
    for name, value in facts.items():
        label = " " * indent + name.replace("_", " ") + ":"
        if isinstance(value, Mapping):
            click.echo(label)
            print_fields(value, indent + 2)
        elif isinstance(value, list):
            for number, item in enumerate(value, 1):
                click.echo(f"{label[:-1].removesuffix('s')} {number} of {len(value)}:")
                print_fields(item, indent + 2)
        elif value is not None:
            click.echo(f"{label} {_text(value)}")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
