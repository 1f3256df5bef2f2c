"""Writes the completion files of bash, zsh and fish, from the command line itself.

    python packaging/make-completion.py FOLDER

Below FOLDER each lies where its shell looks below ``/usr/share``.  The files only ask
the program, so commands and options of a later version are completed, too.
"""

from __future__ import annotations

import sys
from pathlib import Path

from click.shell_completion import get_completion_class

from tcmu_overlaybd.cli import program

PROGRAM = "tcmu-overlaybd"
VARIABLE = "_TCMU_OVERLAYBD_COMPLETE"

PLACES = {
    "bash": f"bash-completion/completions/{PROGRAM}",
    "zsh": f"zsh/vendor-completions/_{PROGRAM}",
    "fish": f"fish/vendor_completions.d/{PROGRAM}.fish",
}


def main(folder: Path) -> None:
    for shell, place in PLACES.items():
        kind = get_completion_class(shell)
        assert kind is not None  # noqa: S101  click has had all three since 8.0
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(kind(program, {}, PROGRAM, VARIABLE).source(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
