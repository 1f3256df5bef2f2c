"""``tcmu-overlaybd cache``: what of registries' blobs is kept here."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tcmu_overlaybd.cli.options import json_output, log, print_json, verbosity
from tcmu_overlaybd.cli.progress import progress_bar
from tcmu_overlaybd.cli.tables import print_columns
from tcmu_overlaybd.cli.values import BYTES
from tcmu_overlaybd.errors import CorruptError, UsageError

if TYPE_CHECKING:
    from tcmu_overlaybd.remote.cache_folder import CachedBlob, Verification

folder_option = click.option(
    "--folder", type=click.Path(path_type=Path), help="Of the cache. [default: the daemon's, or the user's]"
)


@click.group()
def cache() -> None:
    """List, shrink and check the cache of blobs."""


def chosen(folder: Path | None) -> Path:
    from tcmu_overlaybd.remote.cache_folder import default_folder

    return folder or default_folder()


@cache.command("list")
@folder_option
@json_output
@verbosity
def list_blobs(*, folder: Path | None, as_json: bool) -> None:
    """List the blobs of which something is cached; a running daemon is not disturbed."""
    from tcmu_overlaybd.remote.cache_folder import CachedBlob, blobs

    folder = chosen(folder)
    readable: list[CachedBlob] = []
    for blob in blobs(folder):
        if isinstance(blob, CachedBlob):
            readable.append(blob)
        else:
            log.warning("%s", blob)
    if as_json:
        print_json({"folder": str(folder), "blobs": [facts_of(blob) for blob in readable]})
        return
    print_columns([("DIGEST", "SIZE", "CACHED", "PERCENT", "CHUNK", "USED"), *map(row_of, readable)])


def facts_of(blob: CachedBlob) -> dict[str, Any]:
    return {
        "digest": blob.digest,
        "size": blob.map.blob_size,
        "cached": blob.map.present_bytes,
        "chunk_size": blob.map.chunk_size,
        "chunks": blob.map.nr_chunks,
        "chunks_present": len(blob.map.chunks),
        "used_at": blob.used_at,
    }


def row_of(blob: CachedBlob) -> tuple[str, ...]:
    size, cached = blob.map.blob_size, blob.map.present_bytes
    used = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(blob.used_at))
    return blob.digest, str(size), str(cached), str(cached * 100 // size), str(blob.map.chunk_size), used


@cache.command()
@folder_option
@click.option("--limit", type=BYTES, help="Keep so many bytes, of what was used last.")
@click.option("--all", "everything", is_flag=True, help="Keep nothing.")
@json_output
@verbosity
def gc(*, folder: Path | None, limit: int | None, everything: bool, as_json: bool) -> None:
    """Remove what was used longest ago. Refused while a daemon owns the cache: it keeps its limit itself."""
    from tcmu_overlaybd.remote.cache_folder import collect

    if everything == (limit is not None):
        raise UsageError("say either --limit BYTES or --all")
    done = collect(chosen(folder), 0 if limit is None else limit)
    if as_json:
        print_json(dataclasses.asdict(done))
    else:
        freed = done.used_before - done.used_after
        click.echo(f"{freed} bytes removed, {done.used_after} left in {done.blobs_after} blobs")


@cache.command()
@folder_option
@json_output
@verbosity
def verify(*, folder: Path | None, as_json: bool) -> None:
    """Check every chunk that is cached; exit code 5 when one is damaged.

    A daemon that runs is not disturbed. It finds damage by itself, and fetches again.
    """
    from tcmu_overlaybd.remote import cache_folder

    folder = chosen(folder)
    with progress_bar("verify") as progress:
        found = cache_folder.verify(folder, progress)
    if as_json:
        print_json({"folder": str(folder), **dataclasses.asdict(found)})
    else:
        click.echo(f"{found.chunks} chunks checked, {len(found.damaged)} damaged")
    complain(folder, found)


def complain(folder: Path, found: Verification) -> None:
    """Raises CorruptError for what is wrong; each of it is in the log."""
    for damage in found.damaged:
        log.info("%s: chunk %d, %d bytes at %d", damage.digest, damage.chunk, damage.length, damage.offset)
    if found.damaged:
        first, more = found.damaged[0], len(found.damaged) - 1
        raise CorruptError(
            f"{folder}: {first.digest}: chunk {first.chunk}, {first.length} bytes at {first.offset},"
            f" is damaged" + (f", and {more} more are" if more else "")
        )
    if found.unreadable:
        raise CorruptError(found.unreadable[0])
