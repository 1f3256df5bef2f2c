"""Every call on the files of the cache fails once, one after another: a read is right all the same.

The cache is a help: a chunk that cannot be kept, or read back, comes from the registry.  What
cannot be opened is an error that names the file, and is over with its cause.
"""

from __future__ import annotations

import errno
import hashlib
from contextlib import contextmanager
from pathlib import Path

import pytest

from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.native.testing import file_fault
from tests.registry.images import Blob, random_blob
from tests.registry.scripted_server import ScriptedServer
from tests.remote.cached_blob import CHUNK_SIZE, READ_TIMEOUT_MS, Blobs

PATH = "/v2/t/x/blobs/layer"
BLOB: Blob = random_blob(3 * CHUNK_SIZE + 77, 9)
FILES = [hashlib.sha256(BLOB.data).hexdigest(), ".map"]
OPERATIONS = ["write", "tear", "read", "sync", "reserve", "truncate", "punch", "open"]


@contextmanager
def nth_call(suffix: str, operation: str, n: int, error: int):
    file_fault(suffix, operation, n, error)
    try:
        yield
    finally:
        file_fault("", "", 0, 0)


def failure_of(folder: Path, url: str) -> str:
    """Of reading all of it twice, as the second opening finds what the first has kept; "": none."""
    try:
        for _ in range(2):
            with Blobs(folder) as blobs:
                source = blobs.open(url, BLOB.data)
                for offset in range(0, len(BLOB.data), 50_000):
                    length = min(CHUNK_SIZE, len(BLOB.data) - offset)
                    assert source.read(length, offset, READ_TIMEOUT_MS) == BLOB.data[offset : offset + length]
    except OverlayBDError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("suffix", FILES, ids=["blob", "map"])
def test_whatever_call_on_a_file_of_the_cache_fails_no_wrong_byte_is_read(tmp_path, suffix, operation):
    """Only a file that cannot be opened, or a map that cannot be read then, is an error."""
    with ScriptedServer() as server:
        server.put(PATH, BLOB.data)
        url, good, n = server.url + PATH, 0, 0
        while good < 4:  # in a row: there are no more such calls, or they are got over
            n += 1
            folder = tmp_path / str(n)
            with nth_call(suffix, operation, n, errno.EIO if n % 2 else errno.ENOSPC):
                failure = failure_of(folder, url)
            good = 0 if failure else good + 1
            assert not failure or operation == "open" or (suffix, operation) == (".map", "read"), failure
            assert not failure or "Input/output error" in failure or "No space left" in failure
            assert failure_of(folder, url) == "", "a later read"
