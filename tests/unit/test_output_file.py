"""An output is whole or absent; only an exported disk may take a name that is taken."""

from pathlib import Path

import pytest

from tcmu_overlaybd.errors import FailedError, MissingError
from tcmu_overlaybd.image.output_file import OutputFile


def write(path: Path, data: bytes, *, replace: bool = False) -> None:
    with OutputFile(path, replace=replace) as output:
        output.write_at(0, data)


def test_output_that_exists_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write(tmp_path / "layer", b"first")
    with pytest.raises(FailedError, match="exists already"):
        write(tmp_path / "layer", b"second")
    assert (tmp_path / "layer").read_bytes() == b"first"


def test_output_whose_name_was_taken_meanwhile_is_refused_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="exists already"), OutputFile(tmp_path / "layer") as output:
        output.write_at(0, b"ours")
        (tmp_path / "layer").write_bytes(b"theirs")
    assert (tmp_path / "layer").read_bytes() == b"theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["layer"]


def test_replacing_takes_the_name_in_one_step(tmp_path: Path) -> None:
    write(tmp_path / "disk", b"a longer first content")
    write(tmp_path / "disk", b"second", replace=True)
    assert (tmp_path / "disk").read_bytes() == b"second"
    assert [p.name for p in tmp_path.iterdir()] == ["disk"]


def test_failed_replacement_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "disk", b"first")
    with pytest.raises(RuntimeError), OutputFile(tmp_path / "disk", replace=True) as output:
        output.write_at(0, b"half")
        raise RuntimeError
    assert (tmp_path / "disk").read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["disk"]


def test_replacing_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FailedError, match="exists already"):
        write(tmp_path / "folder", b"x", replace=True)


def test_output_in_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="there is no folder"):
        write(tmp_path / "nowhere" / "file", b"x")
