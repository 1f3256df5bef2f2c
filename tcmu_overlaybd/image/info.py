"""``layer info`` and ``image info``: everything the headers say, as plain values for text or JSON."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from tcmu_overlaybd.config.image_config import ImageConfig
from tcmu_overlaybd.errors import FormatError, MissingError
from tcmu_overlaybd.formats import lsmt, zfile
from tcmu_overlaybd.image.layer_file import Containers, LayerFile, open_layer
from tcmu_overlaybd.image.layer_place import FilePlace, LayerPlace
from tcmu_overlaybd.image.lowers import lower_place
from tcmu_overlaybd.image.source import Source, resolve_source
from tcmu_overlaybd.image.upper_pair import is_sealed, read_upper_pair
from tcmu_overlaybd.remote.store import BlobStore

CODEC_NAMES = {zfile.Codec.LZ4: "lz4", zfile.Codec.ZSTD: "zstd"}

Info = dict[str, Any]


def layer_info(path: Path) -> Info:
    """What the file path says of itself: a sealed layer, or one file of a writable one.

    Raises MissingError, FormatError, CorruptError.
    """
    writable = _writable_file_info(path)
    if writable is not None:
        return writable
    return sealed_layer_info(FilePlace(path))


def sealed_layer_info(place: LayerPlace) -> Info:
    """What a sealed layer says of itself, wherever it is.  Raises what open_layer does."""
    opened = open_layer(place)
    file = opened.file
    sectors = {False: 0, True: 0}  # of data, of zeros
    with closing(opened):
        nr_segments = opened.layer.nr_segments
        for segment in opened.layer.segments():
            sectors[segment.is_zero] += segment.length
    return {
        "path": place.name,
        "size": file.containers.size,
        "kind": file.kind,
        **_container_info(file.containers),
        **_lsmt_info(file),
        "segments": nr_segments,
        "data_bytes": sectors[False] * lsmt.SECTOR_SIZE,
        "zero_bytes": sectors[True] * lsmt.SECTOR_SIZE,
    }


def image_info(source: Source, store: BlobStore | None = None) -> Info:
    """Size, layers (lowest first) and upper of an image; nothing is locked or replayed."""
    config = resolve_source(source, store)
    layers = [_lower_info(lower_place(lower, config, store)) for lower in config.layers]
    upper = _upper_info(config)
    if not layers and upper is None:
        raise FormatError("the configuration names neither layers nor an upper")
    sizes = [upper["virtual_size"]] if upper else []
    sizes += [layer["virtual_size"] for layer in reversed(layers)]
    return {
        "virtual_size": next((size for size in sizes if size), 0),
        "writable": upper is not None and upper["kind"] == "append",
        "layers": layers,
        "upper": upper,
    }


def _lower_info(place: LayerPlace) -> Info:
    return sealed_layer_info(place) if place.path is None else layer_info(place.path)


def _container_info(containers: Containers) -> Info:
    wrapper = containers.wrapper
    index = containers.zfile_index
    return {
        "tar": wrapper and {"form": wrapper.form, "offset": wrapper.offset, "size": wrapper.size},
        "zfile": index
        and {
            "codec": CODEC_NAMES[zfile.Codec(index.codec)],
            "block_size": index.block_size,
            "blocks": index.nr_blocks,
            "original_size": index.original_size,
            "jump_table_offset": index.index_offset,
            "block_checksums": index.has_block_crc,
            "header_checksums": index.has_digest,
            "header_overwritten": index.is_overwritten,
        },
    }


def _lsmt_info(file: LayerFile) -> Info:
    return {
        **_block_info(file.trailer),
        "lsmt_size": file.lsmt_size,
        "index_offset": file.trailer.index_offset,
        "index_entries": file.trailer.index_size,
    }


def _block_info(block: lsmt.Block) -> Info:
    return {
        "virtual_size": block.virtual_size,
        "uuid": block.uuid,
        "parent_uuid": block.parent_uuid,
        "message": block.user_tag.decode(errors="replace"),
        "version": f"{block.version}.{block.sub_version}",
    }


def _writable_file_info(path: Path) -> Info | None:
    """Of an index file, or of the data file of a writable layer that is not sealed."""
    start = _read_start(path)
    if not lsmt.is_lsmt(start):
        return None
    header = lsmt.parse(start, f"{path}: LSMT header")
    if not header.is_header or header.is_sealed or (header.is_data and is_sealed(path, header)):
        return None
    kind = ("sparse" if header.is_sparse else "append") if header.is_data else "index"
    size = path.stat().st_size
    info = {"path": str(path), "size": size, "kind": kind, **_block_info(header)}
    if kind == "index":
        info["index_entries"] = max(size - lsmt.BLOCK_SIZE, 0) // lsmt.ENTRY_SIZE
    return info


def _read_start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(lsmt.BLOCK_SIZE)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError(f"{path}: no such file") from error


def _upper_info(config: ImageConfig) -> Info | None:
    upper = config.writable
    if upper is None:
        return None
    pair = read_upper_pair(Path(upper.data), Path(upper.index))
    return {
        "kind": pair.kind,
        "data": str(pair.data),
        "index": str(pair.index),
        "data_size": pair.data_size,
        "index_size": pair.index.stat().st_size if pair.index.exists() else 0,
        "virtual_size": pair.virtual_size,
        "uuid": pair.uuid,
        "parent_uuid": pair.parent_uuid,
    }
