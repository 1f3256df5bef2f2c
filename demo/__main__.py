"""Runs the demo: ``python -m demo [--door kernel|uml|nbd] [--json]``.

Outside, the files are collected, the base layer is made and a door is chosen;
``inside`` (perhaps within the VM) does everything that needs a disk or the registry.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NoReturn

from demo import doors, home
from demo.by_name import ByName
from demo.disks import Disks, NbdDisks, describe, kernel_disks
from demo.files import Change, collect
from demo.processes import CommandError, overlaybd, run, running
from demo.registry import running_registry
from demo.story import Story, TerminalStory, WireStory, relay

WORK = Path("build/demo").resolve()
DISK_SIZE = 1 << 30


def make_base(work: Path, story: Story) -> None:
    """source/ and base.tar: the files, and the same files as a base layer."""
    story.chapter("Real files become a base layer")
    files, size = collect(work / "source", story)
    story.fact(f"{files:,} files, {size / (1 << 20):.0f} MiB, from installed Debian packages")
    raw = work / "base.raw"
    run(
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-d",
        work / "source",
        "-E",
        "root_owner=0:0",
        raw,
        f"{DISK_SIZE >> 10}k",
    )
    begin = time.monotonic()
    overlaybd("image", "import", raw, "-o", work / "base.tar", "--zfile", "lz4", "--tar")
    story.fact(
        f"mke2fs -d, then image import: {describe(work / 'base.tar')}, {time.monotonic() - begin:.1f} s"
    )
    raw.unlink()


def change_and_commit(disks: Disks, work: Path, below: Sequence[object], number: int, story: Story) -> Path:
    """Edits what is below through a writable disk, and the source alike; returns the new layer."""
    upper, layer = work / f"upper-{number}", work / f"layer-{number}.tar"
    change = Change(seed=number)
    with disks.opened(below, upper) as disk:
        story.fact("on the disk: " + change.apply(disk.tree()))
    change.apply(work / "source")
    overlaybd("image", "commit", upper / "config.v1.json", "-o", layer, "--zfile", "lz4", "--tar")
    story.fact(f"committed: {describe(layer)}")
    return layer


def inside(work: Path, door: str, story: Story) -> None:
    """Everything that needs a disk; the registry outlives all that read from it."""
    folder = work / "home"
    with (
        home.on_vm_disk(folder) if door == "uml" else nullcontext(),
        home.moved_in(folder),
        running_registry(folder / "registry") as registry,
        disks_behind(door, work) as disks,
    ):
        base = work / "base.tar"
        story.chapter("A writable disk on top, and what changed becomes a layer")
        layer = change_and_commit(disks, work, [base], 1, story)
        story.chapter("The layers become an image in a registry")
        registry.log_in()
        story.fact(f"docker-registry on {registry.host}, with a password: logged in")
        by_name = ByName(registry, disks, work / "source", story)
        image = by_name.push("1", [base, layer])
        story.chapter("Its name becomes a disk: nothing of it is here yet")
        openings = [by_name.compare(image, "cold")]
        story.chapter("Once more: write on top of the name, commit, push, compare")
        layer = change_and_commit(disks, work, [image.reference], 2, story)
        image = by_name.push_on_top("2", image, layer)
        openings.append(by_name.compare(image, "one layer more"))
        story.figures(door, [opening.facts() for opening in openings])


def disks_behind(door: str, work: Path) -> AbstractContextManager[Disks]:
    return nullcontext(NbdDisks(work)) if door == "nbd" else kernel_disks(work)


def in_uml(work: Path, story: Story) -> None:
    """Runs ``inside`` in the VM and tells its story here.

    The VM sees this machine's files but not its network: the registry runs in there, too.
    """
    with home.vm_disk(work / "disk.ext4") as disk:
        command = ["vagrant/umlrun", "-t", "600", "-m", "1G", "-w", work, "-d", disk, "--"]
        command += [sys.executable, "-m", "demo", "--inside", "uml", "--work", work]
        with running(*command, output=subprocess.PIPE) as vm:
            others = relay(vm.stdout or (), story)
            vm.wait()
    if vm.returncode != 0:
        raise CommandError(f"in the VM: exit {vm.returncode}\n" + "\n".join(others[-30:]))


def outside(work: Path, wanted: str | None, story: Story) -> None:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    door = doors.choose(wanted)
    begin = time.monotonic()
    make_base(work, story)
    story.fact(f"from here on {door.why}")
    if door.name == "uml":
        in_uml(work, story)
    else:
        inside(work, door.name, story)
    story.chapter(f"Done in {time.monotonic() - begin:.0f} s")
    story.fact(f"the layers are in {work}")


def interrupt(_number: int, _frame: object) -> NoReturn:
    """As Ctrl-C: what was started is ended, innermost first."""
    raise KeyboardInterrupt


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--door", choices=["kernel", "uml", "nbd"])
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--json", action="store_true", help="the figures on stdout, the story on stderr")
    parser.add_argument("--inside", choices=["kernel", "uml", "nbd"], help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        if arguments.inside:
            inside(arguments.work, arguments.inside, WireStory())
            return 0
        story = TerminalStory(on_stderr=arguments.json)
        outside(arguments.work.resolve(), arguments.door, story)
        if arguments.json:
            print(json.dumps(story.measured, indent=2))
    except CommandError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; what it had started has ended", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
