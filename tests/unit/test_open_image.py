"""open_image: what is stacked, how large the disk is, where writes go, what is shared and refused."""

from __future__ import annotations

import errno
import json
import shutil
import threading

import pytest
from oracle.reader import read_image

from tcmu_overlaybd.config.image_config import ImageConfig, Lower, Upper, load_image_config
from tcmu_overlaybd.errors import (
    BusyError,
    CorruptError,
    FailedError,
    FormatError,
    MissingError,
    ReadOnlyError,
    TimeoutExpiredError,
    UnavailableError,
    UsageError,
)
from tcmu_overlaybd.image import lowers as lowers_module
from tcmu_overlaybd.image.create import create_layer
from tcmu_overlaybd.image.layer_table import LAYERS
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.image.source import is_reference, resolve_source
from tcmu_overlaybd.native.testing import file_fault

MIB = 1 << 20
TIMEOUT = 5000


def files(*paths):
    """An image of layer files, whether they are there or not."""
    return ImageConfig(lowers=tuple(Lower(file=str(path)) for path in paths))


def read_all(opened):
    return opened.image.read(opened.image.size, 0, TIMEOUT)


# ---- sources --------------------------------------------------------------------


def test_layer_files_are_stacked_lowest_first(vectors):
    paths = [vectors / f"stack/l{n}.lsmt" for n in (1, 2, 3)]
    with open_image(paths) as opened:
        assert read_all(opened) == read_image(vectors / "stack3-raw.config.v1.json").read(0, 2 * MIB)
    with open_image(paths[::-1]) as opened:
        assert read_all(opened) != read_image(vectors / "stack3-raw.config.v1.json").read(0, 2 * MIB)


def test_a_configuration_is_known_by_its_content(vectors, tmp_path):
    config = tmp_path / "oddly-named"
    config.write_text(json.dumps({"lowers": [{"file": str(vectors / "stack/l1.lsmt")}]}))
    with open_image(config) as opened:
        assert len(opened.layers) == 1


@pytest.mark.parametrize(
    "text",
    [
        "registry.example/library/alpine",
        "localhost/a",
        "localhost:5000/a/b:tag",
        "registry.example.org/a/b@sha256:" + "0" * 64,
        "10.0.0.1:5000/x",
    ],
)
def test_references_are_known(text):
    assert is_reference(text)


@pytest.mark.parametrize(
    "text",
    ["layer.lsmt", "some/where/layer.tar", "/abs/x.y/z", "./a.b/c", "../a.b/c", "a.b/config.v1.json", ""],
)
def test_paths_are_no_references(text):
    assert not is_reference(text)


def test_layers_are_looked_for_in_their_dir_in_the_reference_s_order(vectors, tmp_path):
    folder = tmp_path / "layer"
    folder.mkdir()
    for name, source in (
        ("overlaybd.sealed", "stack/l3.lsmt"),
        (".commit", "stack/l2.lsmt"),
        ("overlaybd.commit", "stack/l1.lsmt"),
    ):
        shutil.copy(vectors / source, folder / name)
        with open_image(ImageConfig(lowers=(Lower(dir=str(folder)),))) as opened:
            assert opened.layers[0].file.name == str(folder / name)
    with open_image(
        ImageConfig(lowers=(Lower(file=str(vectors / "stack/l3.lsmt"), dir=str(folder)),))
    ) as opened:
        assert opened.layers[0].file.name == str(vectors / "stack/l3.lsmt")


def test_an_empty_dir_is_not_the_root_folder():
    with pytest.raises(FormatError, match="names neither"):
        open_image(ImageConfig(lowers=(Lower(size=5),)))


def test_a_blob_in_a_registry_is_unavailable_for_now(tmp_path):
    lower = Lower(dir=str(tmp_path), digest="sha256:" + "0" * 64)
    with pytest.raises(UnavailableError, match=r"layer 1 of 1: sha256:0+: not here"):
        open_image(ImageConfig(repo_blob_url="https://r.example/v2/x/blobs", lowers=(lower,)))
    with pytest.raises(MissingError):
        open_image(ImageConfig(lowers=(lower,)))


def test_an_image_of_nothing_is_refused():
    with pytest.raises(FormatError, match="neither layers nor an upper"):
        open_image(ImageConfig())
    with pytest.raises(UsageError):
        resolve_source([])


def test_the_trace_layer_on_top_is_not_opened(vectors, tmp_path):
    trace = tmp_path / "trace"
    trace.write_text("no layer")
    lowers = (Lower(file=str(vectors / "stack/l1.lsmt")), Lower(file=str(trace)))
    with open_image(ImageConfig(lowers=lowers, acceleration_layer=True)) as opened:
        assert len(opened.layers) == 1


# ---- the size of the disk -----------------------------------------------------------


def test_the_topmost_lower_that_has_a_size_gives_the_disk_s(vectors):
    with open_image([vectors / "stack/l1.lsmt", vectors / "empty/empty.lsmt"]) as opened:
        assert opened.image.size == MIB
    with open_image([vectors / "empty/empty.lsmt", vectors / "stack/l1.lsmt"]) as opened:
        assert opened.image.size == 2 * MIB


