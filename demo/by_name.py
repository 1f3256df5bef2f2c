"""The chapters with the registry: an image is pushed, and its name becomes a disk.

When the name is opened first, the cache is empty; when the first file has been read,
the registry's log is asked how much of the image had to be fetched for that.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.disks import Disks, NbdDisks
from demo.figures import Opening
from demo.files import differences, digest, regular_files
from demo.processes import CommandError, overlaybd
from demo.registry import Registry
from demo.story import Story


@dataclass(frozen=True)
class PushedImage:
    reference: str
    layers: tuple[Path, ...]  # from which it was pushed, lowest first

    @property
    def size(self) -> int:
        """Bytes that its layers have in the registry."""
        return sum(layer.stat().st_size for layer in self.layers)


@dataclass(frozen=True)
class ByName:
    """A registry to which one has logged in, and where its images are opened."""

    registry: Registry
    disks: Disks
    source: Path  # the files as they ought to be
    story: Story

    def push(self, tag: str, layers: Sequence[Path]) -> PushedImage:
        """Layer files, lowest first, as one image."""
        return self._push(layers, PushedImage(self.registry.reference(tag), tuple(layers)))

    def push_on_top(self, tag: str, below: PushedImage, layer: Path) -> PushedImage:
        """What is there already is named only, not sent again."""
        image = PushedImage(self.registry.reference(tag), (*below.layers, layer))
        return self._push([below.reference, layer], image)

    def _push(self, what: Sequence[object], image: PushedImage) -> PushedImage:
        before, begin = self.registry.traffic(), time.monotonic()
        overlaybd("image", "push", *what, image.reference)
        seconds, traffic = time.monotonic() - begin, self.registry.traffic() - before
        self.story.fact(f"image push {image.reference}: {seconds:.1f} s, {traffic.requests} requests")
        return image

    def compare(self, image: PushedImage, what: str) -> Opening:
        """Opens the image, reads one file, then compares all; CommandError when one differs."""
        wanted = first_file(self.source)
        before, begin = self.registry.traffic(), time.monotonic()
        with self.disks.opened([image.reference], None) as disk:
            ready = time.monotonic() - begin
            content = disk.read(wanted)
            first = time.monotonic() - begin
            until_then = self.registry.traffic() - before
            require_equal(content, self.source / wanted)
            self.story.fact(f"{image.reference} is a disk; its first file: {wanted}, {len(content):,} bytes")
            same = self._compare_all(disk.tree())
            in_all, told = self.registry.traffic() - before, disk.told_by_status()
            if in_all.blob_bytes > image.size:
                self.story.fact("the cache kept nothing or too little, so that blobs were fetched again")
        return Opening(what, len(image.layers), image.size, same, ready, first, until_then, in_all, told)

    def _compare_all(self, tree: Path) -> int:
        same, wrong = differences(tree, self.source, self.story, "comparing the sha256 of every file")
        if wrong:
            raise CommandError(f"{len(wrong)} files are wrong:\n" + "\n".join(wrong[:10]))
        how = "copied out over NBD" if isinstance(self.disks, NbdDisks) else "mounted"
        self.story.fact(f"{how}: all {same:,} files equal the source")
        return same


def first_file(source: Path) -> Path:
    """By name, of those from packages that have content; relative to source."""
    return next(
        Path("usr", path)
        for path in sorted(regular_files(source / "usr"))
        if (source / "usr" / path).stat().st_size > 0
    )


def require_equal(content: bytes, path: Path) -> None:
    if hashlib.sha256(content).hexdigest() != digest(path):
        raise CommandError(f"{path.name}, the first file that was read, is wrong")
