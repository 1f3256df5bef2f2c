"""Runs the demo: ``python -m demo [--door kernel|uml|nbd]``.

Outside, the files are collected, the base layer is made and a door is chosen;
``inside`` (perhaps within the VM) does everything that needs a disk.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from demo import doors
from demo.disks import CommandError, KernelDisks, NbdDisks, describe, overlaybd, run
from demo.files import Change, collect, differences
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


def change_and_commit(
    disks: KernelDisks | NbdDisks, work: Path, layers: list[Path], number: int, story: Story
) -> Path:
    """Edits the stack through a writable disk and the source alike; returns the new layer."""
    upper, layer = work / f"upper-{number}", work / f"layer-{number}.tar"
    change = Change(seed=number)
    with disks.opened(layers, upper) as tree:
        story.fact("on the disk: " + change.apply(tree))
    change.apply(work / "source")
    overlaybd("image", "commit", upper / "config.v1.json", "-o", layer, "--zfile", "lz4", "--tar")
    story.fact(f"committed: {describe(layer)}")
    return layer


def compare(disks: KernelDisks | NbdDisks, work: Path, layers: list[Path], story: Story) -> None:
    """Attaches the stack read-only and compares every file; CommandError when one differs."""
    begin = time.monotonic()
    with disks.opened(layers, None) as tree:
        ready = time.monotonic() - begin
        same, wrong = differences(tree, work / "source", story, "comparing the sha256 of every file")
    if wrong:
        raise CommandError(f"{len(wrong)} files are wrong:\n" + "\n".join(wrong[:10]))
    how = "copied out over NBD in" if isinstance(disks, NbdDisks) else "attached and mounted in"
    story.fact(
        f"{len(layers)} layers, read-only, {how} {ready * 1e3:.0f} ms: all {same:,} files equal the source"
    )


def inside(work: Path, door: str, story: Story) -> None:
    layers = [work / "base.tar"]
    disks = NbdDisks(work) if door == "nbd" else KernelDisks(work)
    with disks:
        story.chapter("A writable disk on top, and what changed becomes a layer")
        layers.append(change_and_commit(disks, work, layers, 1, story))
        story.chapter("The stack, read-only, against the source")
        compare(disks, work, layers, story)
        story.chapter("Once more: write, commit, compare")
        layers.append(change_and_commit(disks, work, layers, 2, story))
        compare(disks, work, layers, story)


def in_uml(work: Path, story: Story) -> None:
    """Runs ``inside`` in the VM and tells its story here."""
    command = ["vagrant/umlrun", "-t", "900", "-m", "1G", "-w", str(work), "--"]
    command += [sys.executable, "-m", "demo", "--inside", "kernel", "--work", str(work)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as vm:
        others = relay(vm.stdout or (), story)
    if vm.returncode != 0:
        raise CommandError(f"in the VM: exit {vm.returncode}\n" + "\n".join(others[-30:]))


def outside(work: Path, wanted: str | None) -> None:
    story = TerminalStory()
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


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--door", choices=["kernel", "uml", "nbd"])
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--inside", choices=["kernel", "nbd"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        if arguments.inside:
            inside(arguments.work, arguments.inside, WireStory())
        else:
            outside(arguments.work, arguments.door)
    except CommandError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
