"""Commands that the demo runs, and the programs that it keeps running meanwhile.

Whatever is started ends with the demo: with the ``with`` block that holds it, also
when that is left by Ctrl-C or a failure, and by the kernel's hand when the demo is
killed (PR_SET_PDEATHSIG).  What is kept running gets no Ctrl-C of the terminal itself,
since it must outlive those that use it: a disk before the daemon, that before the
registry.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PROGRAM = (sys.executable, "-m", "tcmu_overlaybd")
END_SECONDS = 30.0


class CommandError(RuntimeError):
    """A command of the demo failed; the message has its output."""


def run(*arguments: object, timeout: float = 300, stdin: str | None = None) -> str:
    """Runs a command and returns its stdout; CommandError when it fails."""
    words = [str(a) for a in arguments]
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, check=False, timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{' '.join(words)}: not done after {timeout:g} s") from error
    if done.returncode != 0:
        raise CommandError(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def overlaybd(*arguments: object, timeout: float = 300, stdin: str | None = None) -> str:
    return run(*PROGRAM, *arguments, timeout=timeout, stdin=stdin)


@contextlib.contextmanager
def running(
    *arguments: object, output: int | IO[bytes], errors: int | IO[bytes] = subprocess.STDOUT
) -> Iterator[subprocess.Popen[str]]:
    """A program that runs until the block ends, then is told to end, and at last made to."""
    command = ["setpriv", "--pdeathsig", "TERM", *(str(a) for a in arguments)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def tail(log: Path) -> str:
    """The end of what a program wrote, for the sentence that says that it failed."""
    return log.read_text(errors="replace")[-2000:]
