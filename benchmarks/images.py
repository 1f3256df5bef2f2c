"""The layers that are read: real bytes of this machine, made into layer files once."""

import json
from array import array
from itertools import accumulate
from pathlib import Path

from tcmu_overlaybd.config.image_config import ImageConfig, Lower
from tcmu_overlaybd.formats import zfile
from tcmu_overlaybd.image.importing import import_raw
from tcmu_overlaybd.image.layer_file import read_layer_file
from tcmu_overlaybd.image.layer_place import FilePlace
from tcmu_overlaybd.image.layer_writer import LayerOptions

BLOCK = 4096
DISK_BYTES = 128 << 20
LSMT_HEADER = 4096  # the data of a dense layer begins behind it


def raw_disk(folder: Path) -> Path:
    """A disk full of programs and libraries: how real data compresses."""
    path = folder / "disk.raw"
    if not path.exists():
        left = DISK_BYTES
        with path.with_suffix(".part").open("wb") as out:
            for file in sorted(Path("/usr").glob("**/*.so*")) + sorted(Path("/usr/bin").iterdir()):
                if left and file.is_file() and not file.is_symlink():
                    left -= out.write(file.read_bytes()[:left])
        if left:
            raise RuntimeError(f"/usr has {left} bytes too few to make a disk of {DISK_BYTES}")
        path.with_suffix(".part").rename(path)
    return path


def layer(folder: Path, codec: zfile.Codec | None) -> Path:
    """The disk as one layer, plain or as a ZFile with 4 KiB blocks."""
    name = f"layer-{codec.name.lower() if codec is not None else 'plain'}"
    return layer_of(raw_disk(folder), folder / name, codec)


def layer_of(raw: Path, path: Path, codec: zfile.Codec | None) -> Path:
    if not path.exists():
        import_raw(raw, path, LayerOptions(codec=codec))
    return path


def config_of(*layers: Path) -> ImageConfig:
    return ImageConfig(lowers=tuple(Lower(file=str(path)) for path in layers))


def config_file(folder: Path, name: str, layers: list[Path]) -> Path:
    """config.v1.json of a stack, lowest first."""
    path = folder / f"{name}.config.v1.json"
    path.write_text(json.dumps({"lowers": [{"file": str(layer.resolve())} for layer in layers]}))
    return path


class StoredBlocks:
    """Where each block of a ZFile lies, its CRC included: the jump table, summed up."""

    def __init__(self, path: Path) -> None:
        index = read_layer_file(FilePlace(path)).containers.zfile_index
        if index is None:
            raise ValueError(f"{path} is no ZFile")
        with path.open("rb") as file:
            file.seek(index.index_offset)
            self.lengths = array("I", file.read(4 * index.nr_blocks))
        self.places = array("Q", accumulate(self.lengths[:-1], initial=zfile.BLOCK_SIZE))