def test_an_upper_of_size_0_takes_the_lowers_and_keeps_it_once_written(vectors, tmp_path):
    create_layer(tmp_path / "d", tmp_path / "i", 0)
    config = ImageConfig(
        lowers=(Lower(file=str(vectors / "stack/l1.lsmt")),),
        upper=Upper(data=str(tmp_path / "d"), index=str(tmp_path / "i")),
    )
    before = (tmp_path / "d").read_bytes()
    with open_image(config) as opened:
        assert opened.image.size == 2 * MIB
    assert (tmp_path / "d").read_bytes() == before
    open_image(config, writable=True).close()
    with open_image(ImageConfig(upper=config.upper)) as opened:
        assert opened.image.size == 2 * MIB


def test_no_size_anywhere_is_an_error(tmp_path):
    create_layer(tmp_path / "d", tmp_path / "i", 0)
    with pytest.raises(FormatError, match="how large"):
        open_image(ImageConfig(upper=Upper(data=str(tmp_path / "d"), index=str(tmp_path / "i"))))


# ---- uppers ------------------------------------------------------------------------


def test_an_upper_folder_is_made_and_kept_and_commits(vectors, tmp_path):
    base = vectors / "stack3-raw.config.v1.json"
    with open_image(base, writable=True, upper_dir=tmp_path / "up") as opened:
        opened.image.write(b"new " * 128, 4096, TIMEOUT)
        opened.image.discard(4096, 0, TIMEOUT)
    config = load_image_config(tmp_path / "up/config.v1.json")
    assert [lower.file for lower in config.layers] == [str(vectors / f"stack/l{n}.lsmt") for n in (1, 2, 3)]
    expected = bytearray(read_image(base).read(0, 2 * MIB))
    expected[:4096], expected[4096:4608] = bytes(4096), b"new " * 128
    assert read_image(tmp_path / "up/config.v1.json").read(0, 2 * MIB) == expected
    with open_image(base, writable=True, upper_dir=tmp_path / "up") as opened:
        assert read_all(opened) == expected
    with open_image(tmp_path / "up") as opened:
        assert opened.image.is_read_only
        assert read_all(opened) == expected


