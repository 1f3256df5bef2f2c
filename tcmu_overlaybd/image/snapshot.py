"""One snapshot of an image in use: its upper becomes a lower, with a new upper on top.

The caller holds the writes of the device in the middle, and calls in this order; what takes
long is before and after that::

   prepare                   intent, new upper made and open, everything flushed
   -- writes held --
   seal, finish_seal         the data file is a sealed layer: the snapshot has happened
   stack                     the new image, which the caller puts in the old one's place
   -- writes resumed --
   complete                  configurations say so, what nobody needs is removed

Before the new image is in its place everything can be taken back: ``unseal``, while writes
are held, and ``undo``.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import msgspec

from tcmu_overlaybd.config.image_config import Upper, load_image_config
from tcmu_overlaybd.errors import LimitError, UsageError
from tcmu_overlaybd.formats import lsmt
from tcmu_overlaybd.image.create import create_layer
from tcmu_overlaybd.image.layer_place import FilePlace
from tcmu_overlaybd.image.layer_table import LAYERS, SharedLayer
from tcmu_overlaybd.image.open import OpenImage, open_upper
from tcmu_overlaybd.image.snapshot_intent import (
    SnapshotIntent,
    abandon,
    complete,
    complete_earlier,
    configs_of,
    next_upper,
    write_intent,
)
from tcmu_overlaybd.image.upper_pair import UpperPair, read_data_header, read_upper_pair
from tcmu_overlaybd.native import image as native
from tcmu_overlaybd.native.testing import hook


class Snapshot:
    """Takes nothing; the image that it makes is the caller's once it is in place."""

    def __init__(self, opened: OpenImage, configs: Iterable[Path], replacement: Path | None = None) -> None:
        """configs: files that may name the upper, and then name the new one afterwards.

        replacement is a configuration that the caller has written, with an upper that he has
        made: it takes the place of the first of configs.

        Raises UsageError for an image whose upper cannot be sealed, LimitError when it has
        no room for one more layer.
        """
        self.opened = opened
        self.pair = _sealable(opened)
        self.intent = self._plan(tuple(configs), replacement)
        self._new_pair: UpperPair | None = None
        self._header = read_data_header(self.pair.data)
        self._trailer = b""
        self._upper: native.Upper | None = None
        self._sealed: SharedLayer | None = None
        self._image: native.Image | None = None
        self._is_begun = False

    @property
    def nr_bytes(self) -> int:
        """Of the sealed file."""
        return self.pair.data.stat().st_size

    def prepare(self) -> None:
        """Everything that can be done while writes go on.  Raises what making an upper does."""
        self._is_begun = True
        write_intent(self.intent)
        hook("snapshot.intent_written")
        data, index = Path(self.intent.upper.data), Path(self.intent.upper.index)
        if self.intent.is_upper_ours:
            create_layer(data, index, self.opened.image.size, parent_uuid=self.pair.uuid)
        hook("snapshot.upper_made")
        self._new_pair = read_upper_pair(data, index)
        nr_lowers = len(self.opened.layers) + 1
        self._upper = open_upper(self._new_pair, self.opened.image.size, nr_lowers, self.opened.options)
        self.opened.image.flush()  # may take long
        self.opened.image.flush()  # what came meanwhile
        hook("snapshot.flushed")

    def seal(self) -> None:
        """Index and log are on disk; the upper takes no write any more."""
        index = self.opened.image.seal()
        header = replace(self._header, virtual_size=self.opened.image.size, user_tag=b"")
        self._trailer = lsmt.build(lsmt.trailer_of(header, index.offset, index.nr_entries))

    def finish_seal(self) -> None:
        """The data file is a sealed layer."""
        self.opened.image.finish_seal(self._trailer)

    def stack(self) -> OpenImage:
        """What is open from now on: it shows the same bytes and writes to the new upper.

        When its image is in the other's place, the native image of ``opened`` is all of that
        which is left to be closed.
        """
        self._sealed = LAYERS.acquire(FilePlace(self.pair.data))
        layers = [*self.opened.layers, self._sealed]
        upper, self._upper = self._upper, None
        self._image = native.Image.open(
            [shared.layer for shared in layers],
            upper,
            virtual_size=self.opened.image.size,
            name=self.opened.name,
        )
        config = self.intent.apply(self.opened.config)
        return replace(
            self.opened, image=self._image, config=config, layers=layers, upper=self._new_pair, made_dir=None
        )

    def complete(self) -> None:
        """Raises what writing a configuration does: then the next start does it."""
        complete(self.intent)
        hook("snapshot.completed")

    def unseal(self) -> None:
        """The image can be written again."""
        self.opened.image.unseal()

    def undo(self) -> None:
        """What was made is gone."""
        with ExitStack() as steps:  # the last first, and each whatever the others raise
            if self._is_begun:
                steps.callback(abandon, self.intent)
            for handle in (self._sealed, self._upper, self._image):
                if handle is not None:
                    steps.callback(handle.close)

    def _plan(self, configs: tuple[Path, ...], replacement: Path | None) -> SnapshotIntent:
        current = Upper(data=str(self.pair.data.absolute()), index=str(self.pair.index.absolute()))
        complete_earlier(self.opened.config)
        intent = SnapshotIntent(
            sealed=current, upper=next_upper(current), configs=configs_of(current, configs)
        )
        if replacement is None:
            return intent
        return _with_replacement(intent, configs[0], replacement, self.opened.image.size)


def _sealable(opened: OpenImage) -> UpperPair:
    """The upper of opened."""
    if opened.upper is None or opened.image.is_read_only:
        raise UsageError(f"{opened.name}: there is nothing to seal: it is not writable")
    if opened.upper.kind != "append":
        raise UsageError(
            f"{opened.name}: its upper is {opened.upper.kind}, and only one that is appended to can be"
            " sealed in use; detach it, and image commit makes a layer of it"
        )
    if opened.upper.data.is_block_device():
        raise UsageError(
            f"{opened.name}: its upper lies on {opened.upper.data}, a device, which cannot be sealed;"
            " detach it, and image commit makes a layer of it"
        )
    if len(opened.layers) + 1 >= native.MAX_LAYERS:
        raise LimitError(
            f"{opened.name}: it has {len(opened.layers)} lowers and an upper, and at most {native.MAX_LAYERS}"
            " layers can be stacked: image merge makes one of them"
        )
    return opened.upper


def _with_replacement(intent: SnapshotIntent, config: Path, replacement: Path, size: int) -> SnapshotIntent:
    """intent with what the caller has prepared (spec/config.md section 5)."""
    wanted = load_image_config(replacement)
    upper = wanted.writable
    if upper is None:
        raise UsageError(f"{replacement}: it names no upper")
    if upper.data == intent.sealed.data or upper.index == intent.sealed.index:
        raise UsageError(f"{replacement}: its upper is the one that is to be sealed")
    pair = read_upper_pair(Path(upper.data), Path(upper.index))
    if pair.kind != "append" or pair.virtual_size not in (0, size):
        raise UsageError(
            f"{upper.data}: {pair.kind}, of {pair.virtual_size} bytes: it cannot take the writes of a disk"
            f" of {size}"
        )
    others = tuple(path for path in intent.configs if path != str(config))
    return msgspec.structs.replace(
        intent,
        upper=Upper(data=upper.data, index=upper.index),
        configs=(str(config), *others),
        is_upper_ours=False,
        replacement=wanted,
        used_up=str(replacement.absolute()),
    )