def test_a_blank_disk_needs_a_size(tmp_path):
    with open_image(None, writable=True, upper_dir=tmp_path / "up", size=MIB) as opened:
        assert opened.image.size == MIB
        assert read_all(opened) == bytes(MIB)
    with pytest.raises(UsageError, match="too small"):
        open_image(None, writable=True, upper_dir=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_an_upper_may_be_larger_than_its_lowers_but_not_smaller(vectors, tmp_path):
    base = vectors / "stack/l1.lsmt"
    with open_image(base, writable=True, upper_dir=tmp_path / "a", size=3 * MIB) as opened:
        assert opened.image.size == 3 * MIB
    with pytest.raises(UsageError, match="too small"):
        open_image(base, writable=True, upper_dir=tmp_path / "b", size=MIB)
    with pytest.raises(UsageError, match="has 3145728 bytes, not 4194304"):
        open_image(base, writable=True, upper_dir=tmp_path / "a", size=4 * MIB)


def test_an_upper_of_other_lowers_is_refused(vectors, tmp_path):
    open_image(vectors / "stack/l1.lsmt", writable=True, upper_dir=tmp_path / "up").close()
    with pytest.raises(UsageError, match="an image of other layers"):
        open_image(vectors / "stack/l2.lsmt", writable=True, upper_dir=tmp_path / "up")


def test_an_image_with_an_upper_takes_no_second_one(private_vectors, tmp_path):
    with pytest.raises(UsageError, match="has an upper already"):
        open_image(private_vectors / "rw.config.v1.json", writable=True, upper_dir=tmp_path / "up")
    assert not (tmp_path / "up").exists()


def test_writing_needs_somewhere_to_write(vectors):
    with pytest.raises(UsageError, match="no upper to write to"):
        open_image(vectors / "stack/l1.lsmt", writable=True)
    with pytest.raises(UsageError, match="writable"):
        open_image(vectors / "stack/l1.lsmt", upper_dir="x")


def test_a_foreign_file_in_the_folder_is_neither_used_nor_removed(vectors, tmp_path):
    (tmp_path / "up").mkdir()
    (tmp_path / "up/data").write_text("precious")
    with pytest.raises(Exception, match="exists already"):
        open_image(vectors / "stack/l1.lsmt", writable=True, upper_dir=tmp_path / "up")
    assert (tmp_path / "up/data").read_text() == "precious"
    assert [path.name for path in (tmp_path / "up").iterdir()] == ["data"]


def test_an_upper_that_was_made_goes_again_when_it_cannot_be_opened(vectors, tmp_path):
    file_fault("index.journal.new", "write", 1, errno.EIO)
    try:
        with pytest.raises(FailedError, match="journal"):
            open_image(vectors / "stack/l1.lsmt", writable=True, upper_dir=tmp_path / "up")
    finally:
        file_fault("", "", 0, 0)
    assert not (tmp_path / "up").exists()
    assert len(LAYERS) == 0


def test_undo_removes_what_this_opening_made_and_nothing_else(vectors, tmp_path):
    open_image(vectors / "stack/l1.lsmt", writable=True, upper_dir=tmp_path / "up").undo()
    assert not (tmp_path / "up").exists()
    open_image(vectors / "stack/l1.lsmt", writable=True, upper_dir=tmp_path / "up").close()
    open_image(vectors / "stack/l1.lsmt", writable=True, upper_dir=tmp_path / "up").undo()
    assert (tmp_path / "up/data").exists()


def test_a_held_upper_is_busy_and_says_by_whom(private_vectors):
    config = private_vectors / "rw.config.v1.json"
    with (
        open_image(config, writable=True, holder="the first"),
        pytest.raises(BusyError, match=r"held by the first, pid \d+"),
    ):
        open_image(config, writable=True)


def test_a_sealed_upper_is_a_lower(private_vectors, tmp_path):
    config = tmp_path / "config.v1.json"
    data, index = str(private_vectors / "sealed/overlaybd.sealed"), str(private_vectors / "rw/rw.index")
    config.write_text(json.dumps({"upper": {"data": data, "index": index}}))
    with open_image(config) as opened:
        expected = read_image(private_vectors / "rw.config.v1.json").read(0, 8 * MIB)
        assert read_all(opened) == expected
    with pytest.raises(ReadOnlyError, match="sealed"):
        open_image(config, writable=True)


def test_files_of_two_uppers_are_not_taken_for_a_pair(private_vectors, tmp_path):
    upper = Upper(data=str(private_vectors / "rw/rw.data"), index=str(private_vectors / "group/g.index"))
    with pytest.raises(CorruptError, match="UUID"):
        open_image(ImageConfig(upper=upper))


# ---- sharing and order of opening -------------------------------------------------------


def test_one_open_layer_per_file_however_many_images_use_it(vectors, tmp_path):
    link = tmp_path / "link"
    link.hardlink_to(vectors / "stack/l1.lsmt")
    with open_image(vectors / "stack/l1.lsmt") as one, open_image([link, vectors / "stack/l2.lsmt"]) as two:
        assert one.layers[0].layer is two.layers[0].layer
        assert len(LAYERS) == 2
    assert len(LAYERS) == 0


def test_a_replaced_file_is_another_layer(private_vectors):
    path = private_vectors / "stack/l1.lsmt"
    with open_image(path) as one:
        shutil.copy(private_vectors / "stack/l2.lsmt", path.with_suffix(".new"))
        path.with_suffix(".new").rename(path)
        with open_image(path) as two:
            assert one.layers[0].layer is not two.layers[0].layer


def test_a_failure_closes_what_was_open(vectors, tmp_path):
    with pytest.raises(MissingError, match="layer 3 of 3"):
        open_image(files(vectors / "stack/l1.lsmt", vectors / "stack/l2.lsmt", tmp_path / "nope"))
    assert len(LAYERS) == 0


@pytest.mark.parametrize("patience", [0.0, 60.0])
def test_layers_opened_side_by_side_keep_their_order(patience, vectors, monkeypatch, tmp_path):
    monkeypatch.setattr(lowers_module, "PATIENCE_S", patience)
    paths = [vectors / f"stack/l{n}.lsmt" for n in (1, 2, 3)] * 10
    with open_image(paths) as opened:
        assert [layer.file.name for layer in opened.layers] == list(map(str, paths))
        assert read_all(opened) == read_image(vectors / "stack3-raw.config.v1.json").read(0, 2 * MIB)
    with pytest.raises(MissingError, match="layer 2 of 3"):
        open_image(
            ImageConfig(lowers=tuple(Lower(file=str(p)) for p in (paths[0], tmp_path / "nope", paths[1])))
        )
    assert len(LAYERS) == 0


def test_many_threads_open_and_close_the_same_layers(vectors):
    failures = []

    def work():
        try:
            for _ in range(20):
                with open_image(vectors / "stack3-mixed.config.v1.json") as opened:
                    opened.image.read(4096, 0, TIMEOUT)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(LAYERS) == 0


# ---- hooks of the test build ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["commit/raw.lsmt", "commit/lz4-4k.tar"])
def test_a_slow_layer_opens_at_once_and_its_data_is_late(name, vectors, monkeypatch):
    monkeypatch.setenv("TCMU_OVERLAYBD_TEST_SLOW", f"*{name}=4096:never")
    with open_image(vectors / name) as opened:
        assert opened.image.size == 8 * MIB
        with pytest.raises(TimeoutExpiredError):
            opened.image.read(4096, 0, 50)
    monkeypatch.setenv("TCMU_OVERLAYBD_TEST_SLOW", f"*{name}=4096:20:1000")
    with open_image(vectors / name) as opened:
        assert read_all(opened) == read_image(vectors / "rw.config.v1.json").read(0, 8 * MIB)


def test_slow_files_are_those_the_pattern_names(vectors, monkeypatch):
    monkeypatch.setenv("TCMU_OVERLAYBD_TEST_SLOW", "*/other=4096:never")
    with open_image(vectors / "commit/raw.lsmt") as opened:
        opened.image.read(4096, 0, 50)
